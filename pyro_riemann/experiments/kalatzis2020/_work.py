"""One job of the grid, from settings to a JSON-able result."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyro_riemann.evaluation import ImageClassifier
from pyro_riemann.experiments.kalatzis2020 import _measure, _scenes
from pyro_riemann.experiments.kalatzis2020._calibration import calibrate
from pyro_riemann.experiments.kalatzis2020._formulas import kl_by_formula
from pyro_riemann.experiments.kalatzis2020._protocol import Protocol
from pyro_riemann.experiments.kalatzis2020._train import load_images, trained


def work(settings: dict[str, Any], device: str, checkpoints: Path) -> dict[str, Any]:
    """Run the job of :class:`~pyro_riemann.experiments._jobs.Job` settings; models resume from ``checkpoints``."""
    protocol = Protocol(**settings["protocol"])
    kinds = {
        "model": _model,
        "timing": _timing,
        "figures": _figures,
        "digit-one": _digit_one,
        "calibration": _calibration,
    }
    return _measure.jsonable(kinds[settings["kind"]](settings, protocol, device, checkpoints))


def _model(settings: dict[str, Any], protocol: Protocol, device: str, checkpoints: Path) -> dict[str, Any]:
    dataset, dim, model, seed = (settings[key] for key in ("dataset", "latent_dim", "model", "seed"))
    data = load_images(dataset, protocol, device)
    weights = "vae" if model == "vae-fitted" else model
    vae, history = trained(weights, data, dataset, dim, protocol, seed, checkpoints, device)
    law = _measure.fitted_prior(vae, data.train) if model == "vae-fitted" else _measure.evaluation_prior(vae)
    result: dict[str, Any] = {
        "bounds": _measure.bounds(vae, law, data, protocol, seed),
        "mismatch": _measure.mismatch(vae, law, data, protocol, _judge(dataset, protocol, device).features, seed),
        "wall_seconds_per_epoch": _measure.epoch_seconds(history),
        "training_elbo": history["elbo"],
    }
    if model in ("vae", "rvae"):
        result["classification"] = _measure.classification(vae, data, protocol, seed)
    if model == "rvae":
        images = data.test if dim == 2 else data.test[:200]
        result["kl_by_formula"] = kl_by_formula(vae, images, seed)
    return result


@lru_cache(maxsize=1)
def _judge(dataset: str, protocol: Protocol, device: str) -> ImageClassifier:
    """One classifier for all models of a data set."""
    return _measure.judge(load_images(dataset, protocol, device))


def _timing(settings: dict[str, Any], protocol: Protocol, device: str, checkpoints: Path) -> dict[str, Any]:
    data = load_images(settings["dataset"], protocol, device)
    return _measure.timing(settings["models"], data, settings["latent_dim"], protocol, device)


def _figures(settings: dict[str, Any], protocol: Protocol, device: str, checkpoints: Path) -> dict[str, Any]:
    data = load_images(settings["dataset"], protocol, device)
    vae, _ = trained("rvae", data, settings["dataset"], 2, protocol, 0, checkpoints, device)
    return {
        "latent_space": _scenes.latent_space(vae, data),
        "uncertainty": _scenes.uncertainty(vae, data, epochs=protocol.epochs),
        "image_shape": list(data.shape),
    }


def _digit_one(settings: dict[str, Any], protocol: Protocol, device: str, checkpoints: Path) -> dict[str, Any]:
    everything = dataclasses.replace(protocol, train_images=None)
    data = load_images(settings["dataset"], everything, device, digit=1)
    models = [
        trained(name, data, f"{settings['dataset']}-digit1", 2, everything, 0, checkpoints, device)[0]
        for name in ("vae", "rvae")
    ]
    return _scenes.digit_one(models[0], models[1], data)


def _calibration(settings: dict[str, Any], protocol: Protocol, device: str, checkpoints: Path) -> dict[str, Any]:
    data = load_images(settings["dataset"], protocol, device)
    vae, _ = trained("rvae", data, settings["dataset"], 2, protocol, 0, checkpoints, device)
    return calibrate(vae, _measure.evaluation_prior(vae), protocol.calibration_runs)
