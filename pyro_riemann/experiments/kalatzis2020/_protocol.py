"""What is run: models, data, epochs; the grid of runs; and the numbers that the paper prints."""

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
GRID_RESOLUTION = 200
"""Nodes an axis of the tabulated metric, d = 2."""
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
    if len(trained) > 1:  # one by itself has nothing to be compared with
        timings = [_job("timing", dataset, dim, protocol, models=trained) for dim in sorted(latent_dims)]
        jobs += [dataclasses.replace(job, parts="models") for job in timings]
    if 2 in latent_dims and "rvae" in models:
        jobs += [_job(kind, dataset, 2, protocol) for kind in ("figures", "digit-one", "calibration")]
    return jobs


def _job(kind: str, dataset: str, dim: int, protocol: Protocol, **more: Any) -> Job:
    label = f"{more['model']}-seed{more['seed']}" if kind == "model" else kind
    settings = {"kind": kind, "dataset": dataset, "latent_dim": dim, **more, "protocol": dataclasses.asdict(protocol)}
    return Job(f"{dataset}-d{dim}-{label}", settings)


# -------------------------------------------------------------------- printed there, means over ten runs

PRINTED_BOUNDS: dict[str, dict[tuple[str, int], tuple[float, float, float]]] = {
    # tables 1, 7: negative ELBO, negative log-likelihood, KL
    "mnist": {
        ("vae", 2): (-1030.38, -1033.06, 2.68),
        ("vae", 5): (-1076.64, -1078.91, 2.27),
        ("vae", 10): (-1110.79, -1113.01, 2.22),
        ("vamp128", 2): (-1039.66, -1042.13, 2.46),
        ("vamp256", 2): (-1045.04, -1047.34, 2.30),
        ("vamp512", 2): (-1040.79, -1043.24, 2.45),
        ("vamp128", 5): (-1100.77, -1102.46, 1.69),
        ("vamp256", 5): (-1103.29, -1105.04, 1.75),
        ("vamp512", 5): (-1109.74, -1111.63, 1.88),
        ("vamp128", 10): (-1110.05, -1112.23, 1.84),
        ("vamp256", 10): (-1116.58, -1118.28, 1.69),
        ("vamp512", 10): (-1100.64, -1102.42, 1.78),
        ("rvae", 2): (-1047.29, -1053.70, 14.33),
        ("rvae", 5): (-1141.06, -1177.86, 28.00),
        ("rvae", 10): (-1170.03, -1280.94, 57.76),
    },
    # tables 2, 8
    "fashion-mnist": {
        ("vae", 2): (-443.13, -447.44, 4.31),
        ("vae", 5): (-511.65, -517.41, 5.76),
        ("vae", 10): (-525.05, -530.86, 5.81),
        ("vamp128", 2): (-694.63, -697.14, 2.50),
        ("vamp256", 2): (-702.67, -705.19, 2.52),
        ("vamp512", 2): (-705.90, -708.45, 2.54),
        ("vamp128", 5): (-755.80, -756.58, 0.77),
        ("vamp256", 5): (-767.54, -768.33, 0.78),
        ("vamp512", 5): (-769.27, -770.10, 0.83),
        ("vamp128", 10): (-754.47, -758.20, 3.72),
        ("vamp256", 10): (-756.13, -760.49, 3.69),
        ("vamp512", 10): (-774.17, -777.75, 3.57),
        ("rvae", 2): (-708.77, -722.41, 13.64),
        ("rvae", 5): (-889.62, -913.61, 23.83),
        ("rvae", 10): (-959.20, -1001.40, 40.35),
    },
}
"""Keys are model and latent dimension. ``vamp512`` of Fashion-MNIST at d = 10 is taken from table 2."""

PRINTED_F1 = {
    ("vae", 2): 0.72,
    ("vae", 5): 0.92,
    ("vae", 10): 0.96,
    ("rvae", 2): 0.78,
    ("rvae", 5): 0.93,
    ("rvae", 10): 0.96,
}
"""Table 3, averages, MNIST."""

PRINTED_SECONDS = {
    ("vae", 2): 10.64, ("vae", 5): 11.01, ("vae", 10): 11.10,
    ("vamp128", 2): 10.66, ("vamp128", 5): 11.22, ("vamp128", 10): 11.37,
    ("vamp256", 2): 10.72, ("vamp256", 5): 11.34, ("vamp256", 10): 11.52,
    ("vamp512", 2): 10.90, ("vamp512", 5): 11.38, ("vamp512", 10): 12.18,
    ("rvae", 2): 55.73, ("rvae", 5): 59.97, ("rvae", 10): 60.13,
}  # fmt: skip
"""Table 6: seconds an epoch, MNIST."""
