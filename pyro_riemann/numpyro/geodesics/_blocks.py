"""Products of Jacobians, and Hessians made of small blocks."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


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
