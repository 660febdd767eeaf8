"""The report: Markdown tables and figures, every number of them from the saved results."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyro_riemann.experiments._jobs import Record, understood
from pyro_riemann.experiments._report import Row, join, prose, reach, setting, table_of, write
from pyro_riemann.experiments.chadebec2022._figures import draw_all, label
from pyro_riemann.experiments.chadebec2022._findings import augmentation_comparison, comparison
from pyro_riemann.experiments.chadebec2022._protocol import PROTOCOLS
from pyro_riemann.experiments.chadebec2022._results import (
    MODEL_NAMES,
    SAMPLER_NAMES,
    TABLE_1,
    TABLE_2,
    USED,
    Results,
    samplers,
    used,
)

_FIGURES = {
    "toy": "Disks and rings (C22, figure 1). Grey: log volume element. Dashed: straight lines; solid: curves that keep "
    "to large volume (C22, eq. 8), with decoded frames along both.",
    "samples": "Ten images of every model and sampler, first seed.",
    "nearest": "Images of the VAE under C22's sampler (algorithm 2) beside the nearest training image and the nearest "
    "reconstruction.",
    "curves": "Frechet distance against the number of training images (C22, figure 4), first seed.",
    "ablations": "Frechet distance against the number of centroids and against lambda (C22, figures 11 and 13), VAE of "
    "the first seed. C22's sampler starts at the centroids and stays near them; the exact law does not.",
}
_HEAD = """
# A geometric perspective on variational autoencoders{with_convolutions}

The experiments of Chadebec & Allassonniere (2022, C22 below), models and samplers written anew. This page is made from
the JSON files beside it; in its folder, this runs what is missing and makes it again:

{command}

Protocol `{name}`: {caption} {runs}, {minutes:.0f} minutes of a core. The likelihood of variational models has the
standard deviation {likelihood_scale:.3f}; metrics have {num_centroids:,} centroids, lambda = {regularization:g}, unless
said otherwise; each chain of C22's algorithm 2 gives {draws}; improved precision and recall compare
{num_neighborhood:,} images of each set.{others}
"""
_COMMAND = """```sh
python -m pyro_riemann reproduce chadebec2022 --protocol {name}{models} --results {folder} --page {page}
```"""
_CAPTION = """
{data}, {kind} {widths}, d = {latent_dim}, {table[0]:,} training images and {table[1]} epochs (C22: 50,000 and 100,
{theirs}).
"""
_KINDS = {
    "mlp": {"kind": "MLP", "theirs": "convolutions"},
    "conv": {"kind": "convolutions of channels", "theirs": "convolutions of channels 128-256-512-1024"},
}
_TABLE = """
## Models and samplers

{caption} {num_samples:,} images against the test set; mean ± standard deviation of seeds, {runs} at most (no ±: one),
in the order of the Frechet distance. {features}
"""
_AUTHENTIC = """
*Authentic*: share of the images that are farther from the nearest training image than that is from the others, in the
same features (Alaa et al., 2022); of the test images {test_authenticity!p:.0f} %, of copies none.
"""
_FEATURES = """
Features: {features} of a {kind} (test accuracy {test_accuracy!p:.1f} %), not Inception: the distances do not compare
with C22's, only their order does.
"""
_SAMPLERS = """
## The samplers of the metric

The table's VAE, {num_samples:,} draws. {caption} *Largest class*: share of the images that the classifier puts into
their most frequent class; 11 % in the data. The VAE uses {uses} of its {latent_dim} latent dimensions (median posterior
standard deviation below {USED}).
"""
_SCALE = """
## How sharp the likelihood is

C22 does not give the standard deviation s of the likelihood; its eq. 3 reads as s = 0.707. A sharper one uses more of
the latent dimensions (*used*: median posterior standard deviation below {USED}). VAE, first seed. {caption}
"""
_AUGMENTATION = """
## Augmentation of a small, imbalanced task

