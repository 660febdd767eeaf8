"""The report: Markdown tables and figures, every number of them from the saved results."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pyro_riemann._files import make_folder, write_file
from pyro_riemann.experiments._jobs import understood
from pyro_riemann.experiments.chadebec2022._comparison import USED, augmentation_comparison, comparison, used
from pyro_riemann.experiments.chadebec2022._figures import draw_all, label
from pyro_riemann.experiments.chadebec2022._paper import MODEL_NAMES, SAMPLER_NAMES, TABLE_1, TABLE_2
from pyro_riemann.experiments.chadebec2022._results import Results

_CAPTIONS = {
    "toy": "Disks and rings (C22, figure 1). Grey: log volume element. Dashed: straight lines; solid: curves that keep "
    "to large volume (C22, eq. 8), with decoded frames along both.",
    "samples": "Ten images of every model and sampler, first seed.",
    "nearest": "Images of the VAE under C22's sampler (algorithm 2) beside the nearest training image and the nearest "
    "reconstruction.",
    "curves": "Frechet distance against the number of training images (C22, figure 4), first seed.",
    "ablations": "Frechet distance against the number of centroids and against lambda (C22, figures 11 and 13), VAE of "
    "the first seed. C22's sampler starts at the centroids and stays near them; the exact law does not.",
}


def write_report(folder: Path, page: Path) -> None:
    """Render the results in ``folder`` to the Markdown ``page`` and figures beside them.

    Args:
        folder: of the JSON files; figures go to its ``figures``.
        page: the Markdown file.

    Raises:
        FileNotFoundError, ValueError: if there are no results, or of several protocols.
    """
    with understood(folder):
        drawn = draw_all(Results(folder), folder / "figures")
        make_folder(page.parent)
        write_file(page, report(folder, page, drawn))


def report(folder: Path, page: Path, drawn: Collection[str]) -> str:
    """Text of the ``page`` for the results in ``folder``, with the figures that have been ``drawn``."""
    results, where = Results(folder), os.path.relpath(folder / "figures", page.parent)
    sections = [
        heading(results, os.path.relpath(folder, page.parent), page.name),
        *table_section(results),
        *(figure(name, where) for name in ("samples", "nearest") if name in drawn),
        *sampler_section(results),
        *scale_section(results),
        *(figure(name, where) for name in ("curves", "ablations") if name in drawn),
        *ablation_section(results),
        *augmentation_section(results),
        *(["## Figure 1", figure("toy", where)] if "toy" in drawn else []),
    ]
    return "\n\n".join(sections) + "\n"


def heading(results: Results, folder: str, page: str) -> str:
    """Title, command and protocol; ``folder`` is that of the results as seen from that of the ``page``."""
    protocol, records = results.protocol, results.records
    minutes = sum(record["cpu_seconds"] for record in records) / 60
    return "\n\n".join(
        [
            "# A geometric perspective on variational autoencoders",
            "The experiments of Chadebec & Allassonniere (2022, C22 below), models and samplers written anew. This "
            "page is made from the JSON files beside it; in its folder, this runs what is missing and makes it again:",
            f"```sh\npython -m pyro_riemann reproduce chadebec2022 --protocol {protocol['name']} "
            f"--results {folder} --page {page}\n```",
            f"Protocol `{protocol['name']}`: {caption(results)} {len(records)} runs, {minutes:.0f} minutes of a core. "
            f"The likelihood of variational models has the standard deviation {protocol['likelihood_scale']:.3f}; "
            f"metrics have {protocol['num_centroids']:,} centroids, lambda = {protocol['regularization']:g}, unless "
            f"said otherwise; each chain of C22's algorithm 2 gives {protocol['draws_per_chain']} draws (there: one); "
            f"improved precision and recall compare {protocol['num_neighborhood']:,} images of each set.",
        ]
    )


def caption(results: Results) -> str:
    """The protocol in one sentence, for every caption."""
    protocol = results.protocol
    size, epochs = protocol["table"]
    widths = "-".join(str(width) for width in protocol["hidden"] or ()) or "as in C22's appendix E"
    return (
        f"{protocol['dataset'].upper()}, {protocol['architecture'].upper()} {widths}, d = {protocol['latent_dim']}, "
        f"{size:,} training images and {epochs} epochs (C22: 50,000 and 100, convolutions)."
    )


def features_caption(results: Results) -> str:
    """What the Frechet distance and the other measures are computed in."""
    found = next((r["result"]["extractor"] for r in results.records if "extractor" in r["result"]), None)
    if found is None:
        return ""
    return (
        f"Features: {found['features']} of a {found['kind']} (test accuracy {100 * found['test_accuracy']:.1f} %), not "
        "Inception: the distances do not compare with C22's, only their order does."
    )


def table_section(results: Results) -> list[str]:
    """All models and samplers, with C22's figures beside."""
    rows = results.table()
    if not rows:
        return []
    samples = results.protocol["num_samples"]
    order = sorted(rows, key=lambda key: rows[key]["fid"].mean)
    body = []
    for key in order:
        row, paper = rows[key], TABLE_1.get(key)
        body.append(
            [
                MODEL_NAMES[key[0]],
                SAMPLER_NAMES[key[1]],
                row["fid"].text(1),
                f"{row['f8'].text(3)} / {row['f1_8'].text(3)}",
                f"{row['precision'].text(3)} / {row['recall'].text(3)}",
                "" if paper is None else f"{paper[1]:.2f}",
                "" if paper is None else f"{paper[2]:.2f} / {paper[3]:.2f}",
            ]
        )
    runs = max(row["fid"].runs for row in rows.values())
    header = ["model", "sampler", "Frechet", "F8 / F1/8", "precision / recall", "C22: FID", "C22: F8 / F1/8"]
    return [
        "## Models and samplers",
        f"{caption(results)} {samples:,} images against the test set; mean ± standard deviation of seeds, {runs} at "
        f"most (no ±: one), in the order of the Frechet distance. {features_caption(results)}",
        markdown(header, body),
        comparison(results),
    ]


