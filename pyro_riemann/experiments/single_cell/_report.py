"""The page of results, every number of it from the saved files."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from pyro_riemann.experiments._jobs import Record, load, understood
from pyro_riemann.experiments.single_cell import _words
from pyro_riemann.experiments.single_cell._data import LINES
from pyro_riemann.experiments.single_cell._mixtures import PAIRS, WINDOW
from pyro_riemann.experiments.single_cell._solved import DISTANCES

GEOMETRIES = {
    "straight": "straight line",
    "mean": "pullback of the mean counts",
    "fisher": "Fisher-Rao",
    "ensemble": "Fisher-Rao, ensemble",
}
PRIORS = {
    "standard": "N(0, I)",
    "isotropic": "isotropic Gaussian",
    "full": "Gaussian with full covariance",
    "mixture": "mixture of three Gaussians",
    "heat_kernel": "heat kernel",
}
CASES = {
    "RNAmix_celseq2-kl1": "mixtures",
    "sc_celseq2-kl1": "cells",
    "RNAmix_celseq2-d10-kl1": "mixtures, d = 10",
    "sc_celseq2-d10-kl1": "cells, d = 10",
}


def write_report(results: Path, page: Path) -> None:
    """Write the ``page`` from the files in ``results``.

    Args:
        results: folder of the JSON files.
        page: Markdown file.

    Raises:
        FileNotFoundError: if there are no results.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(report(results))


