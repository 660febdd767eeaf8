"""What the runs of the grid do: table and curves, the likelihood's scale, ablations, augmentation, the toy set."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.autoencoders import Autoencoder, FitConfig, make_autoencoder
from pyro_riemann.datasets import disks_and_rings, load_dataset
from pyro_riemann.evaluation import AugmentationTask, ClassifierConfig, nearest_images, stack_classes
from pyro_riemann.experiments._jobs import pack, pack_images
from pyro_riemann.experiments.chadebec2022._study import GEOMETRIC, Study
from pyro_riemann.metrics import KernelMetric
from pyro_riemann.sampling import interpolate

_SHOWN = 10  # images of each sampler kept for the figures


def one_run(study: Study, settings: dict[str, Any]) -> dict[str, Any]:
    """The result of one run of the grid, JSON-able."""
    part = settings["part"]
    own = {key: value for key, value in settings.items() if key not in ("part", "protocol")}
    if part == "toy":
        return toy(study)
    if part == "augmentation":
        return augmentation(study, **own)
    if part == "ablation":
        return ablation(study, own)
    if part == "scale":
        size, epochs = study.protocol.table
        return generation(study, "vae", study.protocol.seeds[0], size, epochs, **own)
    return generation(study, **own, all_measures=part == "table")


def generation(
    study: Study,
    model: str,
    seed: int,
    size: int,
    epochs: int,
    all_measures: bool = True,
    scale: float | None = None,
) -> dict[str, Any]:
    """Train one model and measure all its samplers."""
    train, validation = study.split(size, seed)
    changes = {} if scale is None else {"scale": scale}
    key = f"{model}-{size}-{seed}" + ("" if scale is None else f"-{scale:g}")
    trained, report = study.train(key, model, train, validation, epochs, seed, **changes)
    shown = _SHOWN if seed == study.protocol.seeds[0] and size == study.protocol.table[0] else 0
    measured, kept = {}, {}
    for name, sampler in study.samplers(key, trained, train, study.protocol.num_samples).items():
        measured[name] = study.measure(trained, sampler, seed, all_measures=all_measures, keep=shown)
        if name == "paper" and shown:
            images = trained.sample(shown, sampler, seed=seed).cpu()
            found = nearest_images(images, train, lambda rows: trained.decode(trained.encode(rows)).cpu())
            kept = {
                "images": {
                    name: pack_images(getattr(found, name)) for name in ("generated", "train", "reconstruction")
                },
                "train_distance": found.train_distance.tolist(),
                "reconstruction_distance": found.reconstruction_distance.tolist(),
            }
    reconstructed = trained.decode(trained.encode(study.images.test)).cpu()
    report["test_squared_error"] = float((reconstructed - study.images.test).square().sum(-1).mean())
    if trained.variational:
        scales = trained.posterior(train)[1].median(0).values.sort().values
        report["posterior_scales"] = scales.tolist()
    result: dict[str, Any] = {"training": report, "samplers": measured, "extractor": study.extractor_report()}
    return result | ({"nearest": kept} if kept else {})


def ablation(study: Study, changes: dict[str, Any]) -> dict[str, Any]:
    """Measures of the table's VAE under a metric with other centroids or another floor."""
    seed, (size, epochs) = study.protocol.seeds[0], study.protocol.table
    train, validation = study.split(size, seed)
    key = f"vae-{size}-{seed}"
    model, _ = study.train(key, "vae", train, validation, epochs, seed)
    measured = {}
    for label in ("paper", "uniform"):
        rule, method = GEOMETRIC[label]
        sampler = study.geometric(study.metric(key, model, train, rule, **changes), method, study.protocol.num_samples)
        measured[label] = study.measure(model, sampler, seed, all_measures=False)
    return {"samplers": measured, "extractor": study.extractor_report()}


# -------------------------------------------------------------------- augmentation: C22, section 5.3


