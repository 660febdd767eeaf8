"""Clamped cubic B-splines on [0, 1], the curves of the geodesic solver, and Hessians made of small blocks."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.splines import basis as basis


@lru_cache(maxsize=64)
def _uniform_basis(num_knots: int, num_segments: int) -> Tensor:
    return torch.from_numpy(splines.uniform_basis(num_knots, num_segments))


def uniform_basis(num_knots: int, num_segments: int, like: Tensor) -> Tensor:
    """Basis at ``num_segments + 1`` equally spaced times, ``(N + 1, num_knots + 3)``."""
    return _uniform_basis(num_knots, num_segments).to(like)


@lru_cache(maxsize=64)
def _gauss_rule(num_knots: int, num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
    weights, values, slopes = splines.gauss_rule(num_knots, num_segments)
    return torch.from_numpy(weights), torch.from_numpy(values), torch.from_numpy(slopes)


def gauss_rule(num_knots: int, num_segments: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre weights ``(Q,)`` with the basis and its derivative ``(Q, num_knots + 3)`` at the nodes.

    At least ``num_segments`` nodes, the same number in each knot interval.
    """
    weights, values, slopes = _gauss_rule(num_knots, num_segments)
    return weights.to(like), values.to(like), slopes.to(like)


def line(num_knots: int, z: Tensor, y: Tensor) -> Tensor:
    """Control points of the straight line from ``z`` to ``y``: ``(P, d) -> (P, num_knots + 3, d)``."""
    t = torch.from_numpy(splines.greville(num_knots)).to(z)[:, None]
    return z.unsqueeze(-2) * (1 - t) + y.unsqueeze(-2) * t


def solve_small(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix^{-1} right`` for many small matrices."""
    if matrix.shape[-1] != 2:
        return torch.linalg.solve_ex(matrix, right).result
    # Cramer's rule: a batch of 2 x 2 systems costs three times as much by LU
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate @ right / (a * d - b * c)[..., None, None]


def chord_diagonal(start: Tensor, end: Tensor) -> Tensor:
    """Node-diagonal blocks from the two end blocks of every chord: ``(P, N, d, d) -> (P, N + 1, d, d)``."""
    pad = (0, 0, 0, 0)
    return torch.nn.functional.pad(start, (*pad, 0, 1)) + torch.nn.functional.pad(end, (*pad, 1, 0))


def contract(left: Tensor, blocks: Tensor, right: Tensor) -> Tensor:
    """``sum_n left[n, k] blocks[p, n, i, j] right[n, l]`` as a matrix ``(P, K d, L d)``: one matrix product."""
    products = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(1)  # (N, K L)
    count, _, dim, _ = blocks.shape
    dense = blocks.flatten(2).mT @ products  # (P, d d, K L)
    dense = dense.reshape(count, dim, dim, left.shape[1], right.shape[1])
    return dense.permute(0, 3, 1, 4, 2).reshape(count, left.shape[1] * dim, right.shape[1] * dim)


def assemble(table: Tensor, diagonal: Tensor, upper: Tensor | None) -> Tensor:
    """Block-tridiagonal Hessian in the nodes, rewritten for the control points."""
    hessian = contract(table, diagonal, table)
    if upper is not None:
        side = contract(table[:-1], upper, table[1:])
        hessian = hessian + side + side.mT
    return hessian