def sampler_section(results: Results) -> list[str]:
    """What the samplers of the metric's uniform law say of themselves."""
    body = []
    for record in results.part("table"):
        for name, measured in record["result"]["samplers"].items():
            if found := measured.get("sampler"):
                shares = measured["class_shares"]
                body.append(
                    [
                        SAMPLER_NAMES[name],
                        record["settings"]["seed"],
                        found["method"],
                        f"{found['bandwidth']:.2f}",
                        f"{found['efficiency']:.2g}",
                        f"{found['acceptance']:.2f}",
                        f"{found['max_r_hat']:.2f}",
                        f"{100 * found['floor_share']:.1f} %",
                        f"{100 * max(shares):.0f} %",
                        f"{measured['sampling_cpu_seconds']:.1f}",
                    ]
                )
    if not body:
        return []
    header = [
        "sampler", "seed", "method", "rho", "efficiency", "acceptance", "largest R-hat", "on the floor",
        "largest class", "CPU s",
    ]  # fmt: skip
    counts = [used(r["result"]) for r in results.part("table") if r["settings"]["model"] == "vae"]
    return [
        "## The samplers of the metric",
        f"The table's VAE, {results.protocol['num_samples']:,} draws. {caption(results)} *Largest class*: share of the "
        "images that the classifier puts into their most frequent class; 11 % in the data. The VAE uses "
        f"{span(counts)} of its {results.protocol['latent_dim']} latent dimensions (median posterior standard "
        f"deviation below {USED}).",
        markdown(header, sorted(body, key=lambda row: (list(SAMPLER_NAMES.values()).index(str(row[0])), row[1]))),
    ]


