"""One run a data set: a VAE from several seeds, and distances of the same pairs of test images under each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.evaluation import identifiability_report
from pyro_riemann.experiments._jobs import Job, run_jobs
from pyro_riemann.metrics import PullbackMetric
from pyro_riemann.vae import TrainingConfig, make_vae, train_ensemble

DATASETS = ("mnist",)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Sizes of everything.

    Attributes:
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        images: training images, the first ones.
        epochs: of each training.
        batch_size: images a step.
        learning_rate: Adam's.
        models: trainings, from seeds 0, 1, ...
        pairs: of test images, the same under each model.
        seed: of the choice of the pairs.

    Example:
        >>> Protocol().pairs
        100
    """

    latent_dim: int = 2
    hidden: tuple[int, ...] = (128, 128)
    images: int = 6000
    epochs: int = 10
    batch_size: int = 150
    learning_rate: float = 2e-3
    models: int = 10
    pairs: int = 100
    seed: int = 0


def jobs(protocol: Protocol) -> list[Job]:
    """All runs."""
    sizes = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(protocol).items()}
    return [Job(f"{name}-d{protocol.latent_dim}", {"data": name, **sizes}) for name in DATASETS]


def run(
    results: Path,
    root: Path | None = None,
    protocol: Protocol | None = None,
    console: Console | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Do what is missing in ``results``: one file for each data set.

    Args:
        results: folder of the JSON files.
        root: folder of the images, see :func:`pyro_riemann.datasets.load_dataset`.
        protocol: sizes; by default those of the page.
        console: where to report.
        checkpoints: folder of the models; a run that was stopped goes on from there. None keeps none.
    """
    results.mkdir(parents=True, exist_ok=True)

    def work(settings: dict[str, Any], device: str) -> dict[str, Any]:
        return one_run(load_dataset(settings["data"], root), settings, checkpoints)

    run_jobs(jobs(protocol or Protocol()), work, results, console=console)


def one_run(images: ImageData, settings: dict[str, Any], checkpoints: Path | None) -> dict[str, Any]:
    """Train and measure; JSON-able.

    Args:
        images: the data.
        settings: those of a job.
        checkpoints: folder of the models.
    """
    dim, hidden = settings["latent_dim"], tuple(settings["hidden"])
    config = TrainingConfig(
        warm_up_epochs=settings["epochs"],
        epochs=0,
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
    )
    trained = train_ensemble(
        lambda seed: make_vae(
            images.train.shape[1], dim, "normal", "normal", likelihood="bernoulli", hidden=hidden, seed=seed
        ),
        images.train[: settings["images"]].round(),
        range(settings["models"]),
        config=config,
        own_encoders=True,
        checkpoint=None if checkpoints is None else checkpoints / settings["data"],
        progress=False,
    )
    generator = torch.Generator().manual_seed(settings["seed"])
    chosen = torch.randperm(len(images.test), generator=generator)[: 2 * settings["pairs"]]
    ends = images.test[chosen].round().unflatten(0, (2, -1))
    with torch.no_grad():
        codes = torch.stack([model.encode(ends) for model in trained.models], 1)  # (2, K, P, d)
    metrics = [PullbackMetric(model.decoder, dim) for model in trained.models]
    report = identifiability_report(metrics, (codes[0], codes[1]))
    return {
        "geodesic": report.geodesic.tolist(),
        "euclidean": report.euclidean.tolist(),
        "elbo": [history["elbo"][-1] for history in trained.histories],
    }
