r"""Integrals of radial functions, :math:`V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}`: exact, or by rays; moments."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import is_known, without_gradient
from pyro_riemann.numpyro.distributions._judged_mass import distinct, judged_mass
from pyro_riemann.numpyro.distributions._judged_rays import Integrand, log_integrand_slope
from pyro_riemann.numpyro.distributions._tangent import chart_moments, tangent_vectors
from pyro_riemann.numpyro.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric

_RADII = 128  # of the nodes of moments


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


def radial_moments(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> tuple[Array, Array]:
    r"""Euclidean mean and variance in the chart, ``(*batch, d)``, of the density :math:`V^q e^{-\ell^2 / 2t}` wrt dM.

    By the nodes that the normalising constant has; without gradient.
    """
    metric, loc, variance = without_gradient(metric, loc, variance)
    base, there, spread = unwarped(metric, loc, variance)
    same_chart, nodes = _same_chart(metric, base), check_num_nodes(None, metric.dim)
    if isinstance(base, ProductMetric):
        if not same_chart:
            return chart_moments(metric, loc, variance, nodes, power=1 - integrand.van_vleck)
        parts = zip(base.factors, base.split(loc), strict=True)
        moments = [radial_moments(factor, x, spread, integrand, num_directions) for factor, x in parts]
        mean, square = (jnp.concat(part, axis=-1) for part in zip(*moments, strict=True))
        return mean, square
    law, flat, times = base.radial_law(), there.reshape(-1, base.dim), spread.reshape(-1)
    if law is not None and law.is_flat(base.dim):
        if law.periods is None or not same_chart:
            return chart_moments(metric, loc, variance, nodes, power=1.0)
        return loc, _within_a_period(spread[..., None], jnp.asarray(law.periods, loc.dtype))
    if law is None:
        mean, square = _unknown(metric, base, flat, times, integrand, num_directions)
    else:
        points, weights = _exact_nodes(base, law, flat, times, integrand)
        mean, square = _moments(rewarped(metric, points), weights)
    return mean.reshape(loc.shape), square.reshape(loc.shape)


def _unknown(
    metric: RiemannianMetric,
    base: RiemannianMetric,
    loc: Array,
    variance: Array,
    integrand: Integrand,
    num_directions: int | None,
) -> tuple[Array, Array]:
    """Moments ``(b, d)`` by the nodes of the route that the constant has taken."""
    centre, time, index = distinct(base, loc, variance)
    found = judged_mass(base, centre, time, integrand, num_directions)
    mean, square = jnp.zeros_like(centre), jnp.zeros_like(centre)
    if found.cast is not None:
        mean, square = _moments(rewarped(metric, found.cast.points(centre)), found.cast.weights())
    others = {row: (draws.points, draws.weights) for row, draws in found.drawn.items()}
    others |= {row: cells.nodes() for row, cells in found.cells.items()}
    for row, nodes in others.items():
        points, weights = (jnp.asarray(part, loc.dtype) for part in nodes)
        own = _moments(rewarped(metric, points), weights)
        mean, square = mean.at[row].set(own[0]), square.at[row].set(own[1])
    return mean[index], square[index]


def _moments(z: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and variance of points ``(n, *b, d)`` with normalised weights ``(n, *b)``."""
    mean = (weights[..., None] * z).sum(0)
    return mean, (weights[..., None] * jnp.square(z - mean)).sum(0)


def rewarped(metric: RiemannianMetric, points: Array) -> Array:
    """Points of the chart in which the metric was given, in the chart of ``metric``."""
    if isinstance(metric, ScaledMetric):
        return rewarped(metric.base, points)
    return metric.from_base(rewarped(metric.base, points)) if isinstance(metric, WarpedMetric) else points


def _same_chart(metric: RiemannianMetric, base: RiemannianMetric) -> bool:
    """Whether nothing but factors stands between the two."""
    while isinstance(metric, ScaledMetric):
        metric = metric.base
    return metric is base


def _within_a_period(variance: Array, periods: Array) -> Array:
    """Variance of a normal law that is cut off half a period away on both sides."""
    end = jnp.minimum(periods / (2 * jnp.sqrt(variance)), 1e3)  # infinite periods, where nothing is cut off
    density = jnp.exp(-0.5 * end**2) * math.sqrt(2 / math.pi) / jax.lax.erf(end / math.sqrt(2))
    return variance * (1 - end * density)


def _exact_nodes(
    metric: RiemannianMetric, law: RadialLaw, loc: Array, variance: Array, integrand: Integrand
) -> tuple[Array, Array]:
    """Points ``(n, b, d)`` and weights ``(n, b)`` on a space of constant curvature."""
    count = ray_rule.attempts(None, metric.dim)[0]
    white = jnp.asarray(ray_rule.directions(metric.dim, count), loc.dtype)
    radius, density, _ = radial.radial_table(jnp, law.curvature, metric.dim, variance, 1 - integrand.van_vleck)
    thin = radius.shape[-1] // _RADII
    radius, density = (part[..., ::thin].T for part in (radius, density))
    directions = jnp.broadcast_to(white[:, None], (len(white), *loc.shape))
    direction = tangent_vectors(metric, loc, jnp.ones_like(variance), directions)
    v = (radius[:, None, :, None] * direction).reshape(-1, *loc.shape)
    share = jnp.broadcast_to((density / density.sum(0))[:, None], (len(radius), len(white), len(loc)))
    return metric.expmap(jnp.broadcast_to(loc, v.shape), v), share.reshape(-1, len(loc)) / len(white)
