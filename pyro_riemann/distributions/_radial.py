r"""Integrals of radial functions, :math:`V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}`: exact, or by rays; moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.distributions._judged_mass import distinct, judged_mass
from pyro_riemann.distributions._judged_rays import Integrand, log_ratio_of
from pyro_riemann.distributions._tangent import chart_moments, default_nodes, log_tangent_expectation, tangent_vectors
from pyro_riemann.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.metrics import RiemannianMetric

_RADII = 128  # of the nodes of moments


def unwarped(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> tuple[RiemannianMetric, Tensor, Tensor]:
    """A metric, a point and a variance in the coordinates and the units in which the metric was given."""
    while isinstance(metric, WarpedMetric | ScaledMetric):
        if isinstance(metric, WarpedMetric):
            loc = metric.to_base(loc)
        else:
            variance = variance / metric.factor.to(variance)
        metric = metric.base
    return metric, loc, variance


def radial_laws(metric: RiemannianMetric) -> list[tuple[RadialLaw | None, int]]:
    """What is known of the volume of every factor of a product, and its dimension; of any other metric one entry."""
    while isinstance(metric, WarpedMetric | ScaledMetric):
        metric = metric.base
    if isinstance(metric, ProductMetric):
        return [law for factor in metric.factors for law in radial_laws(factor)]
    return [(metric.radial_law(), metric.dim)]


def log_radial_mass(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}\,dM`, ``(*batch)``.

    The value is the same whether a gradient is asked for or not. Its first derivatives in ``loc``, ``variance`` and the
    metric are those of the integral at the rule's own nodes.

    Args:
        metric: any metric.
        loc: centres, ``(*batch, d)``.
        variance: t, ``(*batch)``.
        integrand: q, and whether the curvature term is there.
        num_directions: of the rays; None for as many as it takes.
    """
    metric, loc, variance = unwarped(metric, loc, variance)
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(loc), strict=True)
        masses = [log_radial_mass(factor, x, variance, integrand, num_directions) for factor, x in parts]
        values, errors = zip(*masses, strict=True)
        return Estimate(torch.stack(values).sum(0), torch.stack(errors).sum(0))
    law = metric.radial_law()
    if law is not None:
        return _exact(law, metric.dim, variance, integrand)
    if not variance.numel():
        return Estimate(torch.zeros_like(variance), torch.zeros_like(variance))
    if torch.jit.is_tracing():  # nothing may depend on data: a fixed rule in the tangent space
        return log_tangent_expectation(
            metric, loc, variance, default_nodes(metric.dim), log_ratio_of(metric, loc, variance, integrand)
        )
    flat_loc, flat = loc.reshape(-1, metric.dim), variance.reshape(-1)
    centre, time, index = distinct(flat_loc, flat)  # the elements of a plate are often all alike
    found = judged_mass(metric, centre, time, integrand, num_directions)
    value = found.value[index]
    if torch.is_grad_enabled():
        centre.requires_grad_(loc.requires_grad)
        time.requires_grad_(variance.requires_grad)
        slope = found.slope(metric, centre, time, integrand)
        for live, leaf in ((flat_loc, centre), (flat.unsqueeze(-1), time)):
            if leaf.requires_grad:
                (by,) = torch.autograd.grad(slope.sum(), leaf, retain_graph=True)
                value = value + (by.reshape(len(centre), -1)[index] * (live - live.detach())).sum(-1)
        value = value + (slope - slope.detach())[index]
    return Estimate(value.reshape(variance.shape), found.error[index].reshape(variance.shape))


def _exact(law: RadialLaw, dim: int, variance: Tensor, integrand: Integrand) -> Estimate:
    wide = variance.double()
    value = error = torch.zeros_like(wide)
    if law.periods is not None:
        value = (law.periods.to(wide) / (8 * wide.unsqueeze(-1)).sqrt()).erf().log().sum(-1)
    elif not law.is_flat(dim):
        value, error = radial.log_relative_mass(torch, law.curvature, dim, wide, wide.detach(), 1 - integrand.van_vleck)
    if integrand.curvature:
        value = value + wide * law.curvature * dim * (dim - 1) / 12
    return Estimate(value.to(variance), error.detach().to(variance))


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
