"""What is run: sizes, epochs, samplers and seeds."""

from __future__ import annotations

import dataclasses
from typing import Any

from pyro_riemann._checks import check_one_of
from pyro_riemann.autoencoders import MODELS
from pyro_riemann.experiments._jobs import Job, plain

PARTS = ("toy", "table", "scale", "ablation", "augmentation", "curves")
"""Parts of the reproduction, in the order in which they are run."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of the reproduction of C22; ``PROTOCOLS`` holds the ones with a name.

    Attributes:
        name: of the protocol.
        dataset: images of the table, the curves and the ablations.
        architecture: ``"mlp"`` or ``"conv"``.
        hidden: widths of the layers.
        latent_dim: latent dimension.
        likelihood_scale: standard deviation of the likelihood of the variational models; sqrt(1/2) is C22's eq. 3.
        sharp_scales: further standard deviations at which the VAE is trained (part ``scale``); the last one also for
            the curves and the augmentation.
        batch_size: images a step.
        learning_rate: first rate.
        num_validation: held-out images that choose the best epoch.
        table: training images and epochs of the table.
        curves: training images and epochs of the low-data curves; the table's size is their last point.
        models: models of table and curves.
        seeds: seeds of the table; the curves use the first one.
        num_samples: generated images of an evaluation, against as many test images at most.
        num_neighborhood: images of each set for improved precision and recall, whose cost is quadratic.
        draws_per_chain: draws of each chain of C22's sampler: 1 in the paper.
        num_centroids: centroids of the metric.
        regularization: lambda of the metric.
        centroid_counts: values of that ablation.
        regularizations: values of that ablation.
        augmentation: data set, its two classes, and how many training images of each.
        augmentation_epochs: epochs of the models of one class.
        augmentation_runs: classifiers a method.
        augmentation_samples: generated images a class.
        augmentation_pool: that many times as many are generated, of which every run takes its own.
        classifier_steps: optimiser steps of each of these classifiers, whatever the size of its training set.
        extractor_epochs: of the classifier that gives the features.
        toy_epochs: of the VAE of the toy set.

    Example:
        >>> Protocol(name="mine").latent_dim
        16
    """

    name: str
    dataset: str = "mnist"
    architecture: str = "mlp"
    hidden: tuple[int, ...] | None = None
    latent_dim: int = 16
    likelihood_scale: float = 0.5**0.5
    sharp_scales: tuple[float, ...] = (0.3, 0.15)
    batch_size: int = 100
    learning_rate: float = 1e-3
    num_validation: int = 10_000
    table: tuple[int, int] = (50_000, 100)
    curves: tuple[tuple[int, int], ...] = ((1_000, 100), (5_000, 100), (10_000, 100))
    models: tuple[str, ...] = MODELS
    seeds: tuple[int, ...] = (0, 1, 2)
    num_samples: int = 10_000
    num_neighborhood: int = 10_000
    draws_per_chain: int = 1
    num_centroids: int = 1_000
    regularization: float = 1e-2
    centroid_counts: tuple[int, ...] = (2, 10, 100, 500, 1_000, 2_000)
    regularizations: tuple[float, ...] = (1e-6, 1e-4, 1e-2, 1e-1, 1.0)
    augmentation: tuple[str, tuple[int, int], tuple[int, int]] = ("fashion-mnist", (6, 0), (70, 316))
    augmentation_epochs: int = 1_000
    augmentation_runs: int = 20
    augmentation_samples: int = 2_000
    augmentation_pool: int = 20
    classifier_steps: int = 1_000
    extractor_epochs: int = 5
    toy_epochs: int = 200


_NARROW: dict[str, Any] = {"architecture": "conv", "table": (50_000, 20), "extractor_epochs": 2}

