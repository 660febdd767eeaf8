"""The flat torus: R^d with ``z`` and ``z + period`` the same point."""

from __future__ import annotations

import itertools
import math

from pyro_riemann._formulas import Array, Namespace

_REACH = 8.6  # standard deviations beyond which a normal density is nothing


def wrap(xp: Namespace, z: Array, periods: Array) -> Array:
    """The image of ``z`` in ``[-period / 2, period / 2)``, axis by axis; an infinite period leaves its axis alone."""
    finite = xp.isfinite(periods)
    turns = xp.where(finite, xp.floor(z / periods + 0.5), xp.zeros_like(z))
    return z - xp.where(finite, periods, xp.ones_like(periods)) * turns


def num_images(width: Array, periods: Array) -> list[int]:
    """On either side of every axis, how many images of a point a normal law of marginal deviation ``width`` reaches.

    Those beyond are below 1e-16 of the sum.

    Args:
        width: marginal standard deviation of every axis, known numbers ``(d,)``.
        periods: ``(d,)``, infinite for a line.
    """
    return [0 if math.isinf(p) else math.ceil(_REACH * w / p) + 1 for w, p in zip(width, periods, strict=True)]


def images(counts: list[int]) -> list[list[int]]:
    """Whole numbers of periods that lead from a point to its images, ``(n, d)``."""
    return [list(turns) for turns in itertools.product(*(range(-count, count + 1) for count in counts))]


def shifts(xp: Namespace, turns: Array, periods: Array) -> tuple[Array, Array]:
    """So many periods as shifts ``(n, d)``, and which of them there are: an infinite period has no images."""
    finite = xp.isfinite(periods)
    return turns * xp.where(finite, periods, xp.zeros_like(periods)), ((turns == 0) | finite).all(-1)


def widest(xp: Namespace, counts: Array, periods: Array) -> Array:
    """The largest marginal deviations for which so many images on either side are enough, ``(d,)``."""
    finite = xp.isfinite(periods)
    return xp.where(finite, (counts - 1) * xp.where(finite, periods, xp.ones_like(periods)) / _REACH, xp.inf)
