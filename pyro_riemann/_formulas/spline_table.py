"""Tensor-product cubic B-splines through values on a regular grid: coefficients, and their evaluation.

Points are ``(*batch, d)``; a table of F fields with R_1 x ... x R_d nodes has the coefficients
``(R_1 + 2, ..., R_d + 2, F)``. ``BASES[m]`` are the m-th derivatives of the four basis functions that live on a cell:
row p holds the coefficients of ``f^p``, f in [0, 1] the position in it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy

from pyro_riemann._formulas import Array, Namespace


def _bases() -> tuple[Array, Array, Array]:
    value = np.array([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]) / 6
    slope = np.concatenate([value[1:] * [[1], [2], [3]], np.zeros((1, 4))])
    curve = np.concatenate([slope[1:] * [[1], [2], [3]], np.zeros((1, 4))])
    return value, slope, curve


BASES = _bases()


def strides(resolution: tuple[int, ...]) -> list[int]:
    """Steps between neighbouring coefficients along each axis, once the axes are flattened."""
    return [math.prod(r + 2 for r in resolution[axis + 1 :]) for axis in range(len(resolution))]


def derivative_orders(dim: int, order: int) -> list[tuple[int, ...]]:
    """Orders of differentiation along each axis: of the value, then (order 1) d slopes, then (order 2) d^2 curves."""
    unit = [tuple(int(axis == row) for axis in range(dim)) for row in range(dim)]
    orders = [(0,) * dim]
    if order > 0:
        orders += unit
    if order > 1:
        orders += [tuple(a + b for a, b in zip(j, k, strict=True)) for j in unit for k in unit]
    return orders


def prefilter(values: Array) -> Array:
    """B-spline coefficients ``(R_1 + 2, ..., R_d + 2, F)`` whose spline takes the values at the nodes.

    Not-a-knot at the faces, so that the order of accuracy is 4 up to the boundary.
    """
    result = values.astype(np.float64)
    for axis in range(result.ndim - 1):
        lines = np.moveaxis(result, axis, 0)
        size = lines.shape[0]
        bands = np.zeros((9, size + 2))  # entry (4 + i - j, j) is the matrix entry (i, j)
        for offset, entry in enumerate((1 / 6, 4 / 6, 1 / 6)):  # row i + 1: the value at node i
            bands[5 - offset, offset : offset + size] = entry
        for row, first in ((0, 0), (size + 1, size - 3)):  # equal third derivatives across the outer knots
            for offset, entry in enumerate((1.0, -4.0, 6.0, -4.0, 1.0)):
                column = first + offset
                bands[4 + row - column, column] = entry
        right = np.zeros((size + 2, lines[0].size))
        right[1:-1] = lines.reshape(size, -1)
        solved = scipy.linalg.solve_banded((4, 4), bands, right, check_finite=False)
        result = np.moveaxis(solved.reshape(size + 2, *lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(result)


def step(xp: Namespace, low: Array, high: Array, resolution: tuple[int, ...]) -> Array:
    """Distance of two nodes along each axis, ``(d,)``."""
    return (high - low) / xp.asarray([r - 1.0 for r in resolution], dtype=low.dtype)


def contains(z: Array, low: Array, high: Array) -> Array:
    """Whether points lie in the box, ``(*batch)`` bool; false for NaN."""
    return ((z >= low) & (z <= high)).all(-1)


def look_up(xp: Namespace, coefficients: Array, low: Array, high: Array, z: Array, order: int = 0) -> tuple[Array, ...]:
    """Values ``(*batch, F)``, with ``order`` 1 slopes ``(*batch, F, d)``, with 2 curves ``(*batch, F, d, d)``.

    For ``numpy`` and ``jax.numpy``. Outside the box the value at the nearest face is kept: it is constant across.
    """
    dim, fields = coefficients.ndim - 1, coefficients.shape[-1]
    resolution = tuple(size - 2 for size in coefficients.shape[:-1])
    width = step(xp, low, high, resolution)
    position = (z - low) / width
    last = np.array([r - 2 for r in resolution])
    # NaN has no cell: any will do, since the fraction carries it on
    cell = xp.clip(xp.nan_to_num(xp.floor(position)), 0, xp.asarray(last, dtype=z.dtype)).astype(int)
    fraction = xp.clip(position - cell.astype(z.dtype), 0, 1)
    square = fraction * fraction
    powers = xp.stack([xp.ones_like(fraction), fraction, square, square * fraction], -1)
    weights = [
        [powers[..., axis, :] @ xp.asarray(BASES[m], dtype=z.dtype) for m in range(order + 1)] for axis in range(dim)
    ]
    jumps = strides(resolution)
    offsets = np.array([sum(line) for line in itertools.product(*([k * jump for k in range(4)] for jump in jumps))])
    flat = (cell * np.array(jumps)).sum(-1)[..., None] + offsets
    lines = coefficients.reshape(-1, fields).astype(z.dtype)
    window = xp.take(lines, flat, axis=0, mode="clip")  # (*batch, 4^d, F)
    rows = []
    for orders in derivative_orders(dim, order):
        row = weights[0][orders[0]]
        for axis in range(1, dim):
            row = (row[..., :, None] * weights[axis][orders[axis]][..., None, :]).reshape(*z.shape[:-1], -1)
        rows.append(xp.einsum("...c,...cf->...f", row, window))
    result = xp.stack(rows, -2)
    found = [result[..., 0, :]]
    rate = (((z >= low) & (z <= high)) / width)[..., None, :]  # cells that a unit crosses: none beyond the box
    if order > 0:
        found.append(xp.swapaxes(result[..., 1 : dim + 1, :], -1, -2) * rate)
    if order > 1:
        curves = xp.swapaxes(result[..., dim + 1 :, :], -1, -2).reshape(*z.shape[:-1], fields, dim, dim)
        found.append(curves * (xp.swapaxes(rate, -1, -2) * rate)[..., None, :, :])
    return tuple(found)
