"""The page of results, every number of it from the saved files."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from pyro_riemann.evaluation import IdentifiabilityReport
from pyro_riemann.experiments._figures import new_figure, save
from pyro_riemann.experiments._jobs import Record, load, understood

LABELS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}

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


def write_report(results: Path, page: Path) -> list[Path]:
    """Write the ``page`` and its figures from the files in ``results``.

    Args:
        results: folder of the JSON files; figures go to ``figures`` in it.
        page: Markdown file.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: if there are no results.
    """
    written = []
    for record in _records(results):
        figure = new_figure(4.6, 3.2)
        _measured(record).plot(figure.subplots())
        path = results / "figures" / f"{record['name']}.png"
        save(figure, path)
        written.append(path)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(report(results))
    return [page, *written]


def report(results: Path) -> str:
    """Text of the page.

    Args:
        results: folder of the JSON files.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if a file is damaged, or lacks what the page needs.
    """
    with understood(results):
        parts = [part for record in _records(results) for part in _section(results, record)]
    return "\n\n".join([_HEAD, *parts]) + "\n"


def _records(results: Path) -> list[Record]:
    records = [load(path) for path in sorted(results.glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"there are no results in {results}.")
    return records


def _measured(record: Record) -> IdentifiabilityReport:
    result = record["result"]
    return IdentifiabilityReport(*(torch.tensor(result[key]).double() for key in ("geodesic", "euclidean")))


def _section(results: Path, record: Record) -> list[str]:
    sizes, measured, result = record["settings"], _measured(record), record["result"]
    models, pairs = measured.geodesic.shape
    smaller = int((measured.geodesic_variation < measured.euclidean_variation).sum())
    ratio = float(measured.geodesic_variation.mean() / measured.euclidean_variation.mean())
    label = LABELS.get(sizes["data"], sizes["data"])
    elbo = f"{statistics.mean(result['elbo']):.1f} ± {statistics.stdev(result['elbo']):.1f}"
    figure = f"{results.name}/figures/{record['name']}.png"
    return [
        f"## {label}",
        f"```text\n{measured}\n```",
        f"The mean coefficient of variation of geodesic distances is {ratio:.2f} of that of Euclidean ones, and of "
        f"{pairs} pairs {smaller} have the smaller one under the geodesics. Student's test is one-sided: a large p "
        "says that geodesic distances did not vary less. The figure has the empirical distribution functions of both.",
        f"![Share of pairs with a coefficient of variation below a value, geodesic and Euclidean, {label}]({figure})",
        f"{models} VAEs with {sizes['latent_dim']} latent dimensions, prior N(0, I), Bernoulli likelihood and hidden "
        f"layers of {' and '.join(map(str, sizes['hidden']))} units, on the first {sizes['images']:,} training images, "
        f"rounded to black and white, for {sizes['epochs']} epochs; the metric is the Fisher-Rao metric of the pixels. "
        f"ELBO in the last epoch: {elbo} nats over the seeds. Training and {models * pairs:,} geodesics took "
        f"{record['cpu_seconds'] / 60:.1f} minutes of one processor core.",
    ]
