"""Markdown tables, and what the chapters of the report share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "digits": "digits"}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = (0, 1)) -> str:
    """The first two columns, or those at ``words``, are words, the others numbers."""
    rules = [" --- |" if column in words else " ---: |" for column in range(len(header))]
    lines = ["| " + " | ".join(header) + " |", "|" + "".join(rules)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(values: Iterable[float | None], digits: int = 2) -> str:
    """Mean and standard deviation of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return f"{mean(known):.{digits}f} ± {stdev(known):.{digits}f}"