PROTOCOLS: dict[str, Protocol] = {
    "full": Protocol("full", architecture="conv"),
    "full-mlp": Protocol("full-mlp"),
    "quarter": Protocol("quarter", hidden=(32, 64, 128, 256), **_NARROW),
    "eighth": Protocol("eighth", hidden=(16, 32, 64, 128), **_NARROW),
    "reduced": Protocol(
        "reduced",
        hidden=(256, 128),
        num_validation=2_000,
        table=(50_000, 3),
        curves=((1_000, 50), (5_000, 20), (10_000, 12)),
        num_neighborhood=5_000,
        draws_per_chain=10,
        num_centroids=300,
        centroid_counts=(2, 10, 100, 300, 1_000),
        augmentation_epochs=150,
        augmentation_pool=4,
        classifier_steps=80,
        extractor_epochs=2,
        toy_epochs=150,
    ),
    "tiny": Protocol(
        "tiny",
        dataset="digits",
        hidden=(32,),
        latent_dim=4,
        sharp_scales=(0.3,),
        num_validation=100,
        table=(600, 2),
        curves=((100, 2),),
        models=("ae", "vae", "rhvae"),
        seeds=(0, 1),
        num_samples=200,
        num_centroids=20,
        centroid_counts=(5,),
        regularizations=(1e-2,),
        augmentation=("digits", (8, 3), (20, 60)),
        augmentation_epochs=3,
        augmentation_runs=2,
        augmentation_samples=60,
        augmentation_pool=2,
        classifier_steps=4,
        extractor_epochs=2,
        toy_epochs=2,
    ),
}
"""The protocols by name: ``full`` is the paper's, ``quarter`` and ``eighth`` have that share of its channels and a
fifth of its epochs, ``tiny`` tries the machinery and its numbers mean nothing."""


def grid(protocol: Protocol, parts: tuple[str, ...] = PARTS) -> list[Job]:
    """The runs of the parts asked for, in the order in which they are done: first seeds first.

    Args:
        protocol: the settings.
        parts: which parts of the reproduction.

    Raises:
        ValueError: for an unknown part.

    Example:
        >>> [job.name for job in grid(PROTOCOLS["tiny"], ("table",))][:3]
        ['table-ae-seed0', 'table-vae-seed0', 'table-rhvae-seed0']
    """
    for part in parts:
        check_one_of("parts", part, PARTS)
    (size, epochs), first = protocol.table, protocol.seeds[0]
    # lists of runs are no settings: a run does not depend on what else is run
    lists = ("seeds", "models", "sharp_scales", "curves", "centroid_counts", "regularizations")
    shared = {name: value for name, value in plain(protocol).items() if name not in lists}
    found: list[Job] = []

    def add(part: str, name: str, **settings: Any) -> None:
        if part in parts:
            found.append(Job(name, {"part": part, **settings, "protocol": shared}))

    add("toy", "toy")
    for model in protocol.models:
        add("table", f"table-{model}-seed{first}", model=model, seed=first, size=size, epochs=epochs)
    for count in protocol.centroid_counts:
        add("ablation", f"centroids-{count}", num_centroids=count)
    for value in protocol.regularizations:
        add("ablation", f"lambda-{value:g}", regularization=value)
    for scale in protocol.sharp_scales:
        add("scale", f"scale-{scale:g}", scale=scale)
    add("augmentation", "augmentation-real", model=None)
    for model in protocol.models:
        add("augmentation", f"augmentation-{model}", model=model)
    for scale in protocol.sharp_scales[-1:]:
        add("augmentation", f"augmentation-vae-{scale:g}", model="vae", scale=scale)
    for fewer, more_epochs in protocol.curves:
        common = {"seed": first, "size": fewer, "epochs": more_epochs}
        for model in protocol.models:
            add("curves", f"curve-{fewer}-{model}", model=model, **common)
        for scale in protocol.sharp_scales[-1:]:
            add("curves", f"curve-{fewer}-vae-{scale:g}", model="vae", **common, scale=scale)
    for seed in protocol.seeds[1:]:
        for model in protocol.models:
            add("table", f"table-{model}-seed{seed}", model=model, seed=seed, size=size, epochs=epochs)
    return found
