"""Clamped cubic B-splines on [0, 1]: the curves of the geodesic solver."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor

DEGREE = 3


@lru_cache(maxsize=32)
def _knots(num_knots: int) -> np.ndarray:
    return np.concatenate([np.zeros(DEGREE), np.linspace(0.0, 1.0, num_knots + 1), np.ones(DEGREE)])


def num_coefficients(num_knots: int) -> int:
    """Number of control points of a spline with ``num_knots`` knot intervals."""
    return num_knots + DEGREE


@lru_cache(maxsize=32)
def greville(num_knots: int) -> np.ndarray:
    """Parameters at which equal control points and curve make a straight line run at constant speed."""
    knots = _knots(num_knots)
    return np.stack([knots[1 + k : 1 + k + num_knots + DEGREE] for k in range(DEGREE)]).mean(0)


def basis(num_knots: int, times: np.ndarray, order: int = 0) -> np.ndarray:
    """Values (or derivatives of the given order) of all basis functions at ``times``: ``(T, num_knots + 3)``."""
    spline = BSpline(_knots(num_knots), np.eye(num_coefficients(num_knots)), DEGREE)
    return spline(np.asarray(times, dtype=np.float64), nu=order)


@lru_cache(maxsize=64)
def _uniform_basis(num_knots: int, num_segments: int) -> Tensor:
    return torch.from_numpy(basis(num_knots, np.linspace(0.0, 1.0, num_segments + 1)))


def uniform_basis(num_knots: int, num_segments: int, like: Tensor) -> Tensor:
    """Basis at ``num_segments + 1`` equally spaced times, ``(N + 1, num_knots + 3)``."""
    return _uniform_basis(num_knots, num_segments).to(like)


@lru_cache(maxsize=64)
def _gauss_rule(num_knots: int, num_segments: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    per_knot = max(2, -(-num_segments // num_knots))
    nodes, weights = np.polynomial.legendre.leggauss(per_knot)
    times = ((np.arange(num_knots)[:, None] + (nodes + 1) / 2) / num_knots).reshape(-1)
    weights = np.tile(weights / 2 / num_knots, num_knots)
    tables = (times, weights, basis(num_knots, times), basis(num_knots, times, order=1))
    return tuple(torch.from_numpy(np.ascontiguousarray(table)) for table in tables)  # type: ignore[return-value]


def gauss_rule(num_knots: int, num_segments: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre weights ``(Q,)`` with the basis and its derivative ``(Q, num_knots + 3)`` at the nodes.

    At least ``num_segments`` nodes, the same number in each knot interval.
    """
    _, weights, values, slopes = _gauss_rule(num_knots, num_segments)
    return weights.to(like), values.to(like), slopes.to(like)


def line(num_knots: int, z: Tensor, y: Tensor) -> Tensor:
    """Control points of the straight line from ``z`` to ``y``: ``(P, d) -> (P, num_knots + 3, d)``."""
    t = torch.from_numpy(greville(num_knots)).to(z)[:, None]
    return z.unsqueeze(-2) * (1 - t) + y.unsqueeze(-2) * t


@lru_cache(maxsize=64)
def _fit_matrix(num_knots: int, num_points: int) -> np.ndarray:
    values = basis(num_knots, np.linspace(0.0, 1.0, num_points))
    interior = values[:, 1:-1]
    # the tiny ridge on second differences keeps the system regular when points are few
    bending = np.diff(np.eye(num_coefficients(num_knots)), 2, axis=0)
    normal = interior.T @ interior + 1e-6 * bending[:, 1:-1].T @ bending[:, 1:-1]
    ends = -(interior.T @ values[:, [0, -1]] + 1e-6 * bending[:, 1:-1].T @ bending[:, [0, -1]])
    return np.linalg.solve(normal, np.concatenate([interior.T, ends], axis=1))


def fit(num_knots: int, points: Tensor) -> Tensor:
    """Control points of the spline that follows ``(T, P, d)`` equally timed points and keeps the two ends."""
    matrix = torch.from_numpy(_fit_matrix(num_knots, points.shape[0])).to(points)
    interior = torch.einsum("kt,tpd->pkd", matrix, torch.cat([points, points[:1], points[-1:]]))
    return torch.cat([points[0].unsqueeze(1), interior, points[-1].unsqueeze(1)], dim=1)
