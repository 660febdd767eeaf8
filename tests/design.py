"""Which part of a large table of cases every run does; the whole of it is done with ``-m slow``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from _pytest.mark.structures import ParameterSet


def in_turn(first: Iterable[str], second: Sequence[str], always: Iterable[str] = ()) -> list[ParameterSet]:
    """All pairs of two lists, most of them slow.

    Each of ``first`` is kept with one of ``second``, in turn; those of ``first`` that are in ``always`` with all.
    """
    kept, turn = [], 0
    for one in first:
        for index, other in enumerate(second):
            quick = one in always or index == turn % len(second)
            kept.append(pytest.param(one, other, marks=[] if quick else [pytest.mark.slow]))
        turn += one not in always
    return kept
