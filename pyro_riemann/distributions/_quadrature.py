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
_SHARE = 1e-3  # of the mass in the outermost tenth of the box above which it is enlarged
_GROWTH = 0.5  # by that share of its width
_ENLARGEMENTS = 5


@torch.no_grad()
def log_chart_integral(metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM`, a scalar, d <= 2.

    Distances are those of the shortest curves, whatever settings the metric has for its own.

    Args:
        metric: any metric of dimension 1 or 2.
        loc: the centre, ``(d,)``, inside the box.
        variance: t, a scalar.
        low: lower corner ``(d,)`` of a box that is thought to hold the mass; it is enlarged where it does not.
        high: upper corner, ``(d,)``.

    Returns:
        The value, without gradient; its error is the difference to coarser cells, distances and, unless the metric is
        itself a table of that box, a coarser table, since behind steep walls these settle last; and the share of the
        outermost tenth of the box, for what lies beyond.
    """
    best: Estimate | None = None
    for _ in range(_ENLARGEMENTS):
        value, error, shell = _settled(metric, loc, variance, low, high)
        found = Estimate(value, error + shell.sum())
        if best is not None and bool(found.standard_error > best.standard_error):  # cells that are too large
            break
        best = found
        if not bool((shell > _SHARE).any()) or (isinstance(metric, GridMetric) and metric.base is None):
            break
        more = torch.where(shell > _SHARE, 0.5 * _GROWTH * (high - low), torch.zeros_like(low))
        low, high = low - more, high + more
    assert best is not None
    return Estimate(best.value.to(variance), best.standard_error.to(variance))


def _settled(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log of the integral over the box, its error, and the shares ``(d,)`` of the outermost tenth on each axis."""
    first, *finer = _RESOLUTIONS[metric.dim]
    fine, shell = _midpoint(metric, loc, variance, low, high, first)
    error = torch.full_like(fine, math.inf)
    for resolution in finer:
        coarse = fine
        fine, shell = _midpoint(metric, loc, variance, low, high, resolution)
        error = (fine - coarse).abs()
        if float(error) < _SETTLED:
            break
    return fine, error, shell


def is_table_of(metric: RiemannianMetric, low: Tensor, high: Tensor) -> TypeGuard[GridMetric]:
    """Whether the metric is a table of that very box."""
    return (
        isinstance(metric, GridMetric) and torch.equal(metric.table.low, low) and torch.equal(metric.table.high, high)
    )


def _midpoint(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    table = metric if is_table_of(metric, low, high) else GridMetric(metric, low, high, resolution, max_error=None)
    count = 2 * resolution
    steps = (torch.arange(count, dtype=low.dtype, device=low.device) + 0.5) / count
    axes = [a + steps * (b - a) for a, b in zip(low, high, strict=True)]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, metric.dim)
    squared = table.distance_field(loc, resolution).squared_dist(nodes).double()
    cell = ((high - low).double() / count).log().sum() - 0.5 * metric.dim * (2 * math.pi * variance.double()).log()
    log_density = 0.5 * table.logdet(nodes).double() - 0.5 * squared / variance
    outer = ((nodes - low) / (high - low) - 0.5).abs() > 0.45
    return log_density.logsumexp(0) + cell, log_density.softmax(0) @ outer.double()
