"""The quickstart's images and its two models: the R-VAE and the plain VAE beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.experiments._chains import frozen
from pyro_riemann.experiments.quickstart._settings import QuickstartConfig
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE, HeatKernelPrior, TrainingConfig, make_vae, train

MODELS = {"rvae": ("heat_kernel", "wrapped_normal"), "vae": ("normal", "normal")}  # prior and posterior


def load_images(config: QuickstartConfig) -> ImageData:
    """The data set, on the device of the run, with its training images cut to ``config.limit``."""
    data = load_dataset(config.dataset, config.data)
    data = data._replace(train=data.train[: config.limit], train_labels=data.train_labels[: config.limit])
    if not 0 <= config.image < len(data.test):
        raise ValueError(f"`image` must lie in 0 ... {len(data.test) - 1}, the test images, got {config.image}.")
    train_images, train_labels, test, test_labels = (part.to(config.device) for part in data[:4])
    return ImageData(train_images, train_labels, test, test_labels, data.shape)


def make_model(config: QuickstartConfig, data_dim: int, name: str) -> VAE:
    """One of the two :data:`MODELS` before its training; also what a checkpoint of it is loaded into."""
    prior, posterior = MODELS[name]
    return make_vae(
        data_dim,
        latent_dim=2,
        prior=prior,
        posterior=posterior,
        metric="grid",
        hidden=(config.hidden, config.hidden),
        num_centers=config.num_centers,
        min_scale=config.min_scale,
        seed=config.seed,
        grid_resolution=config.resolution,
        flow_steps=config.flow_steps,
        name=name,
    )


def training_config(config: QuickstartConfig) -> TrainingConfig:
    """How both models are trained."""
    return TrainingConfig(
        warm_up_epochs=config.warm_up_epochs,
        epochs=config.epochs,
        batch_size=config.batch_size,
        phase_two=("posterior", "precision", "prior"),
        seed=config.seed,
    )


def training_images(data: ImageData) -> tuple[Tensor, Tensor | None]:
    """What both models are trained and, if that is cheap, validated on."""
    return data.train, data.test if len(data.test) <= 1000 else None


def train_model(config: QuickstartConfig, data: ImageData, name: str) -> tuple[VAE, float]:
    """The trained model, and the wall time of all its epochs: also of those before an interruption."""
    vae = make_model(config, data.train.shape[1], name)
    history = train(
        vae,
        *training_images(data),
        training_config(config),
        device=config.device,
        checkpoint=config.output / "checkpoints" / name,
        resume=config.resume,
        progress=not config.quiet,
    )
    vae.metric.flow_steps = 16  # judged more exactly than trained
    frozen(vae)
    return vae, sum(history["seconds"])


def grid_of(vae: VAE) -> GridMetric:
    """The table that a model of the quickstart has for a metric."""
    grid = vae.metric
    if not isinstance(grid, GridMetric):
        raise TypeError(f"the VAE's metric must be tabulated, got {type(grid).__name__}.")
    return grid


def centre_of(vae: VAE) -> tuple[Tensor, Tensor]:
    """Learned centre ``(d,)`` and time of the R-VAE's prior."""
    prior = vae.prior
    if not isinstance(prior, HeatKernelPrior):
        raise TypeError(f"the R-VAE's prior must be a heat kernel, got {type(prior).__name__}.")
    return prior.loc.detach(), prior.time.detach()


def decode(vae: VAE) -> Callable[[Tensor], Tensor]:
    """The decoder's mean, ``(*batch, d)`` to ``(*batch, D)``."""
    mean: Any = vae.decoder.mean
    return mean
