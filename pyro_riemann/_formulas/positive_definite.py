r"""Symmetric positive definite matrices with the affine-invariant metric, in the chart of their Cholesky factors.

A point is :math:`P = L L^\top`; its coordinates are the entries of L below the diagonal, row by row, and the logarithms
of those on it. A tangent vector is a lower triangular :math:`A = L^{-1} \dot L`, and its symmetric
:math:`S = A + A^\top`, for which :math:`\dot P = L S L^\top`, has the squared length :math:`\mathrm{tr}\,S^2`. The left
action of triangular matrices keeps both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pyro_riemann._formulas import Array, Namespace, places, smooth, table

Function = Callable[[Array], Array]
_ORDERS = 3  # derivatives of the logarithm of a matrix that are right
_RESOLVED = 1e-3  # relative error of a log determinant beyond which singular values are not believed


@cache
def _places(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the coordinates; and the coordinate of every entry, d for those above the diagonal."""
    low = np.tril_indices(size, -1)
    rows, columns = (np.concatenate([part, np.arange(size)]) for part in low)
    place = np.full((size, size), len(rows))
    place[rows, columns] = np.arange(len(rows))
    return rows, columns, place


def _assembled(xp: Namespace, values: Array, size: int) -> Array:
    """Lower triangular matrices of their entries ``(*batch, d)``."""
    return xp.concat([values, xp.zeros_like(values[..., :1])], axis=-1)[..., places(xp, _places(size)[2], values)]


def _entries(xp: Namespace, matrix: Array, size: int) -> Array:
    rows, columns = (places(xp, part, matrix) for part in _places(size)[:2])
    return matrix[..., rows, columns]


def factor(xp: Namespace, z: Array, size: int) -> Array:
    """L, ``(*batch, n, n)``; NaN on a diagonal whose reciprocal the dtype does not hold."""
    logs = z[..., -size:]
    held = xp.abs(logs) < -math.log(xp.finfo(z.dtype).tiny)
    diagonal = xp.where(held, xp.exp(xp.where(held, logs, xp.zeros_like(logs))), xp.full_like(logs, math.nan))
    return _assembled(xp, xp.concat([z[..., :-size], diagonal], axis=-1), size)


def coordinates(xp: Namespace, lower: Array, size: int) -> Array:
    """Coordinates ``(*batch, d)`` of factors L with a positive diagonal."""
    values = _entries(xp, lower, size)
    return xp.concat([values[..., :-size], xp.log(values[..., -size:])], axis=-1)


def frame(xp: Namespace, z: Array, v: Array, size: int) -> Array:
    """A, ``(*batch, n, n)``, of vectors ``v``."""
    lower = factor(xp, z, size)
    slope = _assembled(xp, xp.concat([v[..., :-size], xp.exp(z[..., -size:]) * v[..., -size:]], axis=-1), size)
    return xp.linalg.inv(lower) @ slope


def vector(xp: Namespace, z: Array, a: Array, size: int) -> Array:
    """The vector ``(*batch, d)`` with this A."""
    inner = _entries(xp, a, size)
    return xp.concat([_entries(xp, factor(xp, z, size) @ a, size)[..., :-size], inner[..., -size:]], axis=-1)


def inner(xp: Namespace, a: Array, b: Array) -> Array:
    """Inner product of two vectors by their A."""
    return 2 * (xp.sum(a * b, (-2, -1)) + xp.sum(_diagonal(xp, a) * _diagonal(xp, b), -1))


def logdet(xp: Namespace, z: Array, size: int) -> Array:
    """Log determinant of the metric, ``(*batch)``: linear in the coordinates."""
    below = xp.sum(z[..., -size:] * _range(xp, z, size), -1)
    return (size * (size - 1) / 2 + 2 * size) * math.log(2) - 2 * below


def christoffel(xp: Namespace, z: Array, v: Array, size: int) -> Array:
    """Christoffel symbols contracted with ``v`` twice: along a geodesic A' is the lower half of A^T A - A A^T."""
    a = frame(xp, z, v, size)
    bend = lower_half(xp, a.mT @ a - a @ a.mT)
    straight = _entries(xp, factor(xp, z, size) @ (a @ a + bend), size)
    return -xp.concat([straight[..., :-size], _diagonal(xp, bend)], axis=-1)


def drift(xp: Namespace, z: Array, size: int) -> Array:
    """Ito drift of Brownian motion: its acceleration in an orthonormal frame, summed."""
    axis = _range(xp, z, size)
    lower = factor(xp, z, size) * (size - 2 * axis)[..., None, :] / 8
    diagonal = (size - 1 - 2 * axis) / 8
    return xp.concat([_entries(xp, lower, size)[..., :-size], diagonal], axis=-1)


