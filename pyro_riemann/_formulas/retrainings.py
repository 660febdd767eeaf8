"""Distances of the same pairs under models that were trained again: how much they vary, and Student's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import scipy

A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Retrainings(Generic[A]):
    """Distances of P pairs under K retrainings, both ``(K, P)``; the faces say how an array varies."""

    geodesic: A
    euclidean: A

    @property
    def geodesic_variation(self) -> A:
        """Coefficient of variation of each pair's geodesic distance over models, ``(P)``."""
        return self._variation(self.geodesic)

    @property
    def euclidean_variation(self) -> A:
        """Coefficient of variation of each pair's Euclidean distance over models, ``(P)``."""
        return self._variation(self.euclidean)

    @property
    def statistic(self) -> float:
        """Student's t of the paired differences of variations: negative if geodesic distances vary less."""
        ours, theirs = self.numbers()
        gap = ours - theirs
        return float(gap.mean() / gap.std(ddof=1) * len(gap) ** 0.5)

    @property
    def p_value(self) -> float:
        """Probability of so small a statistic if geodesic distances did not vary less."""
        return float(scipy.special.stdtr(len(self.numbers()[0]) - 1, self.statistic))

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Both variations, ``(P)`` each: geodesic, Euclidean."""
        return self._host(self.geodesic_variation), self._host(self.euclidean_variation)

    def __str__(self) -> str:
        lines = [f"{'distance':<10}  {'CV, mean':>8}  {'CV, median':>12}"]
        for name, value in zip(("geodesic", "euclidean"), self.numbers(), strict=True):
            lines.append(f"{name:<10}  {value.mean():>8.3f}  {np.median(value):>12.3f}")
        models, pairs = self._host(self.geodesic).shape
        test = f"t = {self.statistic:.2f}, p = {self.p_value:.2g}"
        return "\n".join([*lines, f"paired t-test, {pairs} pairs, {models} models: {test}"])

    @staticmethod
    def _variation(distances: A) -> A:
        raise NotImplementedError

    @staticmethod
    def _host(values: A) -> np.ndarray:
        raise NotImplementedError


def check_pairs(members: Sequence[object], x: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Refuse fewer than two members, or batches of two shapes ``x`` and ``y``."""
    if len(members) < 2:
        raise ValueError(f"`members` has {len(members)} entries: a spread over retrainings needs two.")
    if x != y:
        raise ValueError(f"`pairs` must be two batches of one shape, got {x} and {y}.")


def check_codes(members: Sequence[object], shape: tuple[int, ...]) -> None:
    """Refuse what are no codes of each of the metrics."""
    if len(shape) != 3 or shape[0] != len(members):
        raise ValueError(f"`pairs` must be codes ({len(members)}, P, d), those of each of the metrics, got {shape}.")


def check_straight(index: int, lengths: np.ndarray) -> None:
    """Refuse Euclidean distances ``(P)`` under one member of which nothing can be said."""
    if len(lengths) < 2:
        raise ValueError(f"`pairs` has {len(lengths)} pairs: a paired test needs two.")
    if bool((lengths == 0).any()):
        raise ValueError(f"`pairs` has a pair of the same code under member {index}: its distance has no variation.")
