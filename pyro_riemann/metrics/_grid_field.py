"""All distances from one centre at once: shortest paths on a grid, refined along characteristics."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from pyro_riemann._formulas.distance_field import distance_table
from pyro_riemann._modes import full_precision_methods
from pyro_riemann.metrics._spline_table import SplineTable


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
