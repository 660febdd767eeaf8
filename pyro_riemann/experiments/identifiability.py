"""Do distances mean the same after a VAE is trained again: the protocol of Syrota et al. (2025).

One run a data set: a VAE from several seeds, and distances of the same pairs of test images under each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.evaluation import IdentifiabilityReport, identifiability_report
from pyro_riemann.experiments._jobs import Job, Record, plain, run_jobs
from pyro_riemann.experiments._report import NAMES, Records, page_of, panels, prose, spread
from pyro_riemann.metrics import PullbackMetric
from pyro_riemann.vae import TrainingConfig, make_vae, train_ensemble

__all__ = ["Protocol", "report", "run", "write_report"]

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
    return [Job(f"{name}-d{protocol.latent_dim}", {"data": name, **plain(protocol)}) for name in DATASETS]


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


# -------------------------------------------------------------------- the page

_HEAD = """# Distances over retrainings

A VAE that is trained again, from another seed, puts the same images elsewhere: its latent space is stretched, turned
and bent. Does it at least agree on how far two images are from each other? The protocol is that of Syrota,
Zainchkovskyy, Xi, Bloem-Reddy and Hauberg (2025), *Identifying metric structures of deep latent variable models*: pairs
of test images, their distance under each retraining, and its coefficient of variation over these, for geodesics of the
decoder's metric and for straight lines between the codes. {func}`~pyro_riemann.vae.train_ensemble` trains the models
and {func}`~pyro_riemann.evaluation.identifiability_report` measures. This page is made from the JSON file beside it;
with `DIR/MNIST/raw` a copy of the data, this runs what is missing and makes it again:

```sh
R=docs/results/identifiability
python -m pyro_riemann reproduce identifiability --data DIR --results $R --page $R.md
```"""

_SECTION = """
The mean coefficient of variation of geodesic distances is {ratio:.2f} of that of Euclidean ones, and of {pairs} pairs
{smaller} have the smaller one under the geodesics. Student's test is one-sided: a large p says that geodesic distances
did not vary less. The figure has the empirical distribution functions of both.

![Share of pairs with a coefficient of variation below a value, geodesic and Euclidean, {label}]({figure})

{models} VAEs with {latent_dim} latent dimensions, prior N(0, I), Bernoulli likelihood and hidden layers of {layers}
units, on the first {images:,} training images, rounded to black and white, for {epochs} epochs; the metric is the
Fisher-Rao metric of the pixels. ELBO in the last epoch: {elbo:.1f} nats over the seeds. Training and {count:,}
geodesics took {minutes:.1f} minutes of one processor core.
"""


def _measured(record: Record) -> IdentifiabilityReport:
    result = record["result"]
    return IdentifiabilityReport(*(torch.tensor(result[key]).double() for key in ("geodesic", "euclidean")))


def _sections(records: Records) -> Iterator[str]:
    yield _HEAD
    for record in records:
        sizes, measured = record["settings"], _measured(record)
        models, pairs = measured.geodesic.shape
        label = NAMES[sizes["data"]]
        yield f"## {label}\n\n```text\n{measured}\n```"
        ours, theirs = measured.geodesic_variation, measured.euclidean_variation
        values = sizes | {"models": models, "pairs": pairs, "count": models * pairs, "label": label}
        yield prose(
            _SECTION,
            **values,
            ratio=float(ours.mean() / theirs.mean()),
            smaller=int((ours < theirs).sum()),
            figure=f"{records.folder.name}/figures/{record['name']}.png",
            layers=" and ".join(map(str, sizes["hidden"])),
            elbo=spread(record["result"]["elbo"]),
            minutes=record["cpu_seconds"] / 60,
        )


def _figures(records: Records) -> Iterator[tuple[str, Figure]]:
    for record in records:
        figure, ax = panels(4.6, 3.2)
        _measured(record).plot(ax)
        yield record["name"], figure


report, write_report = page_of(_sections, _figures)
