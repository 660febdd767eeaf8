"""Splines through values on a grid, and all distances from one centre as such a table."""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
from torch import Tensor, nn

from pyro_riemann._formulas import spline_table
from pyro_riemann._formulas.distance_field import distance_table
from pyro_riemann._modes import full_precision_methods


class SplineTable(nn.Module):
    """Cubic spline through values on a regular grid, for points in its box.

    Evaluation gathers the 4^d coefficients around each point and contracts them with
    polynomial weights: a few large operations, differentiable in z to any order (forward or
    reverse mode, traced or not). Outside the box the value at the nearest face is kept: it is constant across.

    Args:
        values: ``(R_1, ..., R_d, F)``, at least 4 nodes an axis.
        low: lower corner, ``(d,)``.
        high: upper corner, ``(d,)``.
    """

    coefficients: Tensor  # (F, R_1 + 2, ..., R_d + 2): products with weights run along memory
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
        self.register_buffer("coefficients", prefilter(values).movedim(-1, 0).contiguous())
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())
        # Four nodes along the last axis lie side by side in memory: for each field one window is read for each of the
        # 4^(d - 1) lines of nodes around a cell.
        strides = spline_table.strides(self.resolution)
        fields = [k * self.coefficients[0].numel() for k in range(self.num_fields)]
        lines = itertools.product(fields, *([k * stride for k in range(4)] for stride in strides[:-1]))
        constants = {
            "sizes": torch.tensor(self.resolution, device="cpu"),
            "strides": torch.tensor(strides, device="cpu"),
            "corners": torch.tensor([sum(line) for line in lines], device="cpu"),
            "value_basis": self._outer(0).to(values.dtype),
            "jacobian_basis": self._outer(1).to(values.dtype),
            "hessian_basis": self._outer(2).to(values.dtype),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.clone().to(values.device), persistent=False)

    def _outer(self, order: int) -> Tensor:
        """Bases of every axis, repeated over the other axes: ``(d, 4, K 4^d)`` for the K derivatives up to ``order``.

        The weight of a node is then a plain product over the axes.
        """
        expanded = []
        for axis in range(self.dim):
            shape = [1] * axis + [4] + [1] * (self.dim - axis - 1)
            derivatives = [orders[axis] for orders in spline_table.derivative_orders(self.dim, order)]
            bases = [torch.from_numpy(spline_table.BASES[m]).reshape(4, *shape) for m in derivatives]
            expanded.append(torch.cat([basis.expand(4, *(4,) * self.dim).flatten(1) for basis in bases], dim=-1))
        return torch.stack(expanded)

    def contains(self, z: Tensor) -> Tensor:
        """Whether points lie in the box, ``(*batch)`` bool; false for NaN."""
        found: Tensor = spline_table.contains(z, self.low.to(z), self.high.to(z))
        return found

    def forward(self, z: Tensor) -> Tensor:
        """Values ``(*batch, F)`` at ``z`` ``(*batch, d)``."""
        return self._evaluate(z, self.value_basis)[..., 0]

    def with_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(*batch, F)`` and their derivatives ``(*batch, F, d)``."""
        result = self._evaluate(z, self.jacobian_basis)
        return result[..., 0], result[..., 1:] * self._rate(z)

    def with_hessian(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values ``(*batch, F)`` with first ``(*batch, F, d)`` and second ``(*batch, F, d, d)`` derivatives."""
        result, rate, first = self._evaluate(z, self.hessian_basis), self._rate(z), 1 + self.dim
        curves = result[..., first:].unflatten(-1, (self.dim, self.dim)) * (rate.mT * rate).unsqueeze(-3)
        return result[..., 0], result[..., 1:first] * rate, curves

    def _evaluate(self, z: Tensor, basis: Tensor) -> Tensor:
        """Values and derivatives in units of cells, ``(*batch, F, K)``, for the K rows of ``basis``."""
        powers, window = self._locate(z)
        return window @ self._weights(powers, basis).mT

    def _weights(self, powers: Tensor, basis: Tensor) -> Tensor:
        """Weights ``(*batch, K, 4^d)`` of the coefficients, for the K rows (value, derivatives) of ``basis``."""
        weights = powers[..., 0, :] @ basis[0].to(powers)
        for axis in range(1, self.dim):
            weights = weights * (powers[..., axis, :] @ basis[axis].to(powers))
        return weights.unflatten(-1, (-1, 4**self.dim))

    def _rate(self, z: Tensor) -> Tensor:
        """Cells that a unit of each coordinate crosses, ``(*batch, 1, d)``: none beyond the box."""
        within = (z >= self.low.to(z)) & (z <= self.high.to(z))
        return (within / self._step(z)).unsqueeze(-2)

    def _step(self, z: Tensor) -> Tensor:
        return ((self.high - self.low) / (self.sizes - 1)).to(z)

    def _locate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Powers of the position in the cell, ``(*batch, d, 4)``, and coefficients around it, ``(*batch, F, 4^d)``."""
        position = (z - self.low.to(z)) / self._step(z)
        cell = torch.minimum(position.detach().floor().long().clamp(min=0), self.sizes - 2)
        fraction = (position - cell.to(z)).clamp(0, 1)
        square = fraction * fraction
        powers = torch.stack([torch.ones_like(fraction), fraction, square, square * fraction], dim=-1)
        flat = (cell * self.strides).sum(-1, keepdim=True) + self.corners
        lines = self.coefficients.to(z).flatten().unfold(0, 4, 1)
        window = torch.nn.functional.embedding(flat, lines)
        return powers, window.flatten(-2).unflatten(-1, (self.num_fields, -1))


def prefilter(values: Tensor) -> Tensor:
    """Coefficients of :func:`~pyro_riemann._formulas.spline_table.prefilter`, as a tensor like ``values``."""
    return torch.from_numpy(spline_table.prefilter(values.detach().cpu().numpy())).to(values)


class _Tabulated(Protocol):
    """A metric on a box."""

    dim: int
    table: SplineTable


@full_precision_methods
class DistanceField(nn.Module):
    r"""Geodesic distances from a fixed centre to every point of a box.

    The squared distance is kept as a cubic spline, so a value and its gradient in ``z`` cost
    one table look-up. Built by :meth:`GridMetric.distance_field`. Distances are those of
    the shortest curve inside the box, and globally shortest: no start has to be guessed. At the cut
    locus, where the distance has a kink, the spline rounds it off over a cell or two.

    Args:
        metric: a tabulated metric.
        loc: the centre, ``(d,)``, inside its box.
        resolution: nodes an axis.
        max_sweeps: limit of the refinement.
        tolerance: it stops once no value moves by more than this share of the largest.
        horizon: distances beyond it are left as the shortest paths on the grid give them.

    Attributes:
        loc: the centre, ``(d,)``; the field is not differentiable in it.
        eikonal_error: median of :math:`\bigl| |\nabla u|_{G^{-1}} - 1 \bigr|` at the centres of the cells
            within the horizon.
        num_sweeps: sweeps that the refinement took.

    Source: Sethian (1999), *Level Set Methods and Fast Marching Methods*; Dijkstra (1959), *A note on two
    problems in connexion with graphs*.

    Example:
        >>> field = GridMetric(EuclideanMetric(2), -1.0, 1.0, 8).distance_field(torch.zeros(2))
        >>> round(field(torch.tensor([0.6, 0.8])).item(), 3)
        1.0
    """

    loc: Tensor
    eikonal_error: Tensor

    def __init__(
        self,
        metric: _Tabulated,
        loc: Tensor,
        resolution: tuple[int, ...],
        max_sweeps: int,
        tolerance: float,
        horizon: float = math.inf,
    ) -> None:
        super().__init__()
        self.dim = metric.dim
        low, high = metric.table.low, metric.table.high
        table = [tensor.detach().cpu().numpy() for tensor in (metric.table.coefficients.movedim(0, -1), low, high)]
        found = distance_table(table, loc.detach().cpu().numpy(), resolution, max_sweeps, tolerance, horizon)
        self.num_sweeps = found.num_sweeps
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("eikonal_error", loc.new_tensor(found.eikonal_error))
        squared = torch.as_tensor(found.squared, device=loc.device)
        self.table = SplineTable(squared, low.detach().double(), high.detach().double()).to(loc)

    def squared_dist(self, z: Tensor) -> Tensor:
        """Squared geodesic distance of ``z``, ``(*batch, d)``, to the centre; shape ``(*batch)``.

        Points outside the box are moved to its face.
        """
        return (self.table(z)[..., 0] - self.table(self.loc.to(z))[..., 0]).clamp(min=0)

    def dist(self, z: Tensor) -> Tensor:
        """Geodesic distance of ``z`` to the centre, ``(*batch)``; gradient 0 at the centre."""
        squared = self.squared_dist(z)
        positive = squared > 0
        return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)

    def forward(self, z: Tensor) -> Tensor:
        """The same as :meth:`dist`, ``(*batch)`` at ``z``."""
        return self.dist(z)

    def extra_repr(self) -> str:
        return f"loc={[round(x, 4) for x in self.loc.tolist()]}, eikonal_error={self.eikonal_error.item():.1e}"
