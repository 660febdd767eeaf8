"""A metric that looks up its distances from one centre: what a prior with one centre asks for, thousands of times."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.metrics import GridMetric, RiemannianMetric


class CentredMetric(RiemannianMetric):
    """A :class:`GridMetric` whose distances from ``loc`` come from its distance field.

    Every distance is asked for from that centre, as a heat kernel does; points outside the box are taken to its face.
    The field holds globally shortest distances, those of the prior's mass
    (:meth:`~pyro_riemann.RiemannianHeatKernel.log_normalizer`).

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

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.metric_jacobian(z)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return self.grid.christoffel(z, v)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.field.squared_dist(y).expand(torch.broadcast_shapes(z.shape[:-1], y.shape[:-1]))


def tabulated_prior(grid: GridMetric, loc: Tensor, time: Tensor, resolution: int) -> RiemannianHeatKernel:
    """The heat-kernel prior with its distances tabulated, without gradients in its own parameters."""
    return RiemannianHeatKernel(loc.detach(), time.detach(), CentredMetric(grid, loc, resolution))