{data}, classes {classes[0]} and {classes[1]}, {sizes[0]} and {sizes[1]} training images. A classifier
({classifier_steps} steps, the best epoch on a validation set) learns from the real images or from
{augmentation_samples:,} generated ones a class, and is judged on the real test images; percent, mean ± standard
deviation of {augmentation_runs} runs. Each model is trained once a class, for {augmentation_epochs:,} epochs (C22:
1,000, on brain images; its figures stand beside ours for the order alone). Runs differ in the classifier's seed and in
the images, a random choice out of {pool:,} a class.
"""
_SHARE = "{authenticity!p:.0f} %"
_MEASURES = {"F8 / F1/8": "{f8:.3f} / {f1_8:.3f}", "precision / recall": "{precision:.3f} / {recall:.3f}"}


def write_report(folder: Path, page: Path) -> list[Path]:
    """Render the results in ``folder`` to the Markdown ``page`` and figures beside them.

    Args:
        folder: of the JSON files; figures go to its ``figures``.
        page: the Markdown file.

    Returns:
        What was written.

    Raises:
        FileNotFoundError, ValueError: if there are no results, or of several protocols.
    """
    with understood(folder):
        drawn = draw_all(Results(folder))
        return write(page, report(folder, page, drawn), drawn.items(), folder / "figures")


def report(folder: Path, page: Path, drawn: Collection[str]) -> str:
    """Text of the ``page`` for the results in ``folder``, with the figures that have been ``drawn``."""
    results, where = Results(folder), os.path.relpath(folder, page.parent)
    known = {"caption": caption(results), "USED": USED, **results.protocol}

    def figures(*names: str) -> list[str]:
        return [f"![{name}]({where}/figures/{name}.png)\n\n*{_FIGURES[name]}*" for name in names if name in drawn]

    name, models = results.protocol["name"], {setting(record, "model") for record in results.part("table")}
    usual = PROTOCOLS[name].models if name in PROTOCOLS else ()
    some = "".join(f" --model {model}" for model in sorted(models) if models < {*usual})
    command = _COMMAND.format(name=name, models=some, folder=where, page=page.name)
    count, draws = len(results.records), known["draws_per_chain"]
    runs = {
        "runs": "1 run" if count == 1 else f"{count} runs",
        "draws": "one draw, as there" if draws == 1 else f"{draws} draws (there: one)",
        "minutes": results.records.minutes,
        "with_convolutions": ": convolutions" if known["architecture"] == "conv" else "",
    }
    pages = [other for other in sorted(page.parent.glob("chadebec2022*.md")) if other.name != page.name]
    others = f" Another protocol: {', '.join(f'[{other.stem}]({other.name})' for other in pages)}." if pages else ""
    sections = [
        prose(_HEAD, **known, **runs, command=command, others=others),
        *table_section(results, known),
        *figures("samples", "nearest"),
        *sampler_section(results, known),
        *scale_section(results, known),
        *figures("curves", "ablations"),
        *ablation_section(results, known),
        *augmentation_section(results, known),
        *(["## Figure 1", *figures("toy")] if "toy" in drawn else []),
    ]
    return join(sections) + "\n"


def caption(results: Results) -> str:
    """The protocol in one sentence, for every caption."""
    protocol = results.protocol
    widths = "-".join(str(width) for width in protocol["hidden"] or ()) or "as in C22's appendix E"
    kinds = _KINDS[protocol["architecture"]]
    return prose(_CAPTION, data=protocol["dataset"].upper(), widths=widths, **kinds, **protocol)


def table(columns: Mapping[str, str], rows: list[dict[str, Any]]) -> str:
    """A table of rows of values."""
    body: list[Row] = [((), row) for row in rows]
    return table_of(columns, body, words=range(len(columns)))


def table_section(results: Results, known: dict[str, Any]) -> Iterator[str]:
    """All models and samplers, with C22's figures beside: what the measures are computed in, and how both compare."""
    rows = sorted(results.table().items(), key=lambda entry: entry[1]["fid"].mean)
    if not rows:
        return
    extractors = [result["extractor"] for result in results.records.results if "extractor" in result]
    features = prose(_FEATURES, **extractors[0]) if extractors else ""
    judged = all(row["authenticity"].runs for _, row in rows)
    if judged:
        features += " " + prose(_AUTHENTIC, **extractors[0])
    yield prose(_TABLE, **known, runs=max(row["fid"].runs for _, row in rows), features=features)
    body = []
    for (model, sampler), row in rows:
        _, fid, *curve = TABLE_1.get((model, sampler), (None, None))
        printed = {"fid": "" if fid is None else f"{fid:.2f}", "f8": " / ".join(f"{value:.2f}" for value in curve)}
        body.append({**row, "model": MODEL_NAMES[model], "sampler": SAMPLER_NAMES[sampler], "printed": printed})
    columns = {"model": "{model}", "sampler": "{sampler}", "Frechet": "{fid:.1f}", **_MEASURES}
    columns |= {"authentic": _SHARE} if judged else {}
    yield table(columns | {"C22: FID": "{printed[fid]}", "C22: F8 / F1/8": "{printed[f8]}"}, body)
    yield comparison(results)


