r"""Integrals of radial functions, :math:`V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}`: exact, or by the ray rule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import radial
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import is_known
from pyro_riemann.numpyro.distributions._judged_mass import distinct, judged_mass
from pyro_riemann.numpyro.distributions._judged_rays import Integrand, log_integrand_slope
from pyro_riemann.numpyro.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric


def unwarped(metric: RiemannianMetric, loc: Array, variance: Array) -> tuple[RiemannianMetric, Array, Array]:
    """A metric, a point and a variance in the coordinates and the units in which the metric was given."""
    while isinstance(metric, WarpedMetric | ScaledMetric):
        if isinstance(metric, WarpedMetric):
            loc = metric.to_base(loc)
        else:
            variance = variance / jnp.asarray(metric.factor, variance.dtype)
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
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}\,dM`, ``(*batch)``.

    First derivatives in ``loc``, ``variance`` and the metric are those of the integral at the rule's own nodes.

    Args:
        metric: any metric.
        loc: centres, ``(*batch, d)``.
        variance: t, ``(*batch)``.
        integrand: q, and whether the curvature term is there.
        num_directions: of the rays; None for as many as it takes, or a fixed number under ``jit``.
    """
    metric, loc, variance = unwarped(metric, loc, variance)
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(loc), strict=True)
        masses = [log_radial_mass(factor, x, variance, integrand, num_directions) for factor, x in parts]
        values, errors = zip(*masses, strict=True)
        return Estimate(jnp.stack(values).sum(0), jnp.stack(errors).sum(0))
    law = metric.radial_law()
    if law is not None:
        return _exact(law, metric.dim, variance, integrand)
    flat_loc, flat = loc.reshape(-1, metric.dim), variance.reshape(-1)
    centre, time, index = distinct(metric, flat_loc, flat)
    found = judged_mass(metric, centre, time, integrand, num_directions)
    value, error = found.value[index], found.error[index]
    if not is_known(metric, loc, variance) and found.cast is not None:
        slope = log_integrand_slope(metric, flat_loc, flat, integrand, found.cast)
        value = value + (slope - jax.lax.stop_gradient(slope))
    return Estimate(value.reshape(variance.shape), error.reshape(variance.shape))


def _exact(law: RadialLaw, dim: int, variance: Array, integrand: Integrand) -> Estimate:
    value = error = jnp.zeros_like(variance)
    if law.periods is not None:
        half = jnp.asarray(law.periods, variance.dtype) / jnp.sqrt(8 * variance[..., None])
        value = jnp.log(jax.lax.erf(half)).sum(-1)
    elif not law.is_flat(dim):
        constant = jax.lax.stop_gradient(variance)
        value, error = radial.log_relative_mass(jnp, law.curvature, dim, variance, constant, 1 - integrand.van_vleck)
    if integrand.curvature:
        value = value + variance * law.curvature * dim * (dim - 1) / 12
    return Estimate(value, jax.lax.stop_gradient(error))
