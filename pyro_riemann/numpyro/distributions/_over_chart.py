r"""Integrals of radial densities over a chart: weighed draws near paths of Brownian motion, or sums in the plane."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import chart_draws, densities
from pyro_riemann._formulas.chart_draws import WeighedDraws
from pyro_riemann._formulas.chart_sum import Chart, ChartSum, Vector, box_of_rays, summed
from pyro_riemann.numpyro._memo import keep
from pyro_riemann.numpyro.brownian import brownian_motion
from pyro_riemann.numpyro.distributions._tangent import is_closed_form
from pyro_riemann.numpyro.geodesics import training_solver
from pyro_riemann.numpyro.metrics import RiemannianMetric


def weighed_draws(metric: RiemannianMetric, loc: Array, variance: Array) -> WeighedDraws:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM` by weighed draws; nothing may be traced.

    Two mixtures are fitted to two sets of paths of Brownian motion, by distances of the training solver first. What
    neither these nor Gaussians of three times their width find is not counted.

    Args:
        metric: any metric.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
    """
    return keep(_weighed, (), metric, loc, variance)


def _weighed(metric: RiemannianMetric, loc: Array, variance: Array) -> WeighedDraws:
    rough, dim = training_solver(metric.dim), metric.dim

    def law(squared: Array, z: Array) -> np.ndarray:
        return np.asarray(densities.short_time(jnp, dim, variance, squared, metric.logdet(z)), np.float64)

    def exact(points: np.ndarray) -> np.ndarray:
        z = jnp.asarray(points, loc.dtype)
        return law(metric.squared_dist(jnp.broadcast_to(loc, z.shape), z), z)

    def cheap(points: np.ndarray) -> np.ndarray:
        z = jnp.asarray(points, loc.dtype)
        return law(rough.squared_dist(metric, jnp.broadcast_to(loc, z.shape), z), z)

    count = 2 * chart_draws.STARTS
    starts = brownian_motion(
        metric, jnp.broadcast_to(loc, (count, dim)), variance, chart_draws.STEPS, key=jax.random.key(0)
    )
    halves = [part[np.isfinite(part).all(-1)] for part in np.split(np.asarray(starts, np.float64), 2)]
    if min(map(len, halves)) < 2 * dim:  # no paths that could say where to look
        return WeighedDraws(-np.inf, np.inf, 0.0, np.zeros((0, dim)), np.zeros(0), None, np.zeros(0))
    return chart_draws.log_integral(exact if is_closed_form(metric) else cheap, exact, (halves[0], halves[1]))


def chart_of(metric: RiemannianMetric, like: Array) -> Chart:
    """The metric at points of the dtype of ``like``."""
    return Chart(metric, lambda z: jnp.asarray(z, like.dtype), to_host)


def to_host(values: Array) -> Vector:
    """Values in doubles of NumPy."""
    return np.asarray(values, np.float64)


def sum_over_chart(metric: RiemannianMetric, loc: Array, variance: Array, points: Array, weights: Array) -> ChartSum:
    r"""Log of :math:`(2 \pi t)^{-1} \int e^{-\ell^2(\mu, z) / 2t}\,dM` over a plane; nothing may be traced.

    Args:
        metric: any metric of dimension 2.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
        points: nodes of rays from the centre, ``(n, d)``, which say how large a box must be.
        weights: their shares of the mass, ``(n,)``.
    """
    low, high, beyond = box_of_rays(chart_of(metric, loc), to_host(points), to_host(weights))
    return keep(_summed, (beyond,), metric, loc, variance, low, high)


def _summed(
    metric: RiemannianMetric, loc: Array, variance: Array, low: Vector, high: Vector, beyond: float
) -> ChartSum:
    return summed(chart_of(metric, loc), to_host(loc), float(variance), low, high, beyond)
