"""Factors of many small positive definite matrices.

A call of LAPACK a matrix is dear for the 2 by 2 systems of a latent space: up to ``UNROLLED`` dimensions the
elimination is written out over the batch. Where a matrix is not positive definite, factors and solutions are NaN
or infinite; nothing is raised.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

UNROLLED = 4


def cholesky(matrix: Array) -> Array:
    """Lower Cholesky factor L, ``matrix = L L^T``, of ``(*batch, d, d)``."""
    dim = matrix.shape[-1]
    if dim > UNROLLED:
        return jnp.linalg.cholesky(matrix)
    zero = jnp.zeros_like(matrix[..., 0, 0])
    rows: list[list[Array]] = []
    for i in range(dim):
        row: list[Array] = []
        for j in range(i):
            rest = matrix[..., i, j] - sum((row[k] * rows[j][k] for k in range(j)), zero)
            row.append(rest / rows[j][j])
        row.append(jnp.sqrt(matrix[..., i, i] - sum((entry * entry for entry in row), zero)))
        rows.append(row)
    return jnp.stack([jnp.stack(row + [zero] * (dim - len(row)), -1) for row in rows], -2)


def solve_lower(factor: Array, right: Array) -> Array:
    """``L^{-1} right`` for a lower factor ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
    if (dim := factor.shape[-1]) > UNROLLED:
        return _triangular(factor, right, transpose=False)
    solved: list[Array] = []
    for i in range(dim):
        rest = right[..., i]
        for j in range(i):
            rest = rest - factor[..., i, j] * solved[j]
        solved.append(rest / factor[..., i, i])
    return jnp.stack(solved, -1)


def solve_upper(factor: Array, right: Array) -> Array:
    """``L^{-T} right`` for a lower factor ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
    if (dim := factor.shape[-1]) > UNROLLED:
        return _triangular(factor, right, transpose=True)
    solved: dict[int, Array] = {}
    for i in reversed(range(dim)):
        rest = right[..., i]
        for j in range(i + 1, dim):
            rest = rest - factor[..., j, i] * solved[j]
        solved[i] = rest / factor[..., i, i]
    return jnp.stack([solved[i] for i in range(dim)], -1)


def solve(matrix: Array, right: Array) -> Array:
    """``matrix^{-1} right`` for symmetric positive definite ``(*batch, d, d)`` and ``(*batch, d, k)``."""
    if matrix.shape[-1] > UNROLLED:
        return jnp.linalg.solve(matrix, right)
    factor = cholesky(matrix)[..., None, :, :]  # one system for every column
    return solve_upper(factor, solve_lower(factor, right.mT)).mT


def solve_vector(matrix: Array, right: Array) -> Array:
    """``matrix^{-1} right`` for ``(*batch, d, d)`` and ``(*batch, d)``."""
    return solve(matrix, right[..., None])[..., 0]


def _triangular(factor: Array, right: Array, transpose: bool) -> Array:
    shape = jnp.broadcast_shapes(factor.shape[:-2], right.shape[:-1])
    factor = jnp.broadcast_to(factor, (*shape, *factor.shape[-2:]))
    right = jnp.broadcast_to(right, (*shape, right.shape[-1]))[..., None]
    return jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True, transpose_a=transpose)[..., 0]
