r"""Integrals of radial densities over a plane chart, by the midpoint rule on a box.

On a decoder with walls geodesics focus, and rays are at a loss: a few of them have all the mass. In one and two
dimensions the chart itself can be summed over, with all distances from one centre solved at once.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.metrics import GridMetric, RiemannianMetric

# nodes an axis of table and distances: the next ones are taken until the value settles
_RESOLUTIONS = {1: (200, 400, 800), 2: (60, 120, 180, 256)}
_SETTLED = 1e-2


@torch.no_grad()
def log_chart_integral(metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM` over a box, a scalar, d <= 2.

    Distances are those of the shortest curves within the box, whatever settings the metric has for its own.

    Args:
        metric: any metric of dimension 1 or 2.
        loc: the centre, ``(d,)``, inside the box.
        variance: t, a scalar.
        low: lower corner, ``(d,)``.
        high: upper corner, ``(d,)``.

    Returns:
        The value, without gradient; its error is the difference to coarser cells, distances and, unless the metric is
        itself a table of that box, a coarser table: behind steep walls these settle last.
    """
    first, *finer = _RESOLUTIONS[metric.dim]
    fine = _midpoint(metric, loc, variance, low, high, first)
    error = torch.full_like(fine, math.inf)
    for resolution in finer:
        coarse, fine = fine, _midpoint(metric, loc, variance, low, high, resolution)
        error = (fine - coarse).abs()
        if float(error) < _SETTLED:
            break
    return Estimate(fine.to(variance), error.to(variance))


def is_table_of(metric: RiemannianMetric, low: Tensor, high: Tensor) -> TypeGuard[GridMetric]:
    """Whether the metric is a table of that very box."""
    return (
        isinstance(metric, GridMetric) and torch.equal(metric.table.low, low) and torch.equal(metric.table.high, high)
    )


def _midpoint(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor, resolution: int
) -> Tensor:
    table = metric if is_table_of(metric, low, high) else GridMetric(metric, low, high, resolution, max_error=None)
    count = 2 * resolution
    steps = (torch.arange(count, dtype=low.dtype, device=low.device) + 0.5) / count
    axes = [a + steps * (b - a) for a, b in zip(low, high, strict=True)]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, metric.dim)
    squared = table.distance_field(loc, resolution).squared_dist(nodes).double()
    cell = ((high - low).double() / count).log().sum() - 0.5 * metric.dim * (2 * math.pi * variance.double()).log()
    return (0.5 * table.logdet(nodes).double() - 0.5 * squared / variance).logsumexp(0) + cell
