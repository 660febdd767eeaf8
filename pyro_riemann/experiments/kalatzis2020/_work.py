"""Jobs of the grid, from settings to a JSON-able result: models are trained or read back, timed, calibrated."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from pyro_riemann._files import locked
from pyro_riemann._identity import fingerprint
from pyro_riemann._seed import seeded
from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.evaluation import ImageClassifier
from pyro_riemann.experiments._jobs import MEASURED, in_stages
from pyro_riemann.experiments._latent import LatentPosterior, fitted_prior, frozen, run_chains
from pyro_riemann.experiments.kalatzis2020 import _measure, _scenes
from pyro_riemann.experiments.kalatzis2020._protocol import GRID_RESOLUTION, Protocol
from pyro_riemann.experiments.kalatzis2020._scenes import draw_tabulated
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE, History, TrainingConfig, make_vae, train


def work(settings: dict[str, Any], device: str, checkpoints: Path) -> dict[str, Any]:
    """Run the job of :class:`~pyro_riemann.experiments._jobs.Job` settings; models resume from ``checkpoints``."""
    protocol, kind, dataset, dim = (settings[key] for key in ("protocol", "kind", "dataset", "latent_dim"))
    protocol, name, digit = Protocol(**protocol), dataset, None
    if kind == "digit-one":  # of which there are not too many
        protocol, name, digit = dataclasses.replace(protocol, train_images=None), f"{dataset}-digit1", 1
    data = load_images(dataset, protocol, device, digit)

    def ready(model: str, seed: int = 0) -> tuple[VAE, History]:
        return trained(model, data, name, dim, protocol, seed, checkpoints, device)

    def model() -> dict[str, Any]:
        model, seed = settings["model"], settings["seed"]
        vae, history = ready("vae" if model == "vae-fitted" else model, seed)
        law = fitted_prior(vae, data.train) if model == "vae-fitted" else _measure.evaluation_prior(vae)
        features = _judge(dataset, protocol, device).features
        stages: dict[str, Callable[[], Any]] = {
            "bounds": lambda: _measure.bounds(vae, law, data, protocol, seed),
            "mismatch": lambda: _measure.mismatch(vae, law, data, protocol, features, seed),
            "wall_seconds_per_epoch": lambda: _measure.epoch_seconds(history),
            "training_elbo": lambda: history["elbo"],
        }
        if model in ("vae", "rvae"):
            stages["classification"] = lambda: _measure.classification(vae, data, protocol, seed)
        if model == "rvae":
            some = data.test if dim == 2 else data.test[:200]
            stages["kl_by_formula"] = lambda: _measure.kl_by_formula(vae, some, seed)
        identity = {"settings": settings, "weights": fingerprint(parameters_to_vector(vae.parameters()))}
        folder = _folder(checkpoints, name, dim, "vae" if model == "vae-fitted" else model, seed)
        jsonable = {key: partial(_jsonable, stage) for key, stage in stages.items()}
        return in_stages(folder / f"{MEASURED.name}-{model}.json", identity, jsonable)

    def figures() -> dict[str, Any]:
        vae, _ = ready("rvae")
        uncertainty = _scenes.uncertainty(vae, data, epochs=protocol.epochs)
        shape = list(data.shape)
        return {"latent_space": _scenes.latent_space(vae, data), "uncertainty": uncertainty, "image_shape": shape}

    def calibration() -> dict[str, Any]:
        vae, _ = ready("rvae")
        return calibrate(vae, _measure.evaluation_prior(vae), protocol.calibration_runs)

    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "model": model,
        "timing": lambda: timing(settings["models"], data, dim, protocol, device),
        "figures": figures,
        "digit-one": lambda: _scenes.digit_one(ready("vae")[0], ready("rvae")[0], data),
        "calibration": calibration,
    }
    return _measure.jsonable(kinds[kind]())


def _jsonable(stage: Callable[[], Any]) -> Any:
    return _measure.jsonable(stage())


@lru_cache(maxsize=1)
def _judge(dataset: str, protocol: Protocol, device: str) -> ImageClassifier:
    """One classifier for all models of a data set."""
    return _measure.judge(load_images(dataset, protocol, device))


# -------------------------------------------------------------------- time an epoch

_WARM_UP_IMAGES = 60_000  # seen by a decoder before its phase 2 is timed


def timing(models: list[str], data: ImageData, latent_dim: int, protocol: Protocol, device: str) -> dict[str, Any]:
    """Processor seconds of an epoch of each phase for every model, in one process (K20, table 6).

    The median of a few epochs of all images, as what an epoch does once does not grow with them, after a warm-up that
    is long enough for phase 2 to meet a decoder that has learned something. On a GPU the clock on the wall is read
    instead.
    """
    enough = min(6, -(-_WARM_UP_IMAGES // len(data.train)))
    short = dataclasses.replace(protocol, warm_up_epochs=enough, epochs=3)
    clock = "processor_seconds" if device == "cpu" else "seconds"
    results: dict[str, Any] = {}
    for model in models:
        history = fit(build(model, data, latent_dim, protocol, seed=0), data, short, 0, None, device)
        warm_up, phase_two = (
            statistics.median(entry[clock] for entry in history.epochs if entry["phase"] == phase) for phase in (1, 2)
        )
        results[model] = {"warm_up": warm_up, "phase_two": phase_two}
    return {"seconds_per_epoch": results, "images": len(data.train), "measured_on": len(data.train)}


# -------------------------------------------------------------------- draw a code, draw an image, sample the code again


_KEPT = 19  # draws kept of each chain: ranks 0 ... 19
_THIN = 5


def calibrate(vae: VAE, prior: RiemannianHeatKernel, runs: int, seed: int = 0, warmup: int = 150) -> dict[str, Any]:
    """Ranks of true codes, drawn from ``prior``, among NUTS draws, and whether they are uniform (Talts et al. 2018).

    For d = 2, by chi-square tests on the ranks of either coordinate and of the distance to the prior's centre.
    Chains start from the encoder's posterior, so that a chain that does not mix shows as well.
    """
    metric = vae.metric
    if not isinstance(metric, GridMetric):
        raise TypeError("calibration needs the tabulated metric of a two-dimensional R-VAE.")
    truths = draw_tabulated(prior, torch.stack([metric.table.low, metric.table.high]), runs, seed)
    draws = []
    for index, truth in enumerate(truths):
        with seeded(seed + 1000 + index, truth.device), torch.no_grad():
            image = vae.decoder.observation(truth).sample()
            start = vae.posterior(image).sample((1,))
        chain = run_chains(
            LatentPosterior(vae.decoder, prior, image), start, warmup=warmup, draws=_THIN * _KEPT, seed=seed + index
        )[0]
        draws.append(chain.get_samples()["z"][::_THIN].detach())
    return {**uniformity(prior, truths, torch.stack(draws)), "thinning": _THIN, "warmup": warmup, "runs": runs}


def uniformity(prior: RiemannianHeatKernel, truths: Tensor, draws: Tensor) -> dict[str, Any]:
    """Ranks of the ``truths`` ``(n, d)`` among ``draws`` ``(n, k, d)``, with p-values of their being uniform."""
    kept = draws.shape[1]
    bins = 5  # at least five ranks expected in a bin from 25 runs on
    of_truths, of_draws = _statistics(prior, truths), _statistics(prior, draws)
    ranks = {name: (of_draws[name] < value.unsqueeze(-1)).sum(-1).tolist() for name, value in of_truths.items()}
    counts = {name: np.bincount(np.asarray(own) * bins // (kept + 1), minlength=bins) for name, own in ranks.items()}
    p_values = {name: float(chisquare(count).pvalue) for name, count in counts.items()}
    return {"ranks": ranks, "p_values": p_values, "kept_draws": kept}


@torch.no_grad()
def _statistics(prior: RiemannianHeatKernel, z: Tensor) -> dict[str, Tensor]:
    distance = prior.metric.squared_dist(prior.loc.expand_as(z), z)
    return {"first coordinate": z[..., 0], "second coordinate": z[..., 1], "distance to the centre": distance}


# -------------------------------------------------------------------- models, trained or read back


_PHASE_TWO = ("precision", "prior")  # as K20: encoder and decoder mean stay as the warm-up left them


def load_images(name: str, protocol: Protocol, device: str, digit: int | None = None) -> ImageData:
    """The images of a protocol, on request those of one class only."""
    data = load_dataset(name)
    train_rows, test_rows = slice(protocol.train_images), slice(protocol.test_images)
    parts = [data.train, data.train_labels, data.test, data.test_labels]
    if digit is not None:
        for first in (0, 2):
            chosen = parts[first + 1] == digit
            parts[first : first + 2] = [parts[first][chosen], parts[first + 1][chosen]]
    rows = (train_rows, train_rows, test_rows, test_rows)
    train_images, train_labels, test, test_labels = (
        part[row].to(device) for part, row in zip(parts, rows, strict=True)
    )
    return ImageData(train_images, train_labels, test, test_labels, data.shape)


def build(model: str, data: ImageData, latent_dim: int, protocol: Protocol, seed: int) -> VAE:
    """A model of the paper before training."""
    common: dict[str, Any] = {
        "hidden": (protocol.hidden, protocol.hidden),
        "num_centers": protocol.num_centers,
        "min_scale": protocol.min_scale,
        "seed": seed,
        "name": model,
    }
    width = data.train.shape[1]
    if model == "rvae":
        metric = "grid" if latent_dim == 2 else "fixed"
        common |= {"grid_resolution": GRID_RESOLUTION, "flow_steps": 4}
        return make_vae(width, latent_dim, "heat_kernel", "wrapped_normal", metric, **common)
    if model == "vae":
        return make_vae(width, latent_dim, "normal", "normal", **common)
    count = int(model.removeprefix("vamp"))
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    starts = data.train[order[:count].to(data.train.device)].cpu()
    return make_vae(width, latent_dim, "vamp", "normal", pseudo_inputs=starts, **common)


def _config(protocol: Protocol, seed: int) -> TrainingConfig:
    return TrainingConfig(
        warm_up_epochs=protocol.warm_up_epochs,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        learning_rate=1e-3,
        prior_learning_rate=protocol.prior_learning_rate,
        phase_two=_PHASE_TWO,
        seed=seed,
    )


def fit(
    vae: VAE, data: ImageData, protocol: Protocol, seed: int, checkpoint: Path | None, device: str = "cpu"
) -> History:
    """Train both phases, or what a checkpoint says is missing of them."""
    config = _config(protocol, seed)
    history = train(vae, data.train, None, config, device=device, checkpoint=checkpoint, progress=False)
    if vae.needs_metric:
        # judged more exactly than trained: 4 steps of the short flows of a posterior leave an error of 1e-3 nats
        vae.metric.flow_steps = 16 if vae.latent_dim == 2 else 4
    frozen(vae)
    return history


def trained(
    model: str, data: ImageData, dataset: str, latent_dim: int, protocol: Protocol, seed: int, work: Path, device: str
) -> tuple[VAE, History]:
    """A trained model; one that an earlier run has finished is read back."""
    vae, folder = build(model, data, latent_dim, protocol, seed), _folder(work, dataset, latent_dim, model, seed)
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):  # another run of the grid may need the same model
        return vae, fit(vae, data, protocol, seed, folder, device)


def _folder(checkpoints: Path, dataset: str, latent_dim: int, model: str, seed: int) -> Path:
    return checkpoints / f"{dataset}-d{latent_dim}-{model}-seed{seed}"
