"""The runs of the grid: table and curves, the likelihood's scale, ablations of the metric."""

from __future__ import annotations

from typing import Any

from pyro_riemann.evaluation import nearest_images
from pyro_riemann.experiments._jobs import pack_images
from pyro_riemann.experiments.chadebec2022._augmentation import augmentation
from pyro_riemann.experiments.chadebec2022._study import GEOMETRIC, Study
from pyro_riemann.experiments.chadebec2022._toy import toy

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
