"""Euclidean moments, in the chart, of laws whose density is a function of the distance from a centre."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.numpyro.distributions._radial_mass import Integrand, judged_rays, unwarped
from pyro_riemann.numpyro.distributions._tangent import chart_moments, tangent_vectors
from pyro_riemann.numpyro.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric

_RADII = 128


def radial_moments(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> tuple[Array, Array]:
    r"""Euclidean mean and variance in the chart, ``(*batch, d)``, of the density :math:`V^q e^{-\ell^2 / 2t}` wrt dM.

    By the nodes that the normalising constant has; without gradient.
    """
    metric, loc, variance = jax.lax.stop_gradient((metric, loc, variance))
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
        cast = judged_rays(base, flat, times, integrand, num_directions)
        points = cast.rule.point.reshape(-1, *flat.shape)
        weights = jnp.exp(cast.log_weight).reshape(-1, len(flat))
        points = jnp.where(weights[..., None] > 0, points, flat)
    else:
        points, weights = _exact_nodes(base, law, flat, times, integrand)
    z, weights = rewarped(metric, points), weights[..., None]
    mean = (weights * z).sum(0)
    return mean.reshape(loc.shape), (weights * jnp.square(z - mean)).sum(0).reshape(loc.shape)


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
