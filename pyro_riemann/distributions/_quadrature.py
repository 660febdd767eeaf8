r"""Integrals of radial densities over a plane chart, by the midpoint rule on a box.

On a decoder with walls geodesics focus, and rays are at a loss: a few of them have all the mass. In one and two
dimensions the chart itself can be summed over, with all distances from one centre solved at once.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._estimate import Estimate
from pyro_riemann.metrics import GridMetric, RiemannianMetric

# nodes an axis of table and distances: the next ones are taken until the value settles
_RESOLUTIONS = {1: (200, 400, 800), 2: (60, 120, 180, 256)}
_TOLERANCE = 1e-6  # at which distances stop moving, relative: what they are off by then no difference shows
_SETTLED = 1e-2
_FAR = 30.0  # negative log of the density, relative to the centre's, from which on distances may be a little long
_SHARE = 1e-3  # of the mass, beyond the box on one axis, above which it is enlarged
_GROWTH = 0.5  # by that share of its width
_ENLARGEMENTS = 5


@torch.no_grad()
def log_chart_integral(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, box: tuple[Tensor, Tensor] | None = None
) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM`, a scalar, d <= 2.

    Distances are those of the shortest curves, whatever settings the metric has for its own.

    Args:
        metric: any metric of dimension 1 or 2.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
        box: corners ``(d,)`` of a box around the centre that is thought to hold the mass, and is enlarged where it does
            not. Default: that of a table, else six standard deviations of a flat metric.

    Returns:
        The value, without gradient; its error is the difference to coarser cells, distances and, unless the metric is
        itself a table of that box, a coarser table, since behind steep walls these settle last; the tolerance of the
        distances; and what lies beyond the box.
    """
    if box is not None:
        low, high = box
    elif isinstance(metric, GridMetric):
        low, high = metric.table.low, metric.table.high
    else:
        half = 6 * (variance * torch.linalg.inv(metric.metric(loc)).diagonal()).sqrt()
        low, high = loc - half, loc + half
    best: Estimate | None = None
    for _ in range(_ENLARGEMENTS):
        value, error, beyond = _settled(metric, loc, variance, low, high)
        found = Estimate(value, error + beyond.sum())
        if best is not None and bool(found.standard_error > best.standard_error):  # cells that are too large
            break
        best = found
        if not bool((beyond > _SHARE).any()) or (isinstance(metric, GridMetric) and metric.base is None):
            break
        more = torch.where(beyond.to(low) > _SHARE, 0.5 * _GROWTH * (high - low), torch.zeros_like(low))
        low, high = low - more, high + more
    assert best is not None
    return Estimate(best.value.to(variance), best.standard_error.to(variance))


def _settled(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log of the integral over the box, its error, and what lies beyond on each axis, ``(d,)``, relative."""
    first, *finer = _RESOLUTIONS[metric.dim]
    fine, beyond = _midpoint(metric, loc, variance, low, high, first)
    error = torch.full_like(fine, math.inf)
    for resolution in _work.turns("refinements of the sum over the chart", finer):
        coarse, (fine, beyond) = fine, _midpoint(metric, loc, variance, low, high, resolution)
        # the mean of l^2 / t is the dimension; half: anywhere within the tolerance
        error = torch.hypot(fine - coarse, fine.new_tensor(0.5 * metric.dim * _TOLERANCE))
        if float(error) < _SETTLED:
            break
    return fine, error, beyond


def _midpoint(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, low: Tensor, high: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    """The sum over ``(2 resolution) ** d`` cells, and what lies beyond them."""
    # a table of its own for each: a difference does not show the error of a table that both were read from
    table = metric if _is_table_of(metric, low, high) else GridMetric(metric, low, high, resolution)
    count = 2 * resolution
    steps = (torch.arange(count, dtype=low.dtype, device=low.device) + 0.5) / count
    axes = [a + steps * (b - a) for a, b in zip(low, high, strict=True)]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, metric.dim)
    log_volume = 0.5 * table.logdet(nodes).double()
    reach = _FAR + (log_volume.max() - 0.5 * table.logdet(loc)).clamp(min=0)
    field = table.distance_field(loc, resolution, tolerance=_TOLERANCE, horizon=float((2 * variance * reach).sqrt()))
    squared = field.squared_dist(nodes).double()
    cell = ((high - low).double() / count).log().sum() - 0.5 * metric.dim * (2 * math.pi * variance.double()).log()
    log_mass = (log_volume - 0.5 * squared / variance).reshape((count,) * metric.dim)
    return log_mass.flatten().logsumexp(0) + cell, _beyond(log_mass)


def _is_table_of(metric: RiemannianMetric, low: Tensor, high: Tensor) -> TypeGuard[GridMetric]:
    """Whether the metric is a table of that very box."""
    return (
        isinstance(metric, GridMetric) and torch.equal(metric.table.low, low) and torch.equal(metric.table.high, high)
    )


def _beyond(log_mass: Tensor) -> Tensor:
    """What the cells of a box leave out on each axis, ``(d,)``, relative to their own mass.

    Towards every wall the last two layers of cells go on as a geometric series, of at most as many terms as there are
    cells.
    """
    count, mass = log_mass.shape[0], log_mass.flatten().softmax(0).reshape(log_mass.shape)
    total = mass.new_zeros(log_mass.dim())
    for axis in range(log_mass.dim()):
        for last, before in ((0, 1), (-1, -2)):
            outer, inner = mass.select(axis, last).sum(), mass.select(axis, before).sum()
            falls = ((inner - outer) / outer).clamp(min=1 / count)  # NaN where there is no mass at all
            total[axis] += torch.nan_to_num(outer / falls)
    return total
