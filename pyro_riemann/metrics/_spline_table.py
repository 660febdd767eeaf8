"""Tensor-product cubic B-splines on a box: C^2 interpolation of tabulated values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

# Row p holds the coefficients of f^p in the four basis functions that live on a cell, f in [0, 1] the
# position in it; below, in their derivatives with respect to f.
_BASIS = torch.tensor([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=torch.float64) / 6


def _differentiated(basis: Tensor) -> Tensor:
    factors = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    return torch.cat([basis[1:] * factors, torch.zeros(1, 4, dtype=torch.float64)])


_SLOPE = _differentiated(_BASIS)
_CURVE = _differentiated(_SLOPE)


class SplineTable(nn.Module):
    """Cubic spline through values on a regular grid, for points in its box.

    Evaluation gathers the 4^d coefficients around each point and contracts them with
    polynomial weights: a few large operations, differentiable in z to any order (forward or
    reverse mode, traced or not). Outside the box the value at the nearest face is kept.

    Args:
        values: ``(R_1, ..., R_d, F)``, at least 4 nodes an axis.
        low: lower corner, ``(d,)``.
        high: upper corner, ``(d,)``.
    """

    coefficients: Tensor
    low: Tensor
    high: Tensor
    sizes: Tensor
    strides: Tensor
    corners: Tensor
    value_basis: Tensor
    jacobian_basis: Tensor
    hessian_basis: Tensor

    def __init__(self, values: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.dim, self.num_fields = values.dim() - 1, values.shape[-1]
        self.resolution = tuple(values.shape[:-1])
        self.register_buffer("coefficients", prefilter(values))
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())
        # Four nodes along the last axis lie side by side in memory: one window is read for each of the
        # 4^(d - 1) lines of nodes around a cell.
        strides = [math.prod(r + 2 for r in self.resolution[axis + 1 :]) for axis in range(self.dim)]
        lines = itertools.product(*([k * stride for k in range(4)] for stride in strides[:-1]))
        slopes = [[_BASIS, *(_SLOPE if row == axis else _BASIS for row in range(self.dim))] for axis in range(self.dim)]
        pairs = [(j, k) for j in range(self.dim) for k in range(self.dim)]
        orders = (_BASIS, _SLOPE, _CURVE)
        curves = [[orders[(j == axis) + (k == axis)] for j, k in pairs] for axis in range(self.dim)]
        constants = {
            "sizes": torch.tensor(self.resolution),
            "strides": torch.tensor(strides),
            "corners": torch.tensor([sum(line) for line in lines]),
            "value_basis": self._outer([[_BASIS]] * self.dim).to(values.dtype),
            "jacobian_basis": self._outer(slopes).to(values.dtype),
            "hessian_basis": self._outer([slopes[axis] + curves[axis] for axis in range(self.dim)]).to(values.dtype),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.clone().to(values.device), persistent=False)

    def _outer(self, rows: list[list[Tensor]]) -> Tensor:
        """Bases of every axis, repeated over the other axes: ``(d, 4, K 4^d)`` for K rows an axis.

        The weight of a node is then a plain product over the axes.
        """
        expanded = []
        for axis, bases in enumerate(rows):
            shape = [1] * axis + [4] + [1] * (self.dim - axis - 1)
            full = [basis.reshape(4, *shape).expand(4, *(4,) * self.dim).flatten(1) for basis in bases]
            expanded.append(torch.cat(full, dim=-1))
        return torch.stack(expanded)

    def refill(self, values: Tensor) -> None:
        """Replace the tabulated values, on the same grid."""
        self.coefficients.copy_(prefilter(values))

    def contains(self, z: Tensor) -> Tensor:
        """Whether points lie in the box, ``(*batch)`` bool; false for NaN."""
        return ((z >= self.low.to(z)) & (z <= self.high.to(z))).all(-1)

    def forward(self, z: Tensor) -> Tensor:
        """Values ``(*batch, F)`` at ``z`` ``(*batch, d)``."""
        powers, window = self._locate(z)
        return (self._weights(powers, self.value_basis) @ window).squeeze(-2)

    def with_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(*batch, F)`` and their derivatives ``(*batch, F, d)``."""
        powers, window = self._locate(z)
        result = self._weights(powers, self.jacobian_basis) @ window
        return result[..., 0, :], (result[..., 1:, :] / self._step(z).unsqueeze(-1)).mT

    def with_hessian(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values ``(*batch, F)`` with first ``(*batch, F, d)`` and second ``(*batch, F, d, d)`` derivatives."""
        powers, window = self._locate(z)
        result = self._weights(powers, self.hessian_basis) @ window
        step, first = self._step(z), 1 + self.dim
        slopes = (result[..., 1:first, :] / step.unsqueeze(-1)).mT
        curves = result[..., first:, :].mT.unflatten(-1, (self.dim, self.dim)) / (step.unsqueeze(-1) * step)
        return result[..., 0, :], slopes, curves

    def _weights(self, powers: Tensor, basis: Tensor) -> Tensor:
        """Weights ``(*batch, K, 4^d)`` of the coefficients, for the K rows (value, derivatives) of ``basis``."""
        weights = powers[..., 0, :] @ basis[0].to(powers)
        for axis in range(1, self.dim):
            weights = weights * (powers[..., axis, :] @ basis[axis].to(powers))
        return weights.unflatten(-1, (-1, 4**self.dim))

    def _step(self, z: Tensor) -> Tensor:
        return ((self.high - self.low) / (self.sizes - 1)).to(z)

    def _locate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Powers of the position in the cell, ``(*batch, d, 4)``, and coefficients around it, ``(*batch, 4^d, F)``."""
        position = (z - self.low.to(z)) / self._step(z)
        cell = torch.minimum(position.detach().floor().long().clamp(min=0), self.sizes - 2)
        fraction = (position - cell.to(z)).clamp(0, 1)
        square = fraction * fraction
        powers = torch.stack([torch.ones_like(fraction), fraction, square, square * fraction], dim=-1)
        flat = (cell * self.strides).sum(-1, keepdim=True) + self.corners
        lines = self.coefficients.to(z).flatten().unfold(0, 4 * self.num_fields, self.num_fields)
        window = torch.nn.functional.embedding(flat, lines)
        return powers, window.flatten(-2).unflatten(-1, (-1, self.num_fields))


def prefilter(values: Tensor) -> Tensor:
    """B-spline coefficients ``(R_1 + 2, ..., R_d + 2, F)`` whose spline takes the values at the nodes.

    Not-a-knot at the faces, so that the order of accuracy is 4 up to the boundary.
    """
    result = values.detach().double().cpu().numpy()
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
    return torch.as_tensor(np.ascontiguousarray(result)).to(values)
