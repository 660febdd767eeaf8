"""Which part of a large table of cases every run does; the whole of it is done with ``-m slow``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from _pytest.mark.structures import ParameterSet


def in_turn(
    first: Iterable[str], second: Sequence[str], always: Sequence[str] = (), never: Sequence[str] = ()
) -> list[ParameterSet]:
    """All pairs of two lists, most of them slow.

    Each of ``first`` is kept with one of ``second``, in turn; those in ``always`` with all, those in ``never`` with
    none.
    """
    pairs, turn = [], 0
    for one in first:
        for index, other in enumerate(second):
            quick = one in always or (one not in never and index == turn % len(second))
            pairs.append(pytest.param(one, other, marks=[] if quick else [pytest.mark.slow]))
        turn += one not in (*always, *never)
    return pairs
