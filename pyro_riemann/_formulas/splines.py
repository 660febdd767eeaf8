"""Clamped cubic B-splines on [0, 1]: tables of the basis, in double precision."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy

DEGREE = 3


def num_coefficients(num_knots: int) -> int:
    """Number of control points of a spline with ``num_knots`` knot intervals."""
    return num_knots + DEGREE


@lru_cache(maxsize=32)
def knots(num_knots: int) -> np.ndarray:
    """Knots with the ends repeated, ``(num_knots + 7,)``."""
    return np.concatenate([np.zeros(DEGREE), np.linspace(0.0, 1.0, num_knots + 1), np.ones(DEGREE)])


@lru_cache(maxsize=32)
def greville(num_knots: int) -> np.ndarray:
    """Parameters at which equal control points and curve make a straight line run at constant speed."""
    t = knots(num_knots)
    return np.stack([t[1 + k : 1 + k + num_knots + DEGREE] for k in range(DEGREE)]).mean(0)


def basis(num_knots: int, times: np.ndarray, order: int = 0) -> np.ndarray:
    """Values (or derivatives of the given order) of all basis functions at ``times``: ``(T, num_knots + 3)``."""
    spline = scipy.interpolate.BSpline(knots(num_knots), np.eye(num_coefficients(num_knots)), DEGREE)
    return spline(np.asarray(times, dtype=np.float64), nu=order)


@lru_cache(maxsize=64)
def uniform_basis(num_knots: int, num_segments: int) -> np.ndarray:
    """Basis at ``num_segments + 1`` equally spaced times, ``(N + 1, num_knots + 3)``."""
    return basis(num_knots, np.linspace(0.0, 1.0, num_segments + 1))


@lru_cache(maxsize=64)
def gauss_rule(num_knots: int, num_segments: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Legendre weights ``(Q,)`` with the basis and its derivative ``(Q, num_knots + 3)`` at the nodes.

    At least ``num_segments`` nodes, the same number in each knot interval.
    """
    per_knot = max(2, -(-num_segments // num_knots))
    nodes, weights = np.polynomial.legendre.leggauss(per_knot)
    times = ((np.arange(num_knots)[:, None] + (nodes + 1) / 2) / num_knots).reshape(-1)
    weights = np.tile(weights / 2 / num_knots, num_knots)
    return weights, np.ascontiguousarray(basis(num_knots, times)), np.ascontiguousarray(basis(num_knots, times, 1))


@lru_cache(maxsize=64)
def fit_matrix(num_knots: int, num_points: int) -> np.ndarray:
    """Least squares for the interior control points, ``(num_knots + 1, T + 2)``.

    It acts on ``T`` equally timed points followed by the first and the last of them once more, which are kept.
    """
    values = basis(num_knots, np.linspace(0.0, 1.0, num_points))
    interior = values[:, 1:-1]
    # the tiny ridge on second differences keeps the system regular when points are few
    bending = np.diff(np.eye(num_coefficients(num_knots)), 2, axis=0)
    normal = interior.T @ interior + 1e-6 * bending[:, 1:-1].T @ bending[:, 1:-1]
    ends = -(interior.T @ values[:, [0, -1]] + 1e-6 * bending[:, 1:-1].T @ bending[:, [0, -1]])
    return np.linalg.solve(normal, np.concatenate([interior.T, ends], axis=1))


@lru_cache(maxsize=64)
def bubbles(num_knots: int, num_segments: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights ``(Q,)`` of :func:`gauss_rule`, and at its nodes a bubble on each knot interval with its derivative.

    ``16 u^2 (1 - u)^2`` for u from 0 to 1 across the interval: the leading error of a cubic spline.
    """
    per_knot = max(2, -(-num_segments // num_knots))
    u = (np.polynomial.legendre.leggauss(per_knot)[0] + 1) / 2
    value, slope = 16 * (u * (1 - u)) ** 2, 32 * u * (1 - u) * (1 - 2 * u) * num_knots
    return gauss_rule(num_knots, num_segments)[0], np.tile(value, num_knots), np.tile(slope, num_knots)


@lru_cache(maxsize=32)
def refinement(num_knots: int, finer: int) -> np.ndarray:
    """Matrix ``(finer + 3, num_knots + 3)`` to the control points of the same spline on a multiple of the intervals."""
    times = np.linspace(0.0, 1.0, 8 * finer + 1)
    return np.linalg.lstsq(basis(finer, times), basis(num_knots, times), rcond=None)[0]
