"""A metric that looks up its distances from one centre: what a prior with one centre asks for, thousands of times."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.metrics import GridMetric, RiemannianMetric


class CentredMetric(RiemannianMetric):
    """A :class:`GridMetric` whose distances from ``loc`` come from its distance field.

    Every distance is asked for from that centre, as a heat kernel does; points outside the box are taken to its face.
    The field holds globally shortest distances, so that the density of a prior and its mass, both read from it,
    belong to one and the same function.

    Args:
        grid: the tabulated metric.
        loc: the centre ``(d,)``.
        resolution: nodes an axis of the field.

    Example:
        >>> from pyro_riemann import EuclideanMetric, GridMetric
        >>> metric = CentredMetric(GridMetric(EuclideanMetric(2), -1.0, 1.0, 20), torch.zeros(2), resolution=20)
        >>> round(metric.dist(torch.zeros(2), torch.tensor([0.6, 0.8])).item(), 3)
        1.0
    """

    def __init__(self, grid: GridMetric, loc: Tensor, resolution: int) -> None:
        super().__init__()
        self.dim, self.solver = grid.dim, grid.solver
        self.grid = grid
        self.field = grid.distance_field(loc.detach(), resolution)

    def metric(self, z: Tensor) -> Tensor:
        return self.grid.metric(z)

    def logdet(self, z: Tensor) -> Tensor:
        return 2 * self.grid.table(z)[..., : self.dim].sum(-1)  # the table holds the log-diagonal of a Cholesky factor

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.field.squared_dist(y).expand(torch.broadcast_shapes(z.shape[:-1], y.shape[:-1]))


def tabulated_prior(grid: GridMetric, loc: Tensor, time: Tensor, resolution: int) -> RiemannianHeatKernel:
    """The heat-kernel prior with its distances tabulated, without gradients in its own parameters."""
    return RiemannianHeatKernel(loc.detach(), time.detach(), CentredMetric(grid, loc, resolution))


@torch.no_grad()
def density_mass(density: dist.TorchDistribution, low: Tensor, high: Tensor, resolution: int = 400) -> Estimate:
    """Mass of a two-dimensional density on a box, by the midpoint rule on ``resolution**2`` cells.

    The error is the difference to half as many cells an axis.
    """

    def midpoint(count: int) -> Tensor:
        steps = (torch.arange(count, dtype=low.dtype, device=low.device) + 0.5) / count
        first, second = (low[axis] + steps * (high[axis] - low[axis]) for axis in (0, 1))
        nodes = torch.stack(torch.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
        values = torch.cat([density.log_prob(rows).double() for rows in nodes.split(20_000)])
        return values.exp().sum() * (high - low).double().prod() / count**2

    fine = midpoint(resolution)
    return Estimate(fine, (fine - midpoint(resolution // 2)).abs())
