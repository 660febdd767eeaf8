"""Integrals of radial densities by sums over a plane chart."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.chart_sum import Chart, ChartSum, Vector, box_of_rays, summed
from pyro_riemann.numpyro._memo import keep
from pyro_riemann.numpyro.metrics import RiemannianMetric


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
