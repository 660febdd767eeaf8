"""Integrals of radial densities by sums over a plane chart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.chart_sum import Cells, Chart, ChartSum, Vector, box_of_rays, summed
from pyro_riemann._memo import remember
from pyro_riemann.metrics import RiemannianMetric


def chart_of(metric: RiemannianMetric, like: Tensor) -> Chart:
    """The metric at points of the dtype and device of ``like``."""
    return Chart(metric, lambda z: torch.from_numpy(z).to(like), to_host)


def to_host(values: Tensor) -> Vector:
    """Values in doubles of NumPy."""
    return np.asarray(values.detach().double().cpu())


@torch.no_grad()
def sum_over_chart(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, points: Tensor, weights: Tensor
) -> ChartSum:
    r"""Log of :math:`(2 \pi t)^{-1} \int e^{-\ell^2(\mu, z) / 2t}\,dM` over a plane.

    Args:
        metric: any metric of dimension 2.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
        points: nodes of rays from the centre, ``(n, d)``, which say how large a box must be.
        weights: their shares of the mass, ``(n,)``.
    """

    def compute() -> tuple[ChartSum, Tensor]:
        chart = chart_of(metric, loc)
        box = box_of_rays(chart, to_host(points), to_host(weights))
        return summed(chart, to_host(loc), float(variance), *box), points[weights > 0]

    return remember(metric, "chart", (), (loc, variance), compute)


def slope_of_sum(metric: RiemannianMetric, loc: Tensor, variance: Tensor, cells: Cells) -> Tensor:
    """A scalar whose derivative in loc, variance and metric is that of the log integral.

    In the variance by all cells, in the others by points that stand for them.
    """
    value = -0.5 * cells.mean_squared / variance - 0.5 * metric.dim * variance.log()
    if loc.requires_grad or metric.metric(loc.detach()).requires_grad:
        z = torch.from_numpy(cells.spread()).to(loc)
        squared = metric.squared_dist(loc.expand_as(z), z)
        value = value + densities.short_time(torch, metric.dim, variance.detach(), squared, metric.logdet(z)).mean()
    return value
