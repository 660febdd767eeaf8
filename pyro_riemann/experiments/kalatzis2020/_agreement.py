"""What of the claims of Kalatzis et al. (2020) the saved runs confirm, protocol by protocol, from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean, variance
from typing import Any

from pyro_riemann.experiments._jobs import Record
from pyro_riemann.experiments.kalatzis2020 import _paper
from pyro_riemann.experiments.kalatzis2020._protocol import TITLES
from pyro_riemann.experiments.kalatzis2020._tables import NAMES, markdown_table

Value = Callable[[dict[str, Any]], float]


def _normalized(name: str) -> Value:
    return lambda result: -result["bounds"].get(f"{name}_normalized", result["bounds"][name])


def _f1(result: dict[str, Any]) -> float:
    average: float = result["classification"]["average"]
    return average


def _paper_elbo(dataset: str, model: str, dim: int) -> float | None:
    known = _paper.BOUNDS.get(dataset, {}).get((model, dim))
    return None if known is None else known[0]


def _paper_f1(dataset: str, model: str, dim: int) -> float | None:
    return _paper.F1.get((model, dim)) if dataset == "mnist" else None


def _nothing(dataset: str, model: str, dim: int) -> float | None:
    return None


# name, value of a run, value printed, digits
_MEASURES: tuple[tuple[str, Value, Callable[[str, str, int], float | None], int], ...] = (
    ("Neg. ELBO, prior normalised", _normalized("elbo"), _paper_elbo, 2),
    ("−IWAE, prior normalised", _normalized("iwae"), _nothing, 2),
    ("F1 of the codes", _f1, _paper_f1, 2),
)
_RIVALS = ("vae", "vae-fitted", "vamp128", "vamp256", "vamp512")


def agreement(records: list[Record]) -> str:
    """The section of the report that holds the R-VAE against each other model, here and in the paper."""
    models = [record for record in records if record["settings"]["kind"] == "model"]
    rows = []
    for dataset in NAMES:
        for dim in sorted({record["settings"]["latent_dim"] for record in models}):
            for protocol in dict.fromkeys(record["settings"]["protocol"]["name"] for record in models):
                wanted = {"dataset": dataset, "latent_dim": dim}
                own = [
                    record
                    for record in models
                    if record["settings"]["protocol"]["name"] == protocol
                    and {key: record["settings"][key] for key in wanted} == wanted
                ]
                rows += _rows(own, dataset, dim, protocol)
    if not rows:
        return ""
    header = ["data", "protocol", "d", "R-VAE less", "of", "here", "K20", "verdict"]
    counts = ", ".join(f"{sum(row[-1] == verdict for row in rows)} *{verdict}*" for verdict in _VERDICTS)
    return "\n\n".join(
        [
            "## What agrees with K20",
            "The R-VAE less each other model: of bounds less than 0 is better, of F1 more. The mean over seeds and, "
            "where there are several, the standard error of the difference. *as K20*: the sign is that of the numbers "
            "printed there, and the difference is two standard errors or more from 0 (with one seed: the sign alone); "
            "*against K20*: it is the other sign, as far from 0; *undecided*: nearer. *not in K20*: nothing to compare "
            f"with. {counts}. IWAE compares priors; K20's ELBOs are of densities that are not normalised.",
            markdown_table(header, rows, words=(0, 1, 3, 4, 7)),
        ]
    )


_VERDICTS = ("as K20", "against K20", "undecided", "not in K20")


def _rows(records: list[Record], dataset: str, dim: int, protocol: str) -> list[list[str]]:
    by_model: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_model.setdefault(record["settings"]["model"], []).append(record["result"])
    rows = []
    for name, value, printed, digits in _MEASURES:
        for rival in _RIVALS:
            both = [by_model.get(model, []) for model in ("rvae", rival)]
            if not all(both) or (value is _f1 and rival != "vae"):
                continue
            ours, theirs = ([value(result) for result in results] for results in both)
            gap = mean(ours) - mean(theirs)
            error = _standard_error(ours, theirs)
            here = f"{gap:+.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
            there = [printed(dataset, model, dim) for model in ("rvae", rival)]
            known = None if there[0] is None or there[1] is None else there[0] - there[1]
            text = "" if known is None else f"{known:+.{digits}f}"
            row = [NAMES[dataset], f"`{protocol}`", str(dim), TITLES[rival], name, here, text]
            rows.append([*row, _verdict(gap, error, known)])
    return rows


def _standard_error(ours: list[float], theirs: list[float]) -> float | None:
    if min(len(ours), len(theirs)) < 2:
        return None
    return math.sqrt(sum(variance(values) / len(values) for values in (ours, theirs)))


def _verdict(gap: float, error: float | None, known: float | None) -> str:
    if known is None:
        return _VERDICTS[3]
    if known == 0 or abs(gap) < 2 * (error or 0.0):
        return _VERDICTS[2]
    return _VERDICTS[0] if gap * known > 0 else _VERDICTS[1]
