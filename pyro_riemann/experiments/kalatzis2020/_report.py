"""Tables of the saved runs, in Markdown; every number comes from a result file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyro_riemann.experiments._jobs import Record, load
from pyro_riemann.experiments.kalatzis2020 import _paper
from pyro_riemann.experiments.kalatzis2020._agreement import agreement
from pyro_riemann.experiments.kalatzis2020._differences import differences
from pyro_riemann.experiments.kalatzis2020._protocol import DATASETS, MODELS, TITLES, Protocol, grid
from pyro_riemann.experiments.kalatzis2020._tables import NAMES, markdown_table, spread

Records = list[Record]
Groups = dict[tuple[int, str], Records]


def load_records(folder: Path) -> Records:
    """All results in a folder, by name."""
    return [load(path) for path in sorted(folder.glob("*.json"))]


def report(folder: Path, page: Path, beside: Sequence[Path] = ()) -> str:
    """The page: what is different from K20, then for every data set all the tables that the results allow.

    Args:
        folder: of the results.
        page: where the text will be; links to figures start there.
        beside: folders of the results of other protocols, whose tables stand beside those.

    Raises:
        FileNotFoundError: if there are no results.
    """
    found = {where: load_records(where) for where in (folder, *beside)}
    if not found[folder]:
        raise FileNotFoundError(f"no results in {folder}: run the experiments first.")
    folders = {os.path.relpath(where, page.parent): records for where, records in found.items() if records}
    every = [record for records in folders.values() for record in records]
    fullest = max(folders.values(), key=len)
    parts = [_heading(folders, page.name), agreement(every), differences(fullest, len(folders) > 1)]
    for dataset in NAMES:
        own = {
            where: chosen
            for where, records in folders.items()
            if (chosen := [record for record in records if record["settings"]["dataset"] == dataset])
        }
        if own:
            parts.append(f"## {NAMES[dataset]}")
        for title, section in (
            ("Bounds", _bounds),
            ("Classification of codes", _f1),
            ("Prior against codes", _mismatch),
            ("Time", _timings),
        ):
            texts = [text for records in own.values() if (text := section(records, dataset))]
            parts += [f"### {title}", *texts] if texts else []
        for where, records in own.items():
            parts.append(_scenes(records, dataset, f"{where}/figures"))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _heading(folders: dict[str, Records], page: str) -> str:
    records = [record for own in folders.values() for record in own]
    minutes = sum(record["cpu_seconds"] for record in records) / 60
    commands = []
    for folder, own in folders.items():
        protocols = sorted({record["settings"]["protocol"]["name"] for record in own})
        data = sorted({record["settings"]["dataset"] for record in own}, key=list(NAMES).index)
        chosen = " ".join(f"--dataset {name}" for name in data)
        others = "".join(f" --beside {other}" for other in folders if other != folder)
        commands += [
            f"python -m pyro_riemann reproduce kalatzis2020 {chosen} --protocol {name} --results {folder}{others} "
            f"--page {page}"
            for name in protocols
        ]
    return "\n\n".join(
        [
            "# Variational autoencoders with Riemannian Brownian motion priors",
            "The experiments of Kalatzis, Eklund, Arvanitidis & Hauberg (2020, K20 below), written anew with densities "
            "with respect to dz, geodesic distances and Brownian motion with its drift. This page is made from the "
            "JSON files beside it; in its folder, this runs what is missing and makes it again:",
            "\n".join(["```sh", *commands, "```"]),
            f"{len(records)} of {_wanted(records)} runs are there, {minutes:.0f} minutes of a processor core.",
        ]
    )


def _wanted(records: Records) -> int:
    """Runs of the grids, all models at d = 2, 5, 10, of which there are some."""
    started = {
        (record["settings"]["dataset"], Protocol(**record["settings"]["protocol"]))
        for record in records
        if record["settings"]["dataset"] in DATASETS
    }
    return sum(len(grid(data, (2, 5, 10), MODELS, protocol.seeds, protocol)) for data, protocol in started)


def _caption(records: Records, what: str) -> str:
    protocol = Protocol(**records[0]["settings"]["protocol"])
    seeds = {record["settings"].get("seed", 0) for record in records}
    over = f"mean and standard deviation over {len(seeds)} seeds; " if len(seeds) > 1 else ""
    return f"{what} {over}{protocol.describe()}."


def _models(records: Records) -> Groups:
    """The records of trained models by latent dimension and model, in the order of the tables."""
    models = [record for record in records if record["settings"]["kind"] == "model"]
    groups: Groups = {}
    for dim in sorted({record["settings"]["latent_dim"] for record in models}):
        for model in MODELS:
            chosen = [r for r in models if r["settings"]["latent_dim"] == dim and r["settings"]["model"] == model]
            if chosen:
                groups[dim, model] = chosen
    return groups


def _flat(groups: Groups) -> Records:
    return [record for group in groups.values() for record in group]


def _each(groups: Groups, *columns: Callable[[dict[str, Any]], float | None], digits: int = 2) -> list[list[str]]:
    return [
        [str(dim), TITLES[model], *(spread((column(r["result"]) for r in group), digits) for column in columns)]
        for (dim, model), group in groups.items()
    ]


def _bounds(records: Records, dataset: str) -> str:
    groups = _models(records)
    if not groups:
        return ""
    printed = _paper.BOUNDS.get(dataset, {})
    rows = _each(
        groups,
        lambda r: -r["bounds"]["elbo"],
        lambda r: -r["bounds"]["reconstruction"],
        lambda r: r["bounds"]["kl"],
        lambda r: -r["bounds"].get("elbo_normalized", r["bounds"]["elbo"]),
        lambda r: -r["bounds"].get("iwae_normalized", r["bounds"]["iwae"]),
        lambda r: r["bounds"].get("log_mass"),
        lambda r: r["bounds"].get("log_mass_error"),
    )
    for row, key in zip(rows, groups, strict=True):
        row += [f"{value:.2f}" for value in printed.get((key[1], key[0]), ())] or ["", "", ""]
    header = ["d", "model", "Neg. ELBO", "Rec", "KL", "Neg. ELBO, prior normalised", "−IWAE, prior normalised"]
    header += ["log mass of the prior", "its error", "K20: Neg. ELBO", "K20: Rec", "K20: KL"]
    draws = {record["result"]["bounds"]["iwae_samples"] for group in groups.values() for record in group}
    what = (
        f"{NAMES[dataset]}, test images, nats an image, lower is better. Neg. ELBO = Rec + KL, from the same draws; "
        f"IWAE with {max(draws)} draws, of {_counts(groups, 'iwae_num_data')} images, is the column that compares "
        "priors;"
    )
    if solved := {key: group for key, group in groups.items() if key[0] > 2 and key[1] == "rvae"}:
        what += (
            " at d > 2, where each distance is solved on the decoder, the R-VAE's ELBO is that of the first "
            f"{_counts(solved, 'num_data')} test images, and its IWAE draws from a Gaussian near the posterior;"
        )
    return f"{_caption(_flat(groups), what)}\n\n{markdown_table(header, rows)}\n"


def _counts(groups: Groups, key: str) -> str:
    """How many images that were, ``"100"`` or ``"100 to 1,000"``."""
    counts = sorted({record["result"]["bounds"][key] for record in _flat(groups)})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def _f1(records: Records, dataset: str) -> str:
    groups = {key: group for key, group in _models(records).items() if "classification" in group[0]["result"]}
    if not groups:
        return ""

    def of_class(digit: int) -> Callable[[dict[str, Any]], float | None]:
        return lambda result: result["classification"]["per_class"][digit]

    rows = _each(groups, *(of_class(digit) for digit in range(10)), lambda r: r["classification"]["average"])
    header = ["d", "model", *(str(digit) for digit in range(10)), "average"]
    if dataset == "mnist":
        header.append("K20: average")
        for row, (dim, model) in zip(rows, groups, strict=True):
            row.append(f"{_paper.F1[model, dim]:.2f}" if (model, dim) in _paper.F1 else "")
    what = f"{NAMES[dataset]}: F1 of a classifier with 100 hidden units on the codes of the test images, by class;"
    return f"{_caption(_flat(groups), what)}\n\n{markdown_table(header, rows)}\n"


def _mismatch(records: Records, dataset: str) -> str:
    groups = _models(records)
    if not groups:
        return ""

    def median(which: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda result: result["mismatch"][f"{which}_quantiles"][1]

    rows = _each(
        groups,
        lambda r: r["mismatch"]["ks_statistic"],
        median("codes"),
        median("draws"),
        lambda r: r["mismatch"]["fid_samples"],
        lambda r: r["mismatch"]["fid_reconstructions"],
    )
    header = ["d", "model", "KS statistic", "median distance of codes", "of draws", "FID of decoded draws"]
    header.append("FID of reconstructions")
    first = next(iter(groups.values()))[0]["result"]["mismatch"]
    what = (
        f"{NAMES[dataset]}: draws of the prior against codes of test images (drawn from their posteriors). Distances "
        "from the prior's centre, geodesic for the R-VAE and Euclidean for the others, compared by the two-sample "
        f"Kolmogorov-Smirnov statistic (0: same law); FID in the features of a {first['fid_features']};"
    )
    return f"{_caption(_flat(groups), what)}\n\n{markdown_table(header, rows)}\n"


def _timings(records: Records, dataset: str) -> str:
    timings = [record for record in records if record["settings"]["kind"] == "timing"]
    if not timings:
        return ""
    rows = []
    for record in sorted(timings, key=lambda record: record["settings"]["latent_dim"]):
        dim, seconds = record["settings"]["latent_dim"], record["result"]["seconds_per_epoch"]
        base = seconds.get("vae")
        for model, own in seconds.items():
            row = [str(dim), TITLES[model], f"{own['warm_up']:.2f}", f"{own['phase_two']:.2f}"]
            row += [f"{own[phase] / base[phase]:.2f}" if base else "" for phase in ("warm_up", "phase_two")]
            paper = _paper.SECONDS
            known = (model, dim) in paper
            rows.append([*row, f"{paper[model, dim] / paper['vae', dim]:.2f}" if known else ""])
    header = ["d", "model", "warm-up, s", "phase 2, s", "warm-up over VAE", "phase 2 over VAE", "K20 over VAE"]
    clock = "processor seconds" if timings[0]["device"] == "cpu" else "seconds"
    on, of = (max(record["result"][key] for record in timings) for key in ("measured_on", "images"))
    what = (
        f"{NAMES[dataset]}: {clock} an epoch, all models in one process, measured on {on:,} images after a short "
        f"warm-up{' and scaled to all' if on < of else ''};"
    )
    return f"{_caption(timings, what)}\n\n{markdown_table(header, rows)}\n"


def _scenes(records: Records, dataset: str, figures: str) -> str:
    kinds = {record["settings"]["kind"]: record for record in records}
    if not {"figures", "digit-one"} & kinds.keys():
        return ""
    lines = ["### Figures", ""]
    chosen = [kinds[kind] for kind in ("figures", "digit-one", "calibration") if kind in kinds]
    lines += [_caption(chosen, f"{NAMES[dataset]}, d = 2;"), ""]
    if "digit-one" in kinds:
        shares = kinds["digit-one"]["result"]
        lines += [
            "Figures 1 and 2 show the models of the digit 1. Of its codes, "
            f"{shares['vae']['code_share_in_central_half']:.0%} (VAE) and "
            f"{shares['rvae']['code_share_in_central_half']:.0%} (R-VAE) lie in the central half of the prior.",
            "",
            _image(figures, dataset, "figure1", "Priors of the models of digit 1"),
            _image(figures, dataset, "figure2", "Geodesics of the R-VAE of digit 1"),
        ]
    if "figures" in kinds:
        scene = kinds["figures"]["result"]["latent_space"]
        brownian, curves = scene["brownian"], scene["interpolations"]
        lines += [
            _image(
                figures,
                dataset,
                "figure3",
                "Standard deviation and volume element, by an ordinary and by the RBF network",
            ),
            _image(figures, dataset, "figure4", "Latent space of the R-VAE"),
            f"Of {curves['pairs']} pairs of codes of different classes {curves['converged_share']:.1%} of the "
            f"geodesics converged; the straight line is longer by a factor of {curves['detour_quantiles'][1]:.2f} in "
            f"the median and {curves['detour_quantiles'][2]:.2f} in one pair of ten.",
            "",
            _image(figures, dataset, "figure5", "Geodesic against straight line"),
            f"Share of end points of Brownian motion that lie farther from the nearest code than 99 % of the codes "
            f"from theirs: {brownian['learned']['strayed_share']:.1%} at the learned time, "
            f"{brownian['increased']['strayed_share']:.1%} at {brownian['increased']['factor']:.0f} times it; with the "
            f"constant metric of the centre {brownian['learned']['strayed_share_flat']:.1%} and "
            f"{brownian['increased']['strayed_share_flat']:.1%}.",
            "",
            _image(figures, dataset, "figure6", "Brownian motion at the learned time"),
            _image(figures, dataset, "figure7", "Brownian motion at an increased time"),
        ]
    if "calibration" in kinds:
        result = kinds["calibration"]["result"]
        values = ", ".join(f"{name} p = {value:.2f}" for name, value in result["p_values"].items())
        lines += [
            f"Simulation-based calibration of the latent posterior ({result['runs']} simulated images, NUTS, "
            f"chi-square of the ranks): {values}.",
            "",
        ]
    return "\n".join(lines)


def _image(figures: str, dataset: str, name: str, title: str) -> str:
    return f"![{title}]({figures}/{dataset}-{name}.png)\n"
