"""Scalar curvature, by the Gauss equation for immersions and by Riemann's tensor for any metric."""

from __future__ import annotations

import jax
from jax import Array

from pyro_riemann._formulas import calculus
from pyro_riemann._work import announced
from pyro_riemann.numpyro import _calculus
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro._interface import Immersed, Metric


@announced
def scalar_curvature(metric: Metric, z: Array) -> Array:
    """Scalar curvature R(z); :math:`d(d-1)` on the unit sphere, twice the Gauss curvature if d = 2.

    Pullback metrics use :func:`gauss_curvature`, which needs second derivatives of the immersion only; other
    metrics use :func:`riemann_curvature`. Both agree on a pullback.

    Args:
        metric: any pytree with the interface of ``RiemannianMetric``.
        z: points, ``(*batch, d)``.

    Returns:
        Shape ``(*batch)``.

    Raises:
        TypeError, ValueError: if ``z`` is not a floating array ``(*batch, d)``.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 4, and chapter 6, section 2 (Gauss equation).

    Example:
        >>> class HalfPlane(RiemannianMetric):
        ...     dim = 2
        ...     def metric(self, z):
        ...         return z[..., 1:, None] ** -2 * jnp.eye(2)
        >>> round(HalfPlane().scalar_curvature(jnp.array([0.3, 2.0])).item(), 4)
        -2.0
    """
    z = check_point("z", z, metric.dim)
    surface = metric.immersed()
    return riemann_curvature(metric, z) if surface is None else gauss_curvature(surface, z)


@jax.jit
def gauss_curvature(metric: Immersed, z: Array) -> Array:
    """Scalar curvature of a pullback metric, ``(*batch)``, by the Gauss equation."""
    return calculus.gauss_curvature(_calculus, metric.embed_jacobian, z, metric.dim)


@jax.jit
def riemann_curvature(metric: Metric, z: Array) -> Array:
    """Scalar curvature of any metric, ``(*batch)``, from the first and second derivatives of G."""
    return calculus.riemann_curvature(_calculus, metric.metric_jacobian, z, metric.dim)
