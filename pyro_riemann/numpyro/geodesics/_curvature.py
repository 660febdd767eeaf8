"""Scalar curvature, by the Gauss equation for immersions and by Riemann's tensor for any metric."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._work import announced
from pyro_riemann.numpyro import _autodiff
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
    r"""Scalar curvature of a pullback metric, :math:`|\mathrm{tr}\, II|^2 - |II|^2` (Gauss equation).

    II is the second fundamental form in an orthonormal frame: the second derivatives of the
    immersion, projected on the normal space. Shape ``(*batch, d) -> (*batch)``.
    """
    hessian = _autodiff.jacobian(lambda point: metric.embed_jacobian(point)[1], z, metric.dim)[1]
    _, jacobian = metric.embed_jacobian(z)
    factor = jnp.linalg.cholesky(jacobian.mT @ jacobian)
    frame = jax.lax.linalg.triangular_solve(
        factor, jnp.broadcast_to(jnp.eye(metric.dim, dtype=z.dtype), factor.shape), left_side=True, lower=True
    ).mT
    tangents = jacobian @ frame
    form = jnp.einsum("...aij,...ik,...jl->...akl", hessian, frame, frame)
    form = form - jnp.einsum("...am,...bm,...bkl->...akl", tangents, tangents, form)
    trace = jnp.diagonal(form, axis1=-2, axis2=-1).sum(-1)
    return jnp.square(trace).sum(-1) - jnp.square(form).sum((-3, -2, -1))


@jax.jit
def riemann_curvature(metric: Metric, z: Array) -> Array:
    r"""Scalar curvature of any metric from the first and second derivatives of G.

    .. math:: R = g^{ik} g^{jl} \big(\partial_j \partial_k g_{il} - \partial_i \partial_k g_{jl}
        + g_{mn} (\Gamma^m_{jk} \Gamma^n_{il} - \Gamma^m_{jl} \Gamma^n_{ik})\big)

    Shape ``(*batch, d) -> (*batch)``.
    """
    tensor, slope = metric.metric_jacobian(z)
    second = _autodiff.jacobian(lambda point: metric.metric_jacobian(point)[1], z, metric.dim)[1]
    inverse = jnp.linalg.inv(tensor)
    # symbols[..., m, j, k] = Christoffel symbols of the first kind
    symbols = 0.5 * (slope + slope.mT - jnp.moveaxis(slope, -1, -3))
    # symbols of the second kind with one lower index raised
    linear = jnp.einsum("...ik,...jl,...iljk->...", inverse, inverse, second) - jnp.einsum(
        "...ik,...jl,...jlik->...", inverse, inverse, second
    )
    contracted = jnp.einsum("...mjl,...jl->...m", symbols, inverse)
    raised = jnp.einsum("...mjk,...mn,...jl,...ki->...nli", symbols, inverse, inverse, inverse)
    mixed = jnp.einsum("...nli,...nil->...", raised, symbols)
    return linear + mixed - jnp.einsum("...m,...mn,...n->...", contracted, inverse, contracted)