def report(results: Path) -> str:
    """Text of the page.

    Args:
        results: folder of the JSON files.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if a file is damaged, or lacks what the page needs.
    """
    records = [load(path) for path in sorted(results.glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"there are no results in {results}.")
    with understood(results):
        plane = [record for record in records if dimension(record) == 2]
        solved = [record for record in records if dimension(record) > 2]
        sizes = plane[0]["settings"]
        parts = [_words.HEAD.format(genes=sizes["genes"])]
        if mixed := [record for record in plane if "mixtures" in record["result"]]:
            best = statistics.mean(value for record in mixed for value in record["result"]["mixtures"]["best_rank"])
            parts += [_words.MIXTURES.format(best=best), *_mixtures(mixed)]
        if more := [record for record in solved if "mixtures" in record["result"]]:
            parts += [f"### With {dimension(more[0])} dimensions", *_mixtures(more)]
        parts += [_words.PRIORS.format(draws=sizes["importance"]), _priors(records)]
        if solved:
            parts.append(_solved(solved))
        parts += [
            _words.NUTS.format(**{key: sizes[key] for key in ("chains", "draws", "warmup")}),
            _nuts(records),
            _words.FINDINGS,
        ]
        return "\n\n".join([*parts, _protocol(records)]) + "\n"


def dimension(record: Record) -> int:
    """Latent dimension of a run."""
    found: int = record["settings"].get("latent_dim", 2)
    return found


def cases(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of each case, seeds in order; what there are none of is left out."""
    found = {case: [record for record in records if record["name"].startswith(f"{case}-")] for case in CASES}
    return {case: some for case, some in found.items() if some}


def _spread(values: Sequence[float], digits: int = 2) -> str:
    error = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)]), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _mixtures(records: list[Record]) -> list[str]:
    results = [record["result"] for record in records]

    def mean(result: Record, name: str, key: str) -> float:
        return statistics.mean(result["mixtures"][name][key])

    rows = [
        [
            label,
            *(_spread([mean(result, name, key) for result in results]) for key in ("rank", "error", "decoded_error")),
        ]
        for name, label in GEOMETRIES.items()
    ]
    profiles = results[0]["profiles"]
    rows.append(
        [
            "no model: counts on the chord between pure lines",
            f"{statistics.mean(profiles['rank']):.2f}",
            "–",
            f"{statistics.mean(profiles['error']):.2f}",
        ]
    )
    head = ["", "rank correlation", "error by length", "error by decoded counts"]
    each = [
        [f"{LINES[a]} to {LINES[b]}"]
        + [_spread([result["mixtures"][name]["rank"][pair] for result in results]) for name in GEOMETRIES]
        for pair, (a, b) in enumerate(PAIRS)
    ]
    flags = [flag for result in results for name in GEOMETRIES for flag in result["mixtures"][name]["converged"]]
    disagreement = [value for result in results for value in result["disagreement"]]
    notes = (
        f"Seeds: {len(results)}. {sum(flags)} of {len(flags)} curves converged. The distance between two lines varies "
        f"over the members of an ensemble by {100 * statistics.mean(disagreement):.1f} % in the mean (coefficient of "
        f"variation), at most by {100 * max(disagreement):.1f} %. Rank correlations of each pair of lines:"
    )
    return [_table(head, rows), _compared(results), notes, _table(["", *GEOMETRIES.values()], each)]


def _compared(results: list[Record]) -> str:
    """Each metric against the straight line and against no model, seed by seed."""

    def wins(name: str, other: Callable[[Record], Sequence[float]]) -> int:
        errors = [(result["mixtures"][name]["error"], other(result)) for result in results]
        return sum(statistics.mean(mine) < statistics.mean(theirs) for mine, theirs in errors)

    names = {name: label for name, label in GEOMETRIES.items() if name != "straight"}
    line = [
        f"{wins(name, lambda result: result['mixtures']['straight']['error'])} ({label})"
        for name, label in names.items()
    ]
    bare = [f"{wins(name, lambda result: result['profiles']['error'])} ({label})" for name, label in names.items()]
    return (
        f"Of {len(results)} seeds, the error by length in the mean over the three pairs is below that of the straight "
        f"line in {', '.join(line)}; below that without a model in {', '.join(bare)}."
    )


def _priors(records: list[Record]) -> str:
    columns = cases(records)
    rows = []
    for name, label in PRIORS.items():
        bounds = [[record["result"]["iwae"] for record in some] for some in columns.values()]
        cells = [_spread([bound[name] - bound["standard"] for bound in some]) for some in bounds]
        rows.append([label, *(cells if name != "standard" else ["0"] * len(bounds))])
    level = [_spread([record["result"]["iwae"]["standard"] for record in some], 1) for some in columns.values()]
    rows.append(["the bound under N(0, I)", *level])
    rows.append(["seeds", *(str(len(some)) for some in columns.values())])
    lines = []
    for case, some in columns.items():
        others = [name for name in PRIORS if name != "heat_kernel"]
        gains = {name: [record["result"]["gain"][name] for record in some] for name in others}
        parts = [
            f"{_spread([gain for gain, _ in pairs])} over {PRIORS[name]} "
            f"(positive in {sum(gain > 0 for gain, _ in pairs)})"
            for name, pairs in gains.items()
        ]
        error = statistics.mean(error for _, error in gains["full"])
        lines.append(
            f"- {CASES[case]}, {len(some)} seeds: {'; '.join(parts)}. Standard error over the held-out cells of one "
            f"seed, of the gain over full covariance: {error:.2f}."
        )
    lines.insert(0, "What the heat kernel gains, in nats a held-out cell:\n")
    return "\n\n".join([_table(["", *(CASES[case] for case in columns)], rows), "\n".join(lines)])


def _solved(records: list[Record]) -> str:
    sizes, results = records[0]["settings"], [record["result"] for record in records]
    return _words.SOLVED.format(
        iterations=DISTANCES.max_iterations,
        mass=2 * sizes["mass_draws"],
        share=min(result["mass_share"] for result in results),
        error=max(result["mass_error"] for result in results),
        draws=sizes["importance"],
    )


def _nuts(records: list[Record]) -> str:
    rows = []
    for case, some in cases(records).items():
        found = [record["result"]["nuts"] for record in some if "nuts" in record["result"]]
        if not found:
            continue
        rows.append(
            [
                CASES[case],
                f"{max(max(one['r_hat']) for one in found):.3f}",
                f"{min(min(one['ess_bulk']) for one in found):.0f}",
                str(sum(one["divergences"] for one in found)),
                f"{max(_apart(one, 'mean') for one in found):.2f}",
                f"{max(_apart(one, 'encoder_mean') for one in found):.2f}",
            ]
        )
    return _table(["", "largest R-hat", "least bulk ESS", "divergences", "difference", "encoder"], rows)


def _apart(one: Record, key: str) -> float:
    """Largest distance of a mean to the lattice's, in posterior standard deviations."""
    parts = zip(one[key], one["lattice_mean"], one["lattice_sd"], strict=True)
    return max(abs(mean - true) / deviation for mean, true, deviation in parts)


def _protocol(records: list[Record]) -> str:
    plane = [record for record in records if dimension(record) == 2]
    solved = [record for record in records if dimension(record) > 2]
    sizes = plane[0]["settings"]
    error = max(record["result"]["table_error"] for record in plane)
    text = (
        "## Protocol and cost\n\n"
        f"Hidden layers of {' and '.join(map(str, sizes['hidden']))} units, {sizes['epochs']} epochs with Adam, the "
        f"weights of the best epoch by the validation part; {sizes['members']} decoders an ensemble, all on the codes "
        f"of the one encoder, on bootstrap samples. Tables of {sizes['resolution']} nodes an axis; the error of a "
        f"Fisher-Rao table at 90 % of the codes is at most {100 * error:.1f} % of the metric. The "
        f"nearest point is sought with the distances to {sizes['nodes']} points of a curve. Genes were "
        "chosen on all cells, by the variance of the logarithm of 1 + scaled counts."
    )
    if solved:
        text += (
            f" With {dimension(solved[0])} dimensions there is no table: curves are those of the default solver, the "
            f"nearest point is sought among the {WINDOW} points of the curve about the one of the nearest image, and "
            "there are no chains, of which each step would solve a geodesic."
        )
    else:
        text += " The program's runs with ten dimensions, which need no table, are not on this page."
    minutes = " and ".join(
        f"{sum(record['cpu_seconds'] for record in some) / 60:.0f} (d = {dimension(some[0])})"
        for some in (plane, solved)
        if some
    )
    return f"{text}\n\nAll runs together took {minutes} minutes of one processor core."
