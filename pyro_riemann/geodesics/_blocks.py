"""Many small linear systems, and Hessians made of small blocks."""

from __future__ import annotations

import torch
from torch import Tensor


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
