"""Clamped cubic B-splines on [0, 1]: tables of the basis, in double precision, and what energies of curves share."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any, Self

import numpy as np
import scipy

from pyro_riemann._formulas import Array, Namespace

DEGREE = 3
_EVEN = 0.002  # share of time that passes evenly


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


# ---------------------------------------------------------------- energies


def pace(xp: Namespace, speed: Array, weights: Array | None = None) -> Array:
    """Time per unit of the parameter, ``(P, Q)``, of mean 1: in proportion to the speed, and never near 0."""
    mean = (speed.mean(-1) if weights is None else (speed * weights).sum(-1))[..., None]
    return (speed / xp.where(mean > 0, mean, xp.ones_like(mean)) + _EVEN) / (1 + _EVEN)


def chord_hessians(blocks: Any, table: Array, rates: Array, gram: Array, cross: Array) -> tuple[Array, Array]:
    """Tangential and stiff Hessian of ``1/2 sum rates |chord|^2``.

    Args:
        blocks: what a face makes of small blocks.
        table: the spline's basis at the nodes, ``(N + 1, C)``.
        rates: ``(P, N)`` or broadcastable.
        gram: products of the Jacobian's columns at each node, ``(P, N + 1, d, d)``.
        cross: those of each node (rows) with the next (columns), ``(P, N, d, d)``.
    """
    start, end, rate = gram[:, :-1], gram[:, 1:], rates[..., None, None]
    stiff = blocks.assemble(table, blocks.chord_diagonal(rate * start, rate * end), -rate * cross)
    # chord derivatives projected on the plane of the mean of the two Jacobians
    left, right = (start + cross) / 2, (cross.mT + end) / 2
    mean = (left + right) / 2
    solved_left, solved_right = blocks.solve_small(mean, left.mT), blocks.solve_small(mean, right.mT)
    diagonal = blocks.chord_diagonal(rate * left @ solved_left, rate * right @ solved_right)
    return blocks.assemble(table, diagonal, -rate * left @ solved_right), stiff


class Paced:
    """An energy of curves of which each may have a pace of its own."""

    xp: Namespace
    metric: Any
    guide: Array | None = None
    pace: Array | None = None  # (P, Q)
    rates: Array | None = None  # 1 / (time between two nodes), (P, N); N everywhere without a guide

    def rows(self, index: Array) -> Self:
        """The energy of some of the curves."""
        part = copy.copy(self)
        for name in ("guide", "pace", "rates"):
            if (value := getattr(self, name)) is not None:
                setattr(part, name, value[index])
        return part

    def _constant_hessian(self, points: Array, stiffness: Array) -> Array:
        """Stiffness ``(C, C)`` of the spline times the metric in the middle of every curve, ``(P, C d, C d)``."""
        middle = self.metric.metric(points[:, points.shape[1] // 2])
        size = stiffness.shape[0] * middle.shape[-1]
        return self.xp.einsum("kl,pij->pkilj", stiffness, middle).reshape(len(middle), size, size)


class Chains(Paced):
    """The energy of chains of images: of the chords between successive ones, and of those between every second."""

    num_segments: int
    richardson: bool

    def rates_of(self, images: Array) -> Array:
        return self.xp.full_like(images[:1, :1, 0], self.num_segments) if self.rates is None else self.rates

    def _chains(self, images: Array) -> list[tuple[int, Array]]:
        """(stride, weight): the energy is ``1/2 sum_stride sum weight dist(f_{i+stride}, f_i)^2``."""
        rates = self.rates_of(images)
        if not self.richardson:
            return self._plain(images)
        return [(1, 4 / 3 * rates), (2, -1 / 3 * self._halved(rates))]

    def _plain(self, images: Array) -> list[tuple[int, Array]]:
        """The same for the chords between successive images alone."""
        return [(1, self.rates_of(images))]

    def _halved(self, rates: Array) -> Array:
        """1 / (time between every second node)."""
        return rates / 2 if self.rates is None else 1 / (1 / rates).reshape(len(rates), rates.shape[1] // 2, 2).sum(-1)

    def _chain(self, images: Array, weight: Array) -> Array:
        return 0.5 * (weight * self._squares(images[:, 1:], images[:, :-1])).sum(-1)

    def _squares(self, x: Array, y: Array) -> Array:
        return ((x - y) ** 2).sum(-1)

    def of(self, images: Array) -> Array:
        """Energy ``(P,)`` of the chain of images ``(P, N + 1, D)``."""
        first, *others = (self._chain(images[:, ::stride], weight) for stride, weight in self._chains(images))
        return sum(others, first)
