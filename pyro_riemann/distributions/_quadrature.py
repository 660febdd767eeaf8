r"""Integrals of radial densities over a plane chart, by the midpoint rule on a box.

On a decoder with walls geodesics focus, and a rule in the tangent space is at a loss beyond the cut
locus. In one and two dimensions the chart itself can be summed over, with all distances from
one centre solved at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.metrics import GridMetric, RiemannianMetric

# nodes an axis of the distances: the next ones are taken until the value settles
_RESOLUTIONS = {1: (200, 400), 2: (60, 120, 180, 256)}
_TOLERANCE = 1e-6  # at which distances stop moving, relative: what they are off by then no difference shows
_SETTLED = 1e-2
_TAIL = 15.0  # nats below the peak at which the box may end
_ENLARGEMENTS = 6
_SEARCH = 40  # nodes an axis of the distances that say whether the box is large enough


def log_chart_integral(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM`, ``(*batch)``, d <= 2.

    Differentiable in ``variance`` only.

    Args:
        metric: any metric of dimension 1 or 2.
        loc: centres, ``(*batch, d)``.
        variance: t, ``(*batch)``.

    Returns:
        The value; its error is the difference to coarser cells, tables and distances, behind steep walls the distances
        being what settles last, their own tolerance, and what the box leaves out.
    """
    centres, times = loc.detach().reshape(-1, metric.dim), variance.reshape(-1)
    values = [_single(metric, centre, t) for centre, t in zip(centres, times, strict=True)]
    fine, coarse, beyond = (torch.stack(part).reshape(variance.shape) for part in zip(*values, strict=True))
    shared = 0.5 * metric.dim * _TOLERANCE  # the mean of l^2 / t is the dimension; half: anywhere within the tolerance
    return Estimate(fine, torch.hypot((fine - coarse).detach(), fine.new_tensor(shared)) + beyond.detach())


def _single(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value, a coarser one, and the share of the mass beyond the box."""
    table = _table(metric, loc, variance.detach())
    low, high = table.table.low, table.table.high
    first, second, *finer = _RESOLUTIONS[metric.dim]

    def midpoint(resolution: int) -> tuple[Tensor, Tensor]:
        # a table of its own for each: a difference does not show the error of a table that both were read from
        read = table if table is metric else GridMetric(metric, low, high, resolution)
        field = read.distance_field(loc, resolution, tolerance=_TOLERANCE)
        count = 2 * resolution
        steps = (torch.arange(count, dtype=low.dtype, device=low.device) + 0.5) / count
        axes = [a + steps * (b - a) for a, b in zip(low, high, strict=True)]
        nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, metric.dim)
        with torch.no_grad():
            log_volume, squared = 0.5 * read.logdet(nodes).double(), field.squared_dist(nodes).double()
        cell = ((high - low) / count).log().sum() - 0.5 * metric.dim * (2 * math.pi * variance).log()
        log_mass = (log_volume - 0.5 * squared / variance).reshape((count,) * metric.dim)
        return log_mass.flatten().logsumexp(0).to(variance) + cell, _beyond(log_mass.detach()).to(variance)

    (coarse, _), (fine, beyond) = midpoint(first), midpoint(second)
    for resolution in finer:
        # distances much finer than a table that is the metric resolve nothing more
        too_fine = table is metric and resolution > 1.5 * max(table.table.resolution)
        if too_fine or float((fine - coarse).detach().abs()) < _SETTLED:
            break
        coarse, (fine, beyond) = fine, midpoint(resolution)
    return fine, coarse, beyond


def _beyond(log_mass: Tensor) -> Tensor:
    """What the cells of a box leave out, relative to their own mass.

    Towards every wall the last two layers of cells go on as a geometric series, of at most as many terms as there are
    cells.
    """
    count, mass = log_mass.shape[0], log_mass.flatten().softmax(0).reshape(log_mass.shape)
    total = mass.new_zeros(())
    for axis in range(log_mass.dim()):
        for last, before in ((0, 1), (-1, -2)):
            outer, inner = mass.select(axis, last).sum(), mass.select(axis, before).sum()
            falls = ((inner - outer) / outer).clamp(min=1 / count)  # NaN where there is no mass at all
            total = total + torch.nan_to_num(outer / falls)
    return total


def _table(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> GridMetric:
    """The metric on a box that holds the mass: its own box if it is a table, otherwise one that is grown to fit."""
    if isinstance(metric, GridMetric):
        return metric
    inverse = torch.linalg.inv(metric.metric(loc)).detach().diagonal()
    half = 6 * (variance * inverse).sqrt()
    for _ in range(_ENLARGEMENTS):
        table = GridMetric(metric, loc - half, loc + half, _RESOLUTIONS[metric.dim][1])
        field = table.distance_field(loc, _SEARCH)
        unit = torch.linspace(-1, 1, _SEARCH + 1, dtype=loc.dtype, device=loc.device)
        mesh = torch.stack(torch.meshgrid(*[unit] * metric.dim, indexing="ij"), -1).reshape(-1, metric.dim)
        nodes = loc + half * mesh
        log_density = 0.5 * table.logdet(nodes) - 0.5 * field.squared_dist(nodes) / variance
        short = [
            bool((log_density[mesh[:, axis].abs() == 1] > log_density.max() - _TAIL).any())
            for axis in range(metric.dim)
        ]
        if not any(short):
            break
        half = half * torch.where(torch.tensor(short, device=loc.device), 1.6, 1.0).to(half)
    return table
