"""The table of samplers of codes: its rows by name, and what each says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from pyro_riemann._formulas import Array
from pyro_riemann._formulas.novelty import CodeDistances, novelty

Law = TypeVar("Law")


def all_laws(baselines: Mapping[str, Law], metrics: Mapping[str, Law], samplers: Mapping[str, Law]) -> dict[str, Law]:
    """One mapping; raises where two rows would have one name."""
    if len({*baselines, *metrics, *samplers}) < len(baselines) + len(metrics) + len(samplers):
        raise ValueError(f"`metrics` and `samplers` must have names that no other row has; taken: {sorted(baselines)}.")
    return {**baselines, **metrics, **samplers}


def row(
    drawn: Array, codes: Array, unseen: Array, frechet: float, recall: float, reach: CodeDistances | None
) -> dict[str, float]:
    """What the table says of one sampler.

    Args:
        drawn: features of its decoded draws, ``(m, p)``, of NumPy.
        codes: those of training codes.
        unseen: those of draws of held-out posteriors.
        frechet: distance of its features to those of real data.
        recall: of real data.
        reach: of the draws of a kernel metric.
    """
    found = novelty(drawn, codes, unseen)
    return {
        "frechet": frechet,
        "novelty": found.ratio,
        "coverage": found.coverage,
        "recall": recall,
        "to_codes": math.nan if reach is None else reach.draws,
        "effective": math.nan if reach is None else reach.effective,
    }