def span(values: Sequence[int]) -> str:
    """``least to largest``, or the one value that all have."""
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def scale_section(results: Results) -> list[str]:
    """The VAE's samplers at other standard deviations of the likelihood."""
    base = next(
        (r for r in results.part("table") if r["settings"]["model"] == "vae" and "nearest" in r["result"]), None
    )
    records = results.part("scale")
    if not records:
        return []
    found = [(record["settings"]["scale"], record["result"]) for record in records]
    if base is not None:
        found.append((results.protocol["likelihood_scale"], base["result"]))
    body = []
    for scale, result in sorted(found, key=lambda entry: -entry[0]):
        for name, measured in result["samplers"].items():
            body.append(
                [
                    f"{scale:.3g}",
                    used(result),
                    SAMPLER_NAMES[name],
                    f"{measured['fid']:.1f}",
                    f"{measured['f8']:.3f} / {measured['f1_8']:.3f}",
                    f"{measured['precision']:.3f} / {measured['recall']:.3f}",
                    f"{100 * max(measured['class_shares']):.0f} %",
                ]
            )
    header = ["s", "used", "sampler", "Frechet", "F8 / F1/8", "precision / recall", "largest class"]
    return [
        "## How sharp the likelihood is",
        "C22 does not give the standard deviation s of the likelihood; its eq. 3 reads as s = 0.707. A sharper one "
        f"uses more of the latent dimensions (*used*: median posterior standard deviation below {USED}). VAE, first "
        f"seed. {caption(results)}",
        markdown(header, body),
    ]


def ablation_section(results: Results) -> list[str]:
    """Numbers of the ablations' figure."""
    body = []
    for name, title in (("num_centroids", "centroids"), ("regularization", "lambda")):
        for sampler, row in results.ablation(name).items():
            for value, measured in row.items():
                found = measured["sampler"]
                body.append(
                    [
                        title,
                        f"{value:g}",
                        SAMPLER_NAMES[sampler],
                        f"{measured['fid']:.1f}",
                        f"{100 * found['floor_share']:.1f} %",
                        f"{found['max_r_hat']:.2f}",
                    ]
                )
    if not body:
        return []
    header = ["what", "value", "sampler", "Frechet", "on the floor", "largest R-hat"]
    return ["## Ablations of the metric", f"VAE, first seed. {caption(results)}", markdown(header, body)]


def augmentation_section(results: Results) -> list[str]:
    """Balanced accuracy and F1 of every method."""
    rows = results.augmentation()
    if not rows:
        return []
    protocol = results.protocol
    name, classes, sizes = protocol["augmentation"]
    body: list[list[Any]] = []
    for key, row in sorted(rows.items(), key=lambda entry: -entry[1]["balanced_accuracy"].mean):
        paper = TABLE_2.get(key)
        body.append(
            [
                label(key),
                row["balanced_accuracy"].text(1, 100),
                row["f1_0"].text(1, 100),
                row["f1_1"].text(1, 100),
                "" if paper is None else f"{paper:.1f}",
            ]
        )
    header = ["trained on", "balanced accuracy", "F1, minority", "F1, majority", "C22, OASIS: balanced accuracy"]
    return [
        "## Augmentation of a small, imbalanced task",
        f"{name.upper()}, classes {classes[0]} and {classes[1]}, {sizes[0]} and {sizes[1]} training images. A "
        f"classifier ({protocol['classifier_steps']} steps, the best epoch on a validation set) learns from the real "
        f"images or from {protocol['augmentation_samples']:,} generated ones a class, and is judged on the real test "
        f"images; percent, mean ± standard deviation of {protocol['augmentation_runs']} runs. Each model is trained "
        f"once a class, for {protocol['augmentation_epochs']:,} epochs (C22: 1,000, on brain images; its figures stand "
        "beside ours for the order alone). Runs differ in the classifier's seed and in the images, a random choice out "
        f"of {protocol['augmentation_pool'] * protocol['augmentation_samples']:,} a class.",
        markdown(header, body),
        augmentation_comparison(results),
    ]


def markdown(header: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def figure(name: str, where: str) -> str:
    """A figure with its caption."""
    return f"![{name}]({where}/{name}.png)\n\n*{_CAPTIONS[name]}*"