def task(study: Study) -> AugmentationTask:
    """Few images of two classes for training, a seventh as many to validate, all test images of both to judge."""
    name, classes, sizes = study.protocol.augmentation
    data = load_dataset(name, study.root)
    train, validation, test = [], [], []
    for label, size in zip(classes, sizes, strict=True):
        rows = data.train[data.train_labels == label]
        held_out = max(2, size // 7)
        if size + held_out > len(rows):
            raise ValueError(f"{size} + {held_out} images of class {label} are asked for, {name} has {len(rows)}.")
        train.append(rows[:size])
        validation.append(rows[size : size + held_out])
        test.append(data.test[data.test_labels == label])
    return AugmentationTask(stack_classes(train), stack_classes(validation), stack_classes(test), data.shape)


def augmentation(study: Study, model: str | None, scale: float | None = None) -> dict[str, Any]:
    """Scores of classifiers trained on real images (``model`` None), or on the images of one model's samplers."""
    protocol, problem = study.protocol, task(study)
    runs = range(protocol.augmentation_runs)
    if model is None:
        original = [problem.train for _ in runs]
        resampled = [problem.resampled(run) for run in runs]
        return {
            "methods": {"original": scores(study, problem, original), "resampled": scores(study, problem, resampled)}
        }
    images, labels = problem.train
    pools: list[dict[str, Tensor]] = []
    reports = []
    for label in (0, 1):
        rows, held_out = images[labels == label], problem.validation[0][problem.validation[1] == label]
        settings: dict[str, Any] = {"shape": problem.shape, "patience": 20, "checkpoint_every": 50}
        key = f"augmentation-{model}-{label}"
        if scale is not None:
            settings["scale"] = scale
            key += f"-{scale:g}"
        trained, report = study.train(key, model, rows, held_out, protocol.augmentation_epochs, label, **settings)
        count = protocol.augmentation_pool * protocol.augmentation_samples
        found = study.samplers(key, trained, rows, count)
        pools.append({name: trained.sample(count, sampler, seed=label).cpu() for name, sampler in found.items()})
        reports.append(report)
    methods = {}
    for name in pools[0]:
        sets = [
            stack_classes([choose(pool[name], protocol.augmentation_samples, run) for pool in pools]) for run in runs
        ]
        methods[name] = scores(study, problem, sets)
    return {"methods": methods, "training": reports}


def choose(pool: Tensor, count: int, seed: int) -> Tensor:
    """A random choice of ``count`` rows."""
    return pool[torch.randperm(len(pool), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:count]]


def scores(study: Study, problem: AugmentationTask, sets: list[tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over runs, each with a classifier of its own."""
    config = ClassifierConfig(channels=(8, 16))
    steps = -(-len(sets[0][0]) // config.batch_size)  # of one epoch
    config = dataclasses.replace(config, epochs=max(1, round(study.protocol.classifier_steps / steps)))
    runs = [problem.score(*images, config=dataclasses.replace(config, seed=run)) for run, images in enumerate(sets)]

    def spread(values: list[float]) -> dict[str, float]:
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    def by_class(name: str, label: int) -> dict[str, float]:
        return spread([getattr(run, name)[label] for run in runs])

    names = ("f1", "precision", "recall")
    return {
        "balanced_accuracy": spread([run.balanced_accuracy for run in runs]),
        **{f"{name}_{label}": by_class(name, label) for name in names for label in (0, 1)},
    }


# -------------------------------------------------------------------- C22, figure 1

_SIZE, _IMAGES, _CENTROIDS, _CELLS, _FRAMES, _POINTS = 32, 1_000, 200, 100, 10, 100
_WIDENING = 2.5


def toy(study: Study) -> dict[str, Any]:
    """A VAE of disks and rings with two latent dimensions, its metric, and curves by eq. 8 against straight lines."""
    images, labels = disks_and_rings(_IMAGES, _SIZE)
    held_out, held_out_labels = disks_and_rings(200, _SIZE, seed=1)
    model = make_autoencoder("vae", (_SIZE, _SIZE), 2, hidden=(256, 128), seed=0)
    config = FitConfig(study.protocol.toy_epochs, 100, checkpoint_every=20, patience=20)
    model.fit(images, held_out, config, checkpoint=study.cache / "toy", progress=not study.quiet)
    loc, scale = model.posterior(images)
    # between C22's rule, which leaves gaps along the bands, and "mahalanobis", under which the bands become one hill
    bandwidth = _WIDENING * float(KernelMetric.from_posterior(loc, scale, _CENTROIDS, "euclidean").bandwidth)
    metric = KernelMetric.from_posterior(loc, scale, _CENTROIDS, bandwidth, regularization=1e-3)
    margin = 0.15 * (loc.amax(0) - loc.amin(0))
    low, high = loc.amin(0) - margin, loc.amax(0) + margin
    axes = [torch.linspace(float(a), float(b), _CELLS) for a, b in zip(low, high, strict=True)]
    volume = 0.5 * metric.logdet(torch.cartesian_prod(*axes)).reshape(_CELLS, _CELLS)
    codes = model.encode(held_out)
    starts, ends = _pairs(codes, held_out_labels)
    found = {
        "straight": interpolate(metric, starts, ends, kind="line", num_frames=_POINTS),
        "curved": interpolate(metric, starts, ends, kind="volume", num_frames=_POINTS, init="graph"),
    }
    curve = found["curved"].curve
    assert curve is not None
    return {
        "size": _SIZE,
        "codes": pack(loc, "float32"),
        "labels": labels.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "log_volume_element": pack(volume, "float32"),
        "bandwidth": float(metric.bandwidth),
        "coverage": float(metric.coverage(loc)),
        "curves": [
            {name: _curve(model, metric, one.points[:, index]) for name, one in found.items()}
            for index in range(len(starts))
        ],
        "converged": curve.converged.tolist(),
    }


def _pairs(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each class, its two codes that lie farthest apart."""
    ends = []
    for label in (0, 1):
        mine = codes[labels == label]
        first, second = divmod(int(torch.cdist(mine, mine).argmax()), len(mine))
        ends.append(mine[[first, second]])
    both = torch.stack(ends)
    return both[:, 0], both[:, 1]


def _curve(model: Autoencoder, metric: KernelMetric, points: Tensor) -> dict[str, Any]:
    """Points and decoded frames of a curve, and how small the metric's volume gets along it."""
    shown = torch.linspace(0, _POINTS - 1, _FRAMES).round().long()
    return {
        "points": pack(points, "float32"),
        "frames": pack_images(model.decode(points[shown])),
        "least_log_volume_element": float(0.5 * metric.logdet(points).min()),
    }
