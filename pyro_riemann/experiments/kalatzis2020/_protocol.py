"""What is run: models, data, epochs; and the grid of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pyro_riemann._checks import check_one_of
from pyro_riemann.experiments._jobs import Job

DATASETS = ("mnist", "fashion-mnist", "digits")
"""Data sets of the grid."""
MODELS = ("vae", "vae-fitted", "vamp128", "vamp256", "vamp512", "rvae")
"""Models of the grid: a plain VAE, the same with the normal prior that fits its posteriors best, three with VampPriors
of that many components, and the R-VAE."""
TITLES = {
    "vae": "VAE",
    "vae-fitted": "VAE, normal prior fitted",
    "vamp128": "VampPrior, n = 128",
    "vamp256": "VampPrior, n = 256",
    "vamp512": "VampPrior, n = 512",
    "rvae": "R-VAE",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings that all runs of a grid share.

    Attributes:
        name: of the protocol.
        train_images: use the first so many training images; None: all.
        test_images: likewise for testing.
        warm_up_epochs: epochs of phase 1 (deterministic warm-up).
        epochs: epochs of phase 2.
        batch_size: images a step.
        prior_learning_rate: Adam's rate for the prior's centre and time; 1e-3 for everything else.
        hidden: width of the two hidden layers.
        num_centers: basis functions of the precision network.
        min_scale: least standard deviation of a pixel.
        bound_draws: draws an image of the ELBO.
        bound_images: test images of the ELBO where distances need the decoder (d > 2); all of them otherwise.
        iwae_draws: draws an image of the importance-weighted likelihood.
        iwae_images: test images for it.
        classifier_epochs: epochs of the classifier on latent codes.
        classifier_runs: its runs.
        sample_images: decoded draws of the prior that are judged.
        calibration_runs: simulated data sets of the simulation-based calibration.
        seeds: default number of seeds.
    """

    name: str
    train_images: int | None
    test_images: int | None
    warm_up_epochs: int
    epochs: int
    batch_size: int = 100
    prior_learning_rate: float = 1e-3
    hidden: int = 300
    num_centers: int = 350
    min_scale: float = 0.1
    bound_draws: int = 5
    bound_images: int | None = None
    iwae_draws: int = 500
    iwae_images: int | None = 1000
    classifier_epochs: int = 100
    classifier_runs: int = 5
    sample_images: int = 10_000
    calibration_runs: int = 200
    seeds: int = 10

    def describe(self) -> str:
        """One sentence for captions."""
        images = "all training images" if self.train_images is None else f"{self.train_images:,} training images"
        return (
            f"protocol `{self.name}`: {images}, {self.warm_up_epochs} epochs of warm-up and {self.epochs} of precision "
            f"and prior, batches of {self.batch_size}, least standard deviation of a pixel {self.min_scale:g}"
        )


PROTOCOLS = {
    "paper": Protocol("paper", None, None, 100, 200),
    "reduced": Protocol(
        "reduced",
        train_images=10_000,
        test_images=None,
        warm_up_epochs=20,
        epochs=8,
        prior_learning_rate=1e-2,
        bound_images=2000,
        iwae_images=100,
        classifier_epochs=20,
        classifier_runs=1,
        sample_images=2000,
        calibration_runs=60,
        seeds=2,
    ),
    "smoke": Protocol(
        "smoke",
        train_images=400,
        test_images=60,
        warm_up_epochs=40,
        epochs=2,
        batch_size=50,
        prior_learning_rate=1e-2,
        hidden=32,
        num_centers=20,
        bound_images=20,
        iwae_draws=10,
        iwae_images=10,
        classifier_epochs=2,
        classifier_runs=1,
        sample_images=60,
        calibration_runs=2,
        seeds=1,
    ),
}
"""``smoke`` is a minute's work on scikit-learn's digits, to try the machinery; its numbers mean nothing."""


def grid(dataset: str, latent_dims: Sequence[int], models: Sequence[str], seeds: int, protocol: Protocol) -> list[Job]:
    """One job for each model, dimension and seed, cheap ones first; and the jobs behind figures and timings.

    Args:
        dataset: name of the data set.
        latent_dims: latent dimensions.
        models: names of the models.
        seeds: number of seeds, 0 and up.
        protocol: the settings.

    Raises:
        ValueError: for unknown names.
    """
    check_one_of("dataset", dataset, DATASETS)
    for model in models:
        check_one_of("model", model, MODELS)
    if min(latent_dims, default=0) < 1 or seeds < 1:
        raise ValueError(f"`latent_dim` and `seeds` must be at least 1, got {list(latent_dims)} and {seeds}.")
    jobs = [
        _job("model", dataset, dim, protocol, model=model, seed=seed)
        for seed in range(seeds)
        for dim in sorted(latent_dims)
        for model in models
    ]
    trained = [model for model in models if model != "vae-fitted"]  # which is the VAE again
    jobs += [_job("timing", dataset, dim, protocol, models=trained) for dim in sorted(latent_dims)]
    if 2 in latent_dims and "rvae" in models:
        jobs += [_job(kind, dataset, 2, protocol) for kind in ("figures", "digit-one", "calibration")]
    return jobs


def _job(kind: str, dataset: str, dim: int, protocol: Protocol, **more: Any) -> Job:
    label = f"{more['model']}-seed{more['seed']}" if kind == "model" else kind
    settings = {"kind": kind, "dataset": dataset, "latent_dim": dim, **more, "protocol": dataclasses.asdict(protocol)}
    return Job(f"{dataset}-d{dim}-{label}", settings)