def measured(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """What runs say of their samplers: rows for a table, with the settings of the run and its training."""
    for record, name, values in samplers(records):
        largest, training = max(values.get("class_shares", [0.0])), record["result"].get("training")
        yield {**record["settings"], **values, "name": SAMPLER_NAMES[name], "largest": largest, "training": training}


def sampler_section(results: Results, known: dict[str, Any]) -> Iterator[str]:
    """What the samplers of the metric's uniform law say of themselves."""
    rows = [row for row in measured(results.part("table")) if "sampler" in row]
    if not rows:
        return
    counts = [used(result) for result in results.part("table").where(model="vae").results]
    yield prose(_SAMPLERS, **known, uses=reach(counts))
    order = list(SAMPLER_NAMES.values())
    columns = {
        "sampler": "{name}",
        "seed": "{seed}",
        "method": "{sampler[method]}",
        "rho": "{sampler[bandwidth]:.2f}",
        "efficiency": "{sampler[efficiency]:.2g}",
        "acceptance": "{sampler[acceptance]:.2f}",
        "largest R-hat": "{sampler[max_r_hat]:.2f}",
        "on the floor": "{sampler[floor_share]!p:.1f} %",
        "largest class": "{largest!p:.0f} %",
        "CPU s": "{sampling_cpu_seconds:.1f}",
    }
    yield table(columns, sorted(rows, key=lambda row: (order.index(row["name"]), row["seed"])))


def scale_section(results: Results, known: dict[str, Any]) -> Iterator[str]:
    """The VAE's samplers at other standard deviations of the likelihood."""
    rows = list(measured(results.part("scale")))
    if not rows:
        return
    vaes = results.part("table").where(model="vae")
    base = [record for record in vaes if "nearest" in record["result"]]
    rows += [row | {"scale": results.protocol["likelihood_scale"]} for row in measured(base[:1])]
    yield prose(_SCALE, **known)
    columns = {"s": "{scale:.3g}", "used": "{used}", "sampler": "{name}", "Frechet": "{fid:.1f}", **_MEASURES}
    columns["largest class"] = "{largest!p:.0f} %"
    if all("authenticity" in row for row in rows):
        columns["authentic"] = _SHARE
    yield table(columns, [row | {"used": used(row)} for row in sorted(rows, key=lambda row: -row["scale"])])


def ablation_section(results: Results, known: dict[str, Any]) -> Iterator[str]:
    """Numbers of the ablations' figure."""
    rows = [
        {**values, "what": title, "value": value, "name": SAMPLER_NAMES[sampler]}
        for name, title in (("num_centroids", "centroids"), ("regularization", "lambda"))
        for sampler, row in results.ablation(name).items()
        for value, values in row.items()
    ]
    if not rows:
        return
    yield prose("## Ablations of the metric\n\nVAE, first seed. {caption}", **known)
    columns = {
        "what": "{what}",
        "value": "{value:g}",
        "sampler": "{name}",
        "Frechet": "{fid:.1f}",
        "on the floor": "{sampler[floor_share]!p:.1f} %",
        "largest R-hat": "{sampler[max_r_hat]:.2f}",
    }
    yield table(columns, rows)


def augmentation_section(results: Results, known: dict[str, Any]) -> Iterator[str]:
    """Balanced accuracy and F1 of every method."""
    rows = sorted(results.augmentation().items(), key=lambda entry: -entry[1]["balanced_accuracy"].mean)
    if not rows:
        return
    name, classes, sizes = known["augmentation"]
    pool = known["augmentation_pool"] * known["augmentation_samples"]
    yield prose(_AUGMENTATION, **known, data=name.upper(), classes=classes, sizes=sizes, pool=pool)
    columns = {
        "trained on": "{label}",
        "balanced accuracy": "{balanced_accuracy!p:.1f}",
        "F1, minority": "{f1_0!p:.1f}",
        "F1, majority": "{f1_1!p:.1f}",
        "C22, OASIS: balanced accuracy": "{printed}",
    }
    printed = {key: f"{value:.1f}" for key, value in TABLE_2.items()}
    yield table(columns, [{**row, "label": label(key), "printed": printed.get(key, "")} for key, row in rows])
    yield augmentation_comparison(results)
