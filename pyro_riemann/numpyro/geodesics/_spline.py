"""Clamped cubic B-splines on [0, 1], the curves of the geodesic solver, and Hessians made of small blocks.

Curves are built from differences to their start, so that one between coincident points rests exactly.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann.numpyro import _linalg

solve_small = _linalg.solve


def uniform_basis(num_knots: int, num_segments: int, like: Array) -> Array:
    """Basis at ``num_segments + 1`` equally spaced times, ``(N + 1, num_knots + 3)``."""
    return jnp.asarray(splines.uniform_basis(num_knots, num_segments), like.dtype)


def gauss_rule(num_knots: int, num_segments: int, like: Array) -> tuple[Array, Array, Array]:
    """Gauss-Legendre weights ``(Q,)`` with the basis and its derivative ``(Q, num_knots + 3)`` at the nodes.

    At least ``num_segments`` nodes, the same number in each knot interval.
    """
    weights, values, slopes = splines.gauss_rule(num_knots, num_segments)
    return jnp.asarray(weights, like.dtype), jnp.asarray(values, like.dtype), jnp.asarray(slopes, like.dtype)


def basis(num_knots: int, times: Array) -> Array:
    """Values of all basis functions at ``times`` in [0, 1], ``(T, num_knots + 3)``, by recursion in the degree."""
    knots = splines.knots(num_knots)
    interval = jnp.clip((times * num_knots).astype(jnp.int32), 0, num_knots - 1) + splines.DEGREE
    values = (interval[:, None] == np.arange(len(knots) - 1)).astype(times.dtype)
    for degree in range(1, splines.DEGREE + 1):
        low, high = knots[: -degree - 1], knots[degree + 1 :]
        rise = _slope(times, low, knots[degree:-1] - low) * values[:, :-1]
        fall = -_slope(times, high, high - knots[1:-degree]) * values[:, 1:]
        values = rise + fall
    return values


def _slope(times: Array, at: np.ndarray, width: np.ndarray) -> Array:
    """``(times - at) / width``, 0 where knots coincide."""
    safe = np.where(width > 0, width, np.inf)
    return (times[:, None] - jnp.asarray(at, times.dtype)) * jnp.asarray(1 / safe, times.dtype)


def follow(table: Array, control: Array) -> Array:
    """Points ``table @ control`` of curves ``(P, C, d)``, for a table whose rows sum to one."""
    start = control[:, :1]
    return start + table @ (control - start)


def line(num_knots: int, z: Array, y: Array) -> Array:
    """Control points of the straight line from ``z`` to ``y``: ``(P, d) -> (P, num_knots + 3, d)``."""
    t = jnp.asarray(splines.greville(num_knots), z.dtype)[:, None]
    return with_ends(z[:, None] + t[1:-1] * (y - z)[:, None], z, y)


def with_ends(interior: Array, z: Array, y: Array) -> Array:
    """Control points from the interior ones and the two ends."""
    return jnp.concatenate([z[:, None], interior, y[:, None]], axis=1)


def products(left: Array, right: Array) -> Array:
    """``left^T right`` of Jacobians ``(P, N, D, d)``: ``(P, N, d, d)``."""
    return jnp.einsum("pnai,pnaj->pnij", left, right)


def chord_diagonal(start: Array, end: Array) -> Array:
    """Node-diagonal blocks from the two end blocks of every chord: ``(P, N, d, d) -> (P, N + 1, d, d)``."""
    zero = jnp.zeros_like(start[:, :1])
    return jnp.concatenate([start, zero], 1) + jnp.concatenate([zero, end], 1)


def contract(left: Array, blocks: Array, right: Array) -> Array:
    """``sum_n left[n, k] blocks[p, n, i, j] right[n, l]`` as a matrix ``(P, K d, L d)``: one matrix product."""
    products = (left[:, :, None] * right[:, None, :]).reshape(left.shape[0], -1)  # (N, K L)
    count, nodes, dim, _ = blocks.shape
    dense = jnp.einsum("pnm,nq->pmq", blocks.reshape(count, nodes, dim * dim), products)
    dense = dense.reshape(count, dim, dim, left.shape[1], right.shape[1])
    return dense.transpose(0, 3, 1, 4, 2).reshape(count, left.shape[1] * dim, right.shape[1] * dim)


def assemble(table: Array, diagonal: Array, upper: Array | None) -> Array:
    """Block-tridiagonal Hessian in the nodes, rewritten for the control points."""
    hessian = contract(table, diagonal, table)
    if upper is not None:
        side = contract(table[:-1], upper, table[1:])
        hessian = hessian + side + side.mT
    return hessian
