r"""Integrals of radial functions, :math:`V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}`: exact, or by the ray rule."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import radial
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.distributions._judged_mass import distinct, judged_mass
from pyro_riemann.distributions._judged_rays import Integrand, log_ratio_of
from pyro_riemann.distributions._tangent import default_nodes, log_tangent_expectation
from pyro_riemann.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.metrics import RiemannianMetric


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
