"""Log masses of radial laws by rays, or by what takes their place where rays are dear or do not settle."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas import ray_rule
from pyro_riemann._formulas.chart_draws import MOST_CENTRES, Verdict
from pyro_riemann._formulas.chart_sum import Cells
from pyro_riemann._memo import remember
from pyro_riemann.distributions._judged_rays import (
    Cast,
    Integrand,
    judged_rays,
    log_integrand_slope,
    num_parameters,
)
from pyro_riemann.distributions._over_chart import ChartDraws, log_chart_expectation, slope_of_sum, sum_over_chart
from pyro_riemann.metrics import GridMetric, RiemannianMetric


class JudgedMass(NamedTuple):
    """Log masses from every centre of a batch of b, and where they come from.

    Attributes:
        value: ``(b)``.
        error: ``(b)``.
        cast: rays; None where draws have all values.
        drawn: draws, by the row of the centre whose value is theirs.
        cells: of the sum over the plane, by the row of the centre whose value it is.
    """

    value: Tensor
    error: Tensor
    cast: Cast | None
    drawn: dict[int, ChartDraws]
    cells: dict[int, Cells]

    def slope(self, metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand) -> Tensor:
        """A function ``(b)`` of loc, variance and metric whose derivative is that of the log mass."""
        slopes = {row: draws.slope(metric, loc[row], variance[row]) for row, draws in self.drawn.items()}
        slopes |= {row: slope_of_sum(metric, loc[row], variance[row], cells) for row, cells in self.cells.items()}
        if self.cast is None or len(slopes) == len(loc):
            return torch.stack([slopes[row] for row in range(len(loc))])
        slope = log_integrand_slope(metric, loc, variance, integrand, self.cast)
        row = torch.arange(len(loc), device=loc.device)
        for chosen, own in slopes.items():
            slope = torch.where(row == chosen, own, slope)
        return slope


def distinct(loc: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres and variances of the laws that differ, and which of them each is; without gradient."""
    rows, index = torch.cat([loc, variance.unsqueeze(-1)], -1).detach().unique(dim=0, return_inverse=True)
    return rows[:, :-1].contiguous(), rows[:, -1].contiguous(), index


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
            return JudgedMass(value, error, None, drawn, {})
    cast = judged_rays(metric, loc, variance, integrand, num_directions)
    drawn, cells = {}, dict[int, Cells]()
    if free and metric.dim == 2:
        cast, cells = _summed_over_chart(metric, loc, variance, cast)
    elif drawable:
        cast, drawn = _drawn_over_chart(metric, loc, variance, cast)
    cast.warn()
    return JudgedMass(cast.value, cast.error, cast, drawn, cells)


@torch.no_grad()
def _summed_over_chart(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, cast: Cast
) -> tuple[Cast, dict[int, Cells]]:
    """Values and errors by sums over the plane chart, where rays do not settle and these err less; and their cells."""
    used: dict[int, Cells] = {}
    unsettled = (cast.error > ray_rule.SETTLED).nonzero().flatten()
    if not 0 < len(unsettled) <= MOST_CENTRES:
        return cast, used
    value, error, effective = cast.value.clone(), cast.error.clone(), cast.num_effective.clone()
    points, weights = cast.points(), cast.weights()
    for row in unsettled.tolist():
        rays = Verdict(float(value[row]), float(error[row]), float(effective[row]))
        plane = sum_over_chart(metric, loc[row], variance[row], points[:, row], weights[:, row])
        (value[row], error[row], effective[row]), taken = rays.beside(plane.verdict())
        if taken and plane.cells is not None:
            used[row] = plane.cells
    return cast._replace(value=value, error=error, num_effective=effective), used


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
