"""Log masses of radial laws by rays, or by what takes their place where rays are dear or do not settle."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import ray_rule
from pyro_riemann._formulas.chart_draws import MOST_CENTRES, Verdict
from pyro_riemann._memo import remember
from pyro_riemann.distributions._chart_draws import ChartDraws, log_chart_expectation
from pyro_riemann.distributions._judged_rays import (
    Cast,
    Integrand,
    judged_rays,
    log_integrand_slope,
    num_parameters,
)
from pyro_riemann.distributions._quadrature import log_chart_integral
from pyro_riemann.metrics import GridMetric, RiemannianMetric

_TAIL = 5e-4  # share of the mass on either side that may lie outside the box of a sum over the chart, at first


class JudgedMass(NamedTuple):
    """Log masses from every centre of a batch of b, and where they come from.

    Attributes:
        value: ``(b)``.
        error: ``(b)``.
        cast: rays; None where draws have all values.
        drawn: draws, by the row of the centre whose value is theirs.
    """

    value: Tensor
    error: Tensor
    cast: Cast | None
    drawn: dict[int, ChartDraws]

    def slope(self, metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand) -> Tensor:
        """A function ``(b)`` of loc, variance and metric whose derivative is that of the log mass."""
        slopes = {row: draws.slope(metric, loc[row], variance[row]) for row, draws in self.drawn.items()}
        if self.cast is None:
            return torch.stack([slopes[row] for row in range(len(loc))])
        slope = log_integrand_slope(metric, loc, variance, integrand, self.cast)
        row = torch.arange(len(loc), device=loc.device)
        for chosen, own in slopes.items():
            slope = torch.where(row == chosen, own, slope)
        return slope


def judged_mass(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> JudgedMass:
    """By rays, unless their number is not given and others err less: a sum over the chart, or weighed draws."""
    free = num_directions is None and metric.dim > 1 and integrand == Integrand()
    # what lies beyond a table that refuses points is error, of which rays, which end at its box, know the size
    refuses = isinstance(metric, GridMetric) and metric.outside == "error"
    drawable = free and metric.dim > 2 and 0 < len(loc) <= MOST_CENTRES and not refuses
    if drawable and ray_rule.are_dear(metric.dim, num_parameters(metric)):
        drawn = {row: _draws(metric, loc[row], variance[row]) for row in range(len(loc))}
        if all(each.verdict().is_good() for each in drawn.values()):
            value, error = (torch.stack(part) for part in zip(*(each.mass for each in drawn.values()), strict=True))
            return JudgedMass(value, error, None, drawn)
    cast, drawn = judged_rays(metric, loc, variance, integrand, num_directions), {}
    if free and metric.dim == 2:
        cast = _summed_over_chart(metric, loc, variance, cast)
    elif drawable:
        cast, drawn = _drawn_over_chart(metric, loc, variance, cast)
    cast.warn()
    return JudgedMass(cast.value, cast.error, cast, drawn)


@torch.no_grad()
def _summed_over_chart(metric: RiemannianMetric, loc: Tensor, variance: Tensor, cast: Cast) -> Cast:
    """Values and errors by sums over the plane chart where rays do not settle: behind walls few have all the mass.

    The rays, which end nowhere, say how large the box must be and what share lies beyond.
    """
    unsettled = (cast.error > ray_rule.SETTLED).nonzero().flatten()
    if not 0 < len(unsettled) <= MOST_CENTRES:
        return cast
    value, error, effective = cast.value.clone(), cast.error.clone(), cast.num_effective.clone()
    for row in unsettled:

        def compute(row: Tensor = row) -> tuple[Estimate, Tensor]:
            low, high, beyond = _box_of_rays(metric, cast, int(row))
            mass = log_chart_integral(metric, loc[row], variance[row], (low, high))
            nodes = cast.rule.point[cast.rule.width > 0]
            return Estimate(mass.value, mass.standard_error + beyond), nodes

        mass = remember(metric, "chart", (), (loc[row], variance[row]), compute)
        gap = (mass.value - value[row]).abs()
        # routes that exclude each other: neither error is what it says
        own = torch.where(gap > 2 * (error[row] + mass.standard_error), gap, mass.standard_error)
        if bool(own < error[row]):
            value[row], error[row], effective[row] = mass.value, own, math.inf
    return cast._replace(value=value, error=error, num_effective=effective)


@torch.no_grad()
def _drawn_over_chart(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, cast: Cast
) -> tuple[Cast, dict[int, ChartDraws]]:
    """Values and errors by weighed draws, where rays are not sure and these err less; and those draws."""
    value, error, effective = cast.value.clone(), cast.error.clone(), cast.num_effective.clone()
    used: dict[int, ChartDraws] = {}
    for row, numbers in enumerate(zip(value.tolist(), error.tolist(), effective.tolist(), strict=True)):
        rays = Verdict(*numbers)
        if rays.is_sure():
            continue
        draws = _draws(metric, loc[row], variance[row])
        (value[row], error[row], effective[row]), taken = rays.beside(draws.verdict())
        if taken:
            used[row] = draws
    return cast._replace(value=value, error=error, num_effective=effective), used


def _draws(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> ChartDraws:
    """Weighed draws from one centre, kept while the metric is unchanged."""

    def compute() -> tuple[ChartDraws, Tensor]:
        draws = log_chart_expectation(metric, loc, variance)
        return draws, draws.points

    return remember(metric, "draws", (), (loc.detach(), variance.detach()), compute)


def _box_of_rays(metric: RiemannianMetric, cast: Cast, row: int) -> tuple[Tensor, Tensor, float]:
    """A box ``(d,)`` that holds the mass on the rays from one centre, that of a table if it does; the share beyond."""
    batch = cast.ray_mass.shape[1]
    weight = cast.log_weight[:, row::batch].exp().flatten()
    point = cast.rule.point[:, row::batch].flatten(0, 1)[weight > 0]
    weight = weight[weight > 0]

    def beyond(low: Tensor, high: Tensor) -> float:
        return float(weight[((point < low) | (point > high)).any(-1)].sum())

    low, high = point.amin(0), point.amax(0)
    for axis in range(metric.dim):
        order = point[:, axis].argsort()
        inner = point[order, axis][
            (weight[order].cumsum(0) > _TAIL) & (weight[order].flip(0).cumsum(0).flip(0) > _TAIL)
        ]
        low[axis], high[axis] = inner.amin(), inner.amax()
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    if isinstance(metric, GridMetric):
        own = metric.table.low, metric.table.high
        if (share := beyond(*own)) < ray_rule.SETTLED or metric.base is None:
            return *own, share
        low, high = torch.minimum(low, own[0]), torch.maximum(high, own[1])
    return low, high, beyond(low, high)
