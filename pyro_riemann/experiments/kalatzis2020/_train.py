"""The models of the paper, trained or read back from their checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyro_riemann._files import locked
from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.experiments._chains import frozen
from pyro_riemann.experiments.kalatzis2020._protocol import Protocol
from pyro_riemann.vae import VAE, History, TrainingConfig, make_vae, train

GRID_RESOLUTION = 200
"""Nodes an axis of the tabulated metric, d = 2."""
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
