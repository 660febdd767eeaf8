"""Tables of the saved runs, in Markdown; every number comes from a result file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_riemann.experiments._jobs import Record
from pyro_riemann.experiments._report import NAMES, Records, Row, join, prose, reach, setting, spread, table_of
from pyro_riemann.experiments.kalatzis2020._findings import agreement, differences, normalised
from pyro_riemann.experiments.kalatzis2020._protocol import (
    DATASETS,
    MODELS,
    PRINTED_BOUNDS,
    PRINTED_F1,
    PRINTED_SECONDS,
    TITLES,
    Protocol,
    grid,
)

Groups = dict[tuple[int, str], Records]
_HEAD = """
# Variational autoencoders with Riemannian Brownian motion priors

The experiments of Kalatzis, Eklund, Arvanitidis & Hauberg (2020, K20 below), written anew with densities with respect
to dz, geodesic distances and Brownian motion with its drift. This page is made from the JSON files beside it; in its
folder, this runs what is missing and makes it again:

{commands}

{runs} of {wanted} runs are there, {minutes:.0f} minutes of a processor core.
"""
_BOUNDS = """
{data}, test images, nats an image, lower is better. Neg. ELBO = Rec + KL, from the same draws; IWAE with {draws} draws,
of {images} images, is the column that compares priors;
"""
_SOLVED = """
at d > 2, where each distance is solved on the decoder, the R-VAE's ELBO is that of the first {images} test images, and
its IWAE draws from a Gaussian near the posterior;
"""
_F1 = "{data}: F1 of a classifier with 100 hidden units on the codes of the test images, by class;"
_MISMATCH = """
{data}: draws of the prior against codes of test images (drawn from their posteriors). Distances from the prior's
centre, geodesic for the R-VAE and Euclidean for the others, compared by the two-sample Kolmogorov-Smirnov statistic (0:
same law); FID in the features of a {mismatch[fid_features]};
"""
_TIMES = """
{data}: {clock} an epoch, all models in one process, measured on {measured_on:,} images after a short warm-up{scaled};
"""
_DIGIT = """
Figures 1 and 2 show the models of the digit 1. Of its codes, {vae[code_share_in_central_half]:.0%} (VAE) and
{rvae[code_share_in_central_half]:.0%} (R-VAE) lie in the central half of the prior.

![Priors of the models of digit 1]({figures}-figure1.png)

![Geodesics of the R-VAE of digit 1]({figures}-figure2.png)
"""
_SCENE = """
![Standard deviation and volume element, by an ordinary and by the RBF network]({figures}-figure3.png)

![Latent space of the R-VAE]({figures}-figure4.png)

Of {interpolations[pairs]} pairs of codes of different classes {interpolations[converged_share]:.1%} of the geodesics
converged; the straight line is longer by a factor of {interpolations[detour_quantiles][1]:.2f} in the median and
{interpolations[detour_quantiles][2]:.2f} in one pair of ten.

![Geodesic against straight line]({figures}-figure5.png)

Share of end points of Brownian motion that lie farther from the nearest code than 99 % of the codes from theirs:
{brownian[learned][strayed_share]:.1%} at the learned time, {brownian[increased][strayed_share]:.1%} at
{brownian[increased][factor]:.0f} times it; with the constant metric of the centre
{brownian[learned][strayed_share_flat]:.1%} and {brownian[increased][strayed_share_flat]:.1%}.

![Brownian motion at the learned time]({figures}-figure6.png)

