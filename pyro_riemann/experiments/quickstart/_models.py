"""The quickstart's settings and those of each data set; its images; its two models: the R-VAE and the plain VAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.experiments._latent import frozen
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE, HeatKernelPrior, TrainingConfig, make_vae, train

_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "None": type(None)}
_MOST = 10**9  # of any number among the settings


@dataclasses.dataclass(frozen=True)
class QuickstartConfig:
    """Settings of :func:`run`; the defaults are those for digits, :func:`configure` knows the other data sets'.

    Attributes:
        dataset: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        data: folder of the real data sets.
        output: folder for figures, checkpoints and ``result.json``.
        warm_up_epochs: epochs of phase 1, for each model.
        epochs: epochs of phase 2, for each model.
        batch_size: images a step.
        hidden: width of the two hidden layers of encoder and decoder.
        num_centers: basis functions of the precision network.
        min_scale: least standard deviation of a pixel.
        flow_steps: Runge-Kutta steps of a posterior draw in training, where it keeps its speed; more where it does not.
        resolution: nodes an axis of the tabulated metric, and of the prior's distance field.
        image: index of the held-out image whose latent posterior is sampled.
        chains: number of NUTS chains.
        warmup: adaptation steps of each.
        draws: draws kept of each.
        bound_draws: draws an image of the test ELBO.
        iwae_draws: draws an image of the importance-weighted likelihood.
        iwae_images: that many test images (the first ones) for it; None: all.
        limit: use only so many training images, for a trial.
        seed: seed of everything.
        device: where to train and evaluate.
        resume: continue from the checkpoints in ``output``.
        quiet: print nothing but errors.
    """

    dataset: str = "digits"
    data: Path | None = None
    output: Path = Path("runs/quickstart-digits")
    warm_up_epochs: int = 100
    epochs: int = 5
    batch_size: int = 250
    hidden: int = 128
    num_centers: int = 100
    min_scale: float = 0.05
    flow_steps: int = 16
    resolution: int = 200
    image: int = 0
    chains: int = 4
    warmup: int = 250
    draws: int = 750
    bound_draws: int = 20
    iwae_draws: int = 500
    iwae_images: int | None = None
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    resume: bool = True
    quiet: bool = False

    def to_json(self) -> dict[str, Any]:
        """The settings as ``result.json`` holds them."""
        values = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: Any) -> QuickstartConfig:
        """Inverse of :meth:`to_json` but for the folders, which are the reader's own.

        Raises:
            ValueError: for values that no run can have had.
        """
        if not isinstance(values, dict):
            raise ValueError(f"settings are a table, got {type(values).__name__}")
        known = {field.name: field.type for field in dataclasses.fields(cls) if field.name not in ("data", "output")}
        if odd := sorted(set(known) - set(values) | set(values) - set(known) - {"data", "output"}):
            raise ValueError(f"the settings {odd} are missing or unknown")
        for name, kind in known.items():
            value, allowed = values[name], [_TYPES[part] for part in str(kind).split(" | ")]
            if type(value) not in allowed or (isinstance(value, int | float) and not 0 <= value <= _MOST):
                raise ValueError(f"the setting {name!r} is {value!r}")
        check_one_of("dataset", values["dataset"], tuple(PRESETS))
        return cls(**{name: values[name] for name in known})


_LARGE: dict[str, Any] = {
    "warm_up_epochs": 12,
    "epochs": 2,
    "flow_steps": 4,
    "batch_size": 500,
    "hidden": 300,
    "num_centers": 350,
    "min_scale": 0.1,
    "bound_draws": 5,
    "iwae_images": 500,
}
PRESETS: dict[str, dict[str, Any]] = {"digits": {}, "mnist": _LARGE, "fashion-mnist": _LARGE}


def configure(dataset: str = "digits", **settings: Any) -> QuickstartConfig:
    """The settings for a data set, with those given (and not None) in place of its own.

    Example:
        >>> configure("mnist", epochs=1, seed=None).epochs, configure("mnist").num_centers
        (1, 350)
    """
    check_one_of("dataset", dataset, tuple(PRESETS))
    given = {key: value for key, value in settings.items() if value is not None}
    own = {"dataset": dataset, "output": Path("runs") / f"quickstart-{dataset}", **PRESETS[dataset]}
    return QuickstartConfig(**{**own, **given})


# -------------------------------------------------------------------- images and models


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