def lower_half(xp: Namespace, symmetric: Array) -> Array:
    """The lower triangular A with ``A + A^T = symmetric``."""
    return xp.tril(symmetric) - 0.5 * xp.tril(xp.triu(symmetric))


def expmap(xp: Namespace, expm: Function, z: Array, v: Array, size: int) -> Array:
    """End of the geodesic that leaves ``z`` with velocity ``v``."""
    a = frame(xp, z, v, size)
    # the Cholesky factor of exp(S) by way of its root, whose condition is the root of that of exp(S)
    upper = xp.linalg.qr(expm(0.5 * (a + a.mT)))[1]
    lower = (xp.sign(_diagonal(xp, upper))[..., None] * upper).mT
    end = coordinates(xp, lower, size)
    straight = _entries(xp, factor(xp, z, size) @ lower, size)[..., :-size]
    return xp.concat([straight, z[..., -size:] + end[..., -size:]], axis=-1)


def relative(xp: Namespace, z: Array, y: Array, size: int) -> Array:
    """The factor M of ``y`` seen from ``z``: ``L_y = L_z M``."""
    start = factor(xp, z, size)
    one = table(xp, np.eye(size), start)  # exact where the two meet
    return one + xp.linalg.inv(start) @ (factor(xp, y, size) - start)


def log_gram(xp: Namespace, expm: Function, freeze: Function, lower: Array) -> Array:
    """The symmetric logarithm S of ``M M^T``, ``(*batch, n, n)``.

    The value is that of a singular value decomposition, whose derivatives are infinite where singular values meet. The
    logarithm is smooth there: its derivatives are those of steps of Newton's method for ``exp(S) = M M^T``.
    NaN where singular values are so far apart that the small ones are rounding, as the determinant tells.

    Args:
        xp: array namespace.
        expm: the exponential of matrices.
        freeze: identity without derivatives.
        lower: M.
    """
    frozen, whole = _whole(xp, freeze(lower))
    vectors, values, _ = xp.linalg.svd(frozen)
    logs = 2 * xp.log(values)
    trace = 2 * xp.sum(xp.log(_diagonal(xp, frozen)), -1)
    resolved = whole & (xp.abs(xp.sum(logs, -1) - trace) < _RESOLVED * (1 + xp.abs(trace)))
    value = (vectors * logs[..., None, :]) @ vectors.mT
    value = xp.where(resolved[..., None, None], value, xp.full_like(value, math.nan))
    mean, half = (logs[..., :, None] + logs[..., None, :]) / 2, (logs[..., :, None] - logs[..., None, :]) / 2
    log_slope = mean + smooth.log_sinhc(xp, xp.square(half))  # of the divided differences of exp
    gram, step = lower @ lower.mT, value
    for _ in range(_ORDERS):
        change = vectors.mT @ (gram - expm(step)) @ vectors
        step = step + vectors @ (change * xp.exp(-log_slope)) @ vectors.mT
    return value + (step - freeze(step))


def log_van_vleck(xp: Namespace, symmetric: Array) -> Array:
    """``log V`` from S: ``-sum over i < j of log sinhc((s_i - s_j) / 2)`` over its eigenvalues."""
    symmetric, whole = _whole(xp, symmetric)
    values = xp.linalg.eigvalsh(symmetric)
    gaps = (values[..., :, None] - values[..., None, :]) / 2
    value = -0.5 * xp.sum(smooth.log_sinhc(xp, xp.square(gaps)), (-2, -1))
    return xp.where(whole, value, xp.full_like(value, math.nan))


def split_of_two(xp: Namespace, lower: Array) -> tuple[Array, Array]:
    """Of 2 x 2 matrices, which are R times H^2: the distance along R, and ``sinh(l/2)^2`` in H^2 of curvature -1."""
    a, b, c = lower[..., 0, 0], lower[..., 1, 0], lower[..., 1, 1]
    return math.sqrt(2) * xp.log(a * c), (xp.square(a - c) + xp.square(b)) / (4 * a * c)


def _whole(xp: Namespace, matrix: Array) -> tuple[Array, Array]:
    """The matrices with the identity in place of those that are not finite, which LAPACK refuses; and which are."""
    whole = xp.isfinite(matrix).all((-2, -1))
    return xp.where(whole[..., None, None], matrix, table(xp, np.eye(matrix.shape[-1]), matrix)), whole


def _diagonal(xp: Namespace, matrix: Array) -> Array:
    return xp.diagonal(matrix, 0, -2, -1)


def _range(xp: Namespace, like: Array, size: int) -> Array:
    return xp.cumsum(xp.ones_like(like[..., -size:]), -1) - 1
