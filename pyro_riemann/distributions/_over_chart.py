r"""Integrals of radial densities over a chart: weighed draws near paths of Brownian motion, or sums in the plane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import chart_draws, densities
from pyro_riemann._formulas.chart_sum import Cells, Chart, ChartSum, Vector, box_of_rays, summed
from pyro_riemann._memo import remember
from pyro_riemann._seed import seeded
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.distributions._tangent import is_closed_form
from pyro_riemann.geodesics import GeodesicSolver, training_solver
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._runtime import RUNTIME


class ChartDraws(NamedTuple):
    """Weighed draws from one centre.

    Attributes:
        mass: log of the integral, a scalar, without gradient.
        num_effective: effective number of draws.
        points: ``(n, d)``.
        weights: normalised, ``(n,)``.
        proposal: a mixture that all of them are draws of; None if there are none.
        log_weights: of the integrand relative to it, ``(n,)``.
    """

    mass: Estimate
    num_effective: float
    points: Tensor
    weights: Tensor
    proposal: chart_draws.Pair | None
    log_weights: Tensor

    def verdict(self) -> chart_draws.Verdict:
        """Value, error and effective number in plain numbers."""
        return chart_draws.Verdict(float(self.mass.value), float(self.mass.standard_error), self.num_effective)

    def slope(self, metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> Tensor:
        """A scalar whose derivative in loc, variance and metric is that of the log integral."""
        used = self.weights > 0
        return self.weights[used] @ _log_density(metric, loc, variance, self.points[used])

    @torch.no_grad()
    def propose(self, metric: RiemannianMetric, loc: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """More points ``(count, d)``, and their log weights ``(count)``."""
        assert self.proposal is not None
        z = self.proposal.place(RUNTIME, torch.rand(count, metric.dim + 2, dtype=loc.dtype, device=loc.device))
        return z, _log_density(metric, loc, variance, z) - self.proposal.log_prob(RUNTIME, z)


@torch.no_grad()
def log_chart_expectation(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> ChartDraws:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM` by weighed draws.

    Two mixtures are fitted to two sets of paths of Brownian motion, by distances of the training solver first. What
    neither these nor Gaussians of three times their width find is not counted.

    Args:
        metric: any metric.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
    """

    def on_host(solver: GeodesicSolver | None = None) -> chart_draws.LogDensity:
        def log_density(z: np.ndarray) -> np.ndarray:
            return _log_density(metric, loc, variance, torch.from_numpy(z).to(loc), solver).double().cpu().numpy()

        return log_density

    exact = on_host()
    count = 2 * chart_draws.STARTS
    with seeded(0, loc.device):
        starts = brownian_motion(metric, loc.expand(count, -1), variance.expand(count), chart_draws.STEPS)
    halves = [part[part.isfinite().all(-1)].double().cpu().numpy() for part in starts.chunk(2)]
    if min(map(len, halves)) < 2 * metric.dim:  # no paths that could say where to look
        nothing = Estimate(torch.full_like(variance, -torch.inf), torch.full_like(variance, torch.inf))
        return ChartDraws(nothing, 0.0, loc.new_zeros(0, metric.dim), loc.new_zeros(0), None, loc.new_zeros(0))
    cheap = exact if is_closed_form(metric) else on_host(training_solver(metric.dim))
    found = chart_draws.log_integral(cheap, exact, (halves[0], halves[1]))
    return ChartDraws(
        Estimate(variance.new_tensor(found.value), variance.new_tensor(found.error)),
        found.num_effective,
        torch.from_numpy(found.points).to(loc),
        torch.from_numpy(found.weights).to(loc),
        found.proposal and found.proposal.on(torch, loc),
        torch.from_numpy(found.log_weights).to(loc),
    )


def _log_density(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, z: Tensor, solver: GeodesicSolver | None = None
) -> Tensor:
    """With respect to dz at ``(n, d)``, with the metric's own distances or those of a solver."""
    start = loc.expand_as(z)
    squared = metric.squared_dist(start, z) if solver is None else solver.squared_dist(metric, start, z)
    return densities.short_time(torch, metric.dim, variance, squared, metric.logdet(z))


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
