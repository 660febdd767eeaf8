"""What a sampler needs of an array library beside the names that all of them share: random numbers, loops, pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy

from pyro_riemann._formulas import Array, Namespace, places, table

State = Any
Key = Any


class Runtime(Protocol):
    """An array library at work; a key is what it draws random numbers by.

    Where one generator serves all draws, ``fold`` returns it as it is; where keys are values, another key.
    """

    @property
    def xp(self) -> Namespace:
        """Namespace of the arrays."""
        ...

    def fold(self, key: Key, number: Any) -> Key:
        """A key for the part ``number`` of what ``key`` is for."""
        ...

    def uniform(self, key: Key, shape: tuple[int, ...], like: Array) -> Array:
        """Uniform numbers of the dtype and device of ``like``."""
        ...

    def kick(self, key: Key, like: Array) -> tuple[Array, Array]:
        """Standard normal numbers ``(n, d)`` and uniform ones ``(n, 2)``; ``like`` is ``(n, d)``."""
        ...

    def ndtri(self, uniform: Array) -> Array:
        """Quantiles of the standard normal law."""
        ...

    def logsumexp(self, terms: Array, axis: int) -> Array:
        """Log of the sum of exponentials; minus infinity of nothing else."""
        ...

    def squared_distances(self, z: Array, loc: Array, precision: Array) -> Array:
        """Of points ``(n, d)`` to means ``(m, d)`` in units of precisions ``(m, d)`` or ``(m, d, d)``; ``(n, m)``."""
        ...

    def repeat(self, count: Any, step: Callable[[Any, State], State], state: State) -> State:
        """``state = step(k, state)`` for k below ``count``."""
        ...

    def loop(self, unfinished: Callable[[State], Any], step: Callable[[State], State], state: State) -> State:
        """``state = step(state)`` while ``unfinished(state)``."""
        ...

    def in_pieces(self, function: Callable[[Array], Any], rows: int, points: Array) -> Any:
        """``function(points)``, which treats every row for itself, at most ``rows`` rows at a time."""
        ...


class Eager:
    """Loops of Python, for a library that computes at once."""

    def fold(self, key: Key, number: Any) -> Key:
        """The generator itself."""
        return key

    def repeat(self, count: int, step: Callable[[Any, State], State], state: State) -> State:
        """A loop."""
        for number in range(count):
            state = step(number, state)
        return state

    def loop(self, unfinished: Callable[[State], Any], step: Callable[[State], State], state: State) -> State:
        """A loop."""
        while unfinished(state):
            state = step(state)
        return state


class Host(Eager):
    """NumPy; keys are ``numpy.random.Generator``."""

    xp: Namespace = np

    def uniform(self, key: np.random.Generator, shape: tuple[int, ...], like: Array) -> Array:
        """In doubles."""
        return key.random(shape)

    def kick(self, key: np.random.Generator, like: Array) -> tuple[Array, Array]:
        """In doubles."""
        return key.standard_normal(like.shape), key.random((len(like), 2))

    def ndtri(self, uniform: Array) -> Array:
        """By SciPy."""
        return scipy.special.ndtri(uniform)

    def logsumexp(self, terms: Array, axis: int) -> Array:
        """With one pass of exponentials; SciPy's own is several times slower."""
        largest = terms.max(axis, keepdims=True)
        largest = np.where(largest > -np.inf, largest, 0.0)
        with np.errstate(divide="ignore"):
            return np.log(np.exp(terms - largest).sum(axis)) + largest.squeeze(axis)

    def squared_distances(self, z: Array, loc: Array, precision: Array) -> Array:
        """By two matrix products where these keep enough digits."""
        return squared_distances(np, z, loc, precision)

    def in_pieces(self, function: Callable[[Array], Any], rows: int, points: Array) -> Any:
        """One piece after another."""
        if len(points) <= rows:
            return function(points)
        whole: list[Array] = []
        for begin in range(0, len(points), rows):  # into their place: small parts between large tables leave holes
            part = function(points[begin : begin + rows])
            each = part if isinstance(part, tuple) else (part,)
            if not whole:
                whole = [np.empty((len(points), *value.shape[1:]), value.dtype) for value in each]
            for target, value in zip(whole, each, strict=True):
                target[begin : begin + rows] = value
        return tuple(whole) if isinstance(part, tuple) else whole[0]


HOST = Host()
_STEEP = 1e10  # precision in the unit box from which the expanded square has no digits left


def squared_distances(xp: Namespace, z: Array, loc: Array, precision: Array) -> Array:
    """``|z - loc_i|^2`` in units of ``precision_i``, ``(n, m)``, in doubles.

    Expanding the square, two matrix products, is ten times as fast as summing over all differences, and loses
    ``1e-16 precision`` of the exponent.
    """
    diagonal = precision.ndim == 2
    if len(precision) and float(xp.amax(precision)) > _STEEP:
        away = z[:, None] - loc
        return xp.einsum("nmi,mi->nm" if diagonal else "nmi,mij,nmj->nm", *_factors(away, precision, diagonal))
    shifted = precision * loc if diagonal else xp.einsum("mij,mj->mi", precision, loc)
    if diagonal:
        square, rates = z * z, precision
    else:
        above = triangle(z.shape[1])
        row, column = places(xp, above.row, z), places(xp, above.column, z)
        square, rates = z[:, row] * z[:, column], precision[:, row, column] * table(xp, above.times, z)
    weights = xp.concatenate([rates, -2 * shifted], 1)
    return xp.concatenate([square, z], 1) @ weights.T + (shifted * loc).sum(-1)


class Triangle(NamedTuple):
    """The upper triangle of a symmetric matrix, which has half of the work of the whole.

    Attributes:
        row: of each entry, ``(d (d + 1) / 2)``.
        column: of each entry.
        times: how often each is in the matrix.
        entry: which entry is where in the matrix, ``(d, d)``.
    """

    row: Array
    column: Array
    times: Array
    entry: Array


@cache
def triangle(dim: int) -> Triangle:
    """That of a matrix ``(d, d)``."""
    row, column = np.triu_indices(dim)
    entry = np.zeros((dim, dim), int)
    entry[row, column] = entry[column, row] = np.arange(len(row))
    return Triangle(row, column, 1.0 + (row != column), entry)


def _factors(away: Array, precision: Array, diagonal: bool) -> tuple[Array, ...]:
    return (away * away, precision) if diagonal else (away, precision, away)
