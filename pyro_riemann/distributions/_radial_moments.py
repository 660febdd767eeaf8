"""Euclidean moments, in the chart, of laws whose density is a function of the distance from a centre."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.distributions._judged_mass import distinct, judged_mass
from pyro_riemann.distributions._judged_rays import Integrand
from pyro_riemann.distributions._radial_mass import unwarped
from pyro_riemann.distributions._tangent import chart_moments, default_nodes, tangent_vectors
from pyro_riemann.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.metrics import RiemannianMetric

_RADII = 128


@torch.no_grad()
def radial_moments(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> tuple[Tensor, Tensor]:
    r"""Euclidean mean and variance in the chart, ``(*batch, d)``, of the density :math:`V^q e^{-\ell^2 / 2t}` wrt dM.

    By the nodes that the normalising constant has; without gradient.
    """
    base, there, spread = unwarped(metric, loc, variance)
    same_chart, nodes = _same_chart(metric, base), default_nodes(metric.dim)
    if isinstance(base, ProductMetric):
        if not same_chart:
            return chart_moments(metric, loc, variance, nodes, power=1 - integrand.van_vleck)
        parts = zip(base.factors, base.split(loc), strict=True)
        moments = [radial_moments(factor, x, spread, integrand, num_directions) for factor, x in parts]
        mean, square = (torch.cat(part, dim=-1) for part in zip(*moments, strict=True))
        return mean, square
    law, flat, times = base.radial_law(), there.reshape(-1, base.dim), spread.reshape(-1)
    if law is not None and law.is_flat(base.dim):
        if law.periods is None or not same_chart:
            return chart_moments(metric, loc, variance, nodes, power=1.0)
        return loc, _within_a_period(spread.unsqueeze(-1), law.periods.to(loc))
    if law is None:
        centre, time, index = distinct(flat, times)
        found = judged_mass(base, centre, time, integrand, num_directions)
        mean, square = torch.empty_like(centre), torch.empty_like(centre)
        if found.cast is not None:
            mean, square = _moments(rewarped(metric, found.cast.points()), found.cast.weights())
        others = {row: (draws.points, draws.weights) for row, draws in found.drawn.items()}
        for row, cells in found.cells.items():
            middles, shares = cells.nodes()
            others[row] = torch.from_numpy(middles).to(loc), torch.from_numpy(shares).to(loc)
        for row, (points, weights) in others.items():
            mean[row], square[row] = _moments(rewarped(metric, points), weights)
        mean, square = mean[index], square[index]
    else:
        points, weights = _exact_nodes(base, law, flat, times, integrand)
        mean, square = _moments(rewarped(metric, points), weights)
    return mean.reshape(loc.shape), square.reshape(loc.shape)


def _moments(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of points ``(n, *b, d)`` with normalised weights ``(n, *b)``."""
    weights = weights.unsqueeze(-1)
    mean = (weights * z).sum(0)
    return mean, (weights * (z - mean).square()).sum(0)


def rewarped(metric: RiemannianMetric, points: Tensor) -> Tensor:
    """Points of the chart in which the metric was given, in the chart of ``metric``."""
    if isinstance(metric, ScaledMetric):
        return rewarped(metric.base, points)
    return metric.from_base(rewarped(metric.base, points)) if isinstance(metric, WarpedMetric) else points


def _same_chart(metric: RiemannianMetric, base: RiemannianMetric) -> bool:
    """Whether nothing but factors stands between the two."""
    while isinstance(metric, ScaledMetric):
        metric = metric.base
    return metric is base


def _within_a_period(variance: Tensor, periods: Tensor) -> Tensor:
    """Variance of a normal law that is cut off half a period away on both sides."""
    end = periods / (2 * variance.sqrt())
    end = end.clamp(max=1e3)  # infinite periods, where nothing is cut off
    density = (-0.5 * end.square()).exp() * math.sqrt(2 / math.pi) / (end / math.sqrt(2)).erf()
    return variance * (1 - end * density)


def _exact_nodes(
    metric: RiemannianMetric, law: RadialLaw, loc: Tensor, variance: Tensor, integrand: Integrand
) -> tuple[Tensor, Tensor]:
    """Points ``(n, b, d)`` and weights ``(n, b)`` on a space of constant curvature."""
    count = ray_rule.attempts(None, metric.dim)[0]
    white = torch.from_numpy(ray_rule.directions(metric.dim, count)).to(loc)
    power = 1 - integrand.van_vleck
    radius, density, _ = radial.radial_table(torch, law.curvature, metric.dim, variance.double(), power)
    thin = radius.shape[-1] // _RADII
    radius, density = (part[..., ::thin].T.to(loc) for part in (radius, density))
    direction = tangent_vectors(metric, loc, torch.ones_like(variance), white.unsqueeze(1).expand(-1, *loc.shape))
    v = (radius[:, None, :, None] * direction).flatten(0, 1)
    weights = (density / density.sum(0)).unsqueeze(1).expand(-1, len(white), -1).flatten(0, 1) / len(white)
    return metric.expmap(loc.expand_as(v), v), weights