![Brownian motion at an increased time]({figures}-figure7.png)
"""
_CALIBRATION = """
Simulation-based calibration of the latent posterior ({runs} simulated images, NUTS, chi-square of the ranks): {values}.
"""


def report(folder: Path, page: Path, beside: Sequence[Path] = ()) -> str:
    """The page: what is different from K20, then for every data set all the tables that the results allow.

    Args:
        folder: of the results.
        page: where the text will be; links to figures start there.
        beside: folders of the results of other protocols, whose tables stand beside those.

    Raises:
        FileNotFoundError: if there are no results.
    """
    found = [folder, *(other for other in beside if any(other.glob("*.json")))]
    folders = {os.path.relpath(where, page.parent): Records.read(where) for where in found}
    fullest = max(folders.values(), key=len)
    every = Records(record for records in folders.values() for record in records)
    parts = [_heading(folders, every, page.name), agreement(every), differences(fullest, len(folders) > 1)]
    return join([*parts, *(text for dataset in NAMES for text in _chapter(folders, dataset))]) + "\n"


def _heading(folders: dict[str, Records], every: Records, page: str) -> str:
    commands = []
    for folder, records in folders.items():
        data = sorted(records.by("dataset"), key=list(NAMES).index)
        chosen = " ".join(f"--dataset {name}" for name in data)
        others = "".join(f" --beside {other}" for other in folders if other != folder)
        commands += [
            f"python -m pyro_riemann reproduce kalatzis2020 {chosen} --protocol {name} --results {folder}{others} "
            f"--page {page}"
            for name in sorted(records.by("protocol.name"))
        ]
    return prose(
        _HEAD,
        commands="\n".join(["```sh", *commands, "```"]),
        runs=len(every),
        wanted=_wanted(every),
        minutes=every.minutes,
    )


def _wanted(records: Records) -> int:
    """Runs of the grids, all models at d = 2, 5, 10, of which there are some."""
    started = {
        (setting(record, "dataset"), Protocol(**setting(record, "protocol")))
        for record in records
        if setting(record, "dataset") in DATASETS
    }
    return sum(len(grid(data, (2, 5, 10), MODELS, protocol.seeds, protocol)) for data, protocol in started)


def _chapter(folders: dict[str, Records], dataset: str) -> Iterator[str]:
    """All of one data set, protocol by protocol."""
    own = {where: chosen for where, records in folders.items() if (chosen := records.where(dataset=dataset))}
    if own:
        yield f"## {NAMES[dataset]}"
    sections: dict[str, tuple[str, Callable[[Groups, str], str]]] = {
        "Bounds": ("bounds", _bounds),
        "Classification of codes": ("classification", _f1),
        "Prior against codes": ("mismatch", _mismatch),
        "Time": ("seconds_per_epoch", _timings),
    }
    for title, (measured, section) in sections.items():
        found = [groups for records in own.values() if (groups := _groups(records, measured))]
        yield from [f"### {title}", *(section(groups, dataset) for groups in found)] if found else []
    for where, records in own.items():
        yield from _scenes(records, dataset, f"{where}/figures/{dataset}")


def _caption(records: Sequence[Record], what: str) -> str:
    protocol = Protocol(**setting(records[0], "protocol"))
    seeds = {record["settings"].get("seed", 0) for record in records}
    over = f"mean and standard deviation over {len(seeds)} seeds; " if len(seeds) > 1 else ""
    return f"{what} {over}{protocol.describe()}."


def _groups(records: Records, measured: str) -> Groups:
    """Records with a measurement, by latent dimension and model ("" for all), in the order of the tables."""
    groups: Groups = {}
    order = ["", *MODELS]
    for record in records:
        if measured in record["result"]:
            key = setting(record, "latent_dim"), record["settings"].get("model", "")
            groups.setdefault(key, Records()).append(record)
    return {key: groups[key] for key in sorted(groups, key=lambda key: (key[0], order.index(key[1])))}


def _table(what: str, columns: Mapping[str, str], groups: Groups, printed: Mapping[tuple[str, int], Any]) -> str:
    """Caption and table, a row for each dimension and model; ``k20`` are the numbers of K20."""
    rows: list[Row] = []
    for (dim, model), group in groups.items():
        known = [spread([number]) for number in printed.get((model, dim), [None] * 3)]
        rows.append((normalised(group), {"d": dim, "title": TITLES[model], "k20": known}))
    columns = {"d": "{d}", "model": "{title}", **columns}
    return join([_caption(_flat(groups), what), table_of(columns, rows, words=(0, 1))])


def _flat(groups: Groups) -> Records:
    return Records(record for group in groups.values() for record in group)


def _counts(groups: Groups, key: str) -> str:
    """How many images that were, ``"100"`` or ``"100 to 1,000"``."""
    return reach([result["bounds"][key] for result in _flat(groups).results], ",")


def _bounds(groups: Groups, dataset: str) -> str:
    columns = {
        "Neg. ELBO": "{bounds[elbo]!n:.2f}",
        "Rec": "{bounds[reconstruction]!n:.2f}",
        "KL": "{bounds[kl]:.2f}",
        "Neg. ELBO, prior normalised": "{bounds[elbo_normalized]!n:.2f}",
        "−IWAE, prior normalised": "{bounds[iwae_normalized]!n:.2f}",
        "log mass of the prior": "{bounds[log_mass]:.2f}",
        "its error": "{bounds[log_mass_error]:.2f}",
        **{f"K20: {name}": f"{{k20[{index}]:.2f}}" for index, name in enumerate(("Neg. ELBO", "Rec", "KL"))},
    }
    draws = max(result["bounds"]["iwae_samples"] for result in _flat(groups).results)
    what = prose(_BOUNDS, data=NAMES[dataset], draws=draws, images=_counts(groups, "iwae_num_data"))
    if solved := {key: group for key, group in groups.items() if key[0] > 2 and key[1] == "rvae"}:
        what += " " + prose(_SOLVED, images=_counts(solved, "num_data"))
    return _table(what, columns, groups, PRINTED_BOUNDS.get(dataset, {}))


def _f1(groups: Groups, dataset: str) -> str:
    columns = {str(digit): f"{{classification[per_class][{digit}]:.2f}}" for digit in range(10)}
    columns["average"] = "{classification[average]:.2f}"
    if dataset == "mnist":
        columns["K20: average"] = "{k20[0]:.2f}"
    printed = {key: [value] for key, value in PRINTED_F1.items()}
    return _table(prose(_F1, data=NAMES[dataset]), columns, groups, printed)


def _mismatch(groups: Groups, dataset: str) -> str:
    columns = {
        "KS statistic": "{mismatch[ks_statistic]:.2f}",
        "median distance of codes": "{mismatch[codes_quantiles][1]:.2f}",
        "of draws": "{mismatch[draws_quantiles][1]:.2f}",
        "FID of decoded draws": "{mismatch[fid_samples]:.2f}",
        "FID of reconstructions": "{mismatch[fid_reconstructions]:.2f}",
    }
    return _table(prose(_MISMATCH, *_flat(groups).results, data=NAMES[dataset]), columns, groups, {})


def _timings(groups: Groups, dataset: str) -> str:
    timings = _flat(groups)
    columns = {
        "d": "{d}",
        "model": "{title}",
        "warm-up, s": "{warm_up:.2f}",
        "phase 2, s": "{phase_two:.2f}",
        "warm-up over VAE": "{ratio[0]:.2f}",
        "phase 2 over VAE": "{ratio[1]:.2f}",
        "K20 over VAE": "{k20:.2f}",
    }
    rows: list[Row] = []
    for record in timings:
        dim, seconds = setting(record, "latent_dim"), record["result"]["seconds_per_epoch"]
        for model, own in seconds.items():
            base, known = seconds.get("vae"), PRINTED_SECONDS.get((model, dim))
            ratio = [spread([own[phase] / base[phase]] if base else []) for phase in ("warm_up", "phase_two")]
            printed = spread([known / PRINTED_SECONDS["vae", dim]] if known else [])
            rows.append(((), {**own, "d": dim, "title": TITLES[model], "ratio": ratio, "k20": printed}))
    on, of = (max(result[key] for result in timings.results) for key in ("measured_on", "images"))
    clock = "processor seconds" if timings[0]["device"] == "cpu" else "seconds"
    scaled = " and scaled to all" if on < of else ""
    what = prose(_TIMES, data=NAMES[dataset], clock=clock, measured_on=on, scaled=scaled)
    return join([_caption(timings, what), table_of(columns, rows, words=(0, 1))])


def _scenes(records: Records, dataset: str, figures: str) -> Iterator[str]:
    kinds = {setting(record, "kind"): record for record in records}
    if not {"figures", "digit-one"} & kinds.keys():
        return
    chosen = [kinds[kind] for kind in ("figures", "digit-one", "calibration") if kind in kinds]
    yield "### Figures"
    yield _caption(chosen, f"{NAMES[dataset]}, d = 2;")
    if "digit-one" in kinds:
        yield prose(_DIGIT, **kinds["digit-one"]["result"], figures=figures)
    if "figures" in kinds:
        yield prose(_SCENE, **kinds["figures"]["result"]["latent_space"], figures=figures)
    if "calibration" in kinds:
        result = kinds["calibration"]["result"]
        values = ", ".join(f"{name} p = {value:.2f}" for name, value in result["p_values"].items())
        yield prose(_CALIBRATION, **result, values=values)
