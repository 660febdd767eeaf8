"""The initial-value problem: geodesic flow, exponential map and its Jacobian determinant."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import ray_rule
from pyro_riemann._work import announced
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import check_finite, check_point, holds
from pyro_riemann.numpyro._interface import Metric


@announced
def geodesic_flow(metric: Metric, z: Array, v: Array, num_steps: int = 16) -> tuple[Array, Array]:
    r"""Position and velocity after unit time on the geodesic that starts at ``z`` with velocity ``v``.

    Integrates :math:`z'' = -\Gamma(z', z')` by the classical Runge-Kutta method, whose error falls with the
    fourth power of ``num_steps``. The speed :math:`|z'|_G` is constant along the exact flow: where it is not kept,
    at a steep wall, take more steps. (The torch side does so by itself; a compiled program has a fixed number.)

    Args:
        metric: any pytree with ``dim`` and ``christoffel(z, v)``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity in chart coordinates, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps.

    Returns:
        End point and end velocity, each ``(*batch, d)``; exactly ``(z, 0)`` where ``v`` is 0.

    Raises:
        ValueError: if an argument has the wrong shape or is not finite, or if the flow leaves the reals. Under
            ``jit`` and other transformations values are not known: what leaves the reals is NaN or infinite.
        TypeError: if ``z`` or ``v`` is not a floating array.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 3, section 2; Hairer, Norsett & Wanner (1993), *Solving
    Ordinary Differential Equations I*, section II.1.

    Example:
        >>> from pyro_riemann.numpyro.geodesics import geodesic_flow
        >>> geodesic_flow(EuclideanMetric(1), jnp.array([1.0]), jnp.array([2.0]))
        (Array([3.], dtype=float32), Array([2.], dtype=float32))
    """
    z, v = _check(metric, z, v, num_steps)
    end, velocity = _flow(metric, z, v, num_steps)
    return _check_path(end, num_steps), velocity


@announced
def expmap(metric: Metric, z: Array, v: Array, num_steps: int = 16) -> Array:
    """Exponential map: the end point of :func:`geodesic_flow`, ``(*batch, d)``.

    Args:
        metric: any object with ``dim`` and ``christoffel(z, v)``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity in chart coordinates, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps.

    Raises:
        TypeError, ValueError: as :func:`geodesic_flow`.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 3, section 2.

    Example:
        >>> from pyro_riemann.numpyro.geodesics import expmap
        >>> expmap(EuclideanMetric(2), jnp.zeros(2), jnp.ones(2))
        Array([1., 1.], dtype=float32)
    """
    return geodesic_flow(metric, z, v, num_steps)[0]


@announced
def expmap_log_van_vleck(metric: Metric, z: Array, v: Array, num_steps: int = 16) -> tuple[Array, Array]:
    r"""End point ``y = expmap(z, v)`` and log Van Vleck-Morette determinant along that geodesic.

    .. math:: \log V = -\Big(\log\Big|\det \frac{\partial y}{\partial v}\Big|
        + \tfrac12 \log\det G(y) - \tfrac12 \log\det G(z)\Big)

    so that ``z = expmap(loc, v)``, ``v ~ N(0, t G(loc)^{-1})`` has density ``N(|v|; t) V`` with respect to the
    Riemannian measure. The columns of the Jacobian are Jacobi fields, here the exact derivatives of the
    discrete flow by forward mode. V is 1 at ``v = 0``, infinite at a conjugate point; past the first one the absolute
    determinant is used, and the geodesic is no longer the shortest.

    Args:
        metric: any pytree with ``dim``, ``christoffel`` and ``logdet``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps.

    Returns:
        ``y`` of shape ``(*batch, d)`` and ``log V`` of shape ``(*batch)``.

    Raises:
        ValueError: as :func:`geodesic_flow`.
        TypeError: as :func:`geodesic_flow`.

    Source: Morette (1951), *On the definition and approximation of Feynman's path integrals*; do Carmo (1992),
    *Riemannian Geometry*, chapter 5.

    Example:
        >>> from pyro_riemann.numpyro.geodesics import expmap_log_van_vleck
        >>> class Sphere2(RiemannianMetric):  # stereographic chart
        ...     dim = 2
        ...     def metric(self, z):
        ...         return 4 / (1 + (z * z).sum(-1))[..., None, None] ** 2 * jnp.eye(2)
        >>> y, log_v = expmap_log_van_vleck(Sphere2(), jnp.zeros(2), jnp.array([0.5, 0.0]))
        >>> bool(jnp.isclose(log_v, -jnp.log(jnp.sin(1.0)), atol=1e-4))  # r / sin r at r = 1
        True
    """
    z, v = _check(metric, z, v, num_steps)
    y, log_v = _flow_log_van_vleck(metric, z, v, num_steps)
    _check_path(y, num_steps)
    return y, log_v


@partial(jax.jit, static_argnums=3)
def _flow(metric: Metric, z: Array, v: Array, num_steps: int) -> tuple[Array, Array]:
    """Classical Runge-Kutta steps."""
    step = 1.0 / num_steps

    def advance(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        return ray_rule.runge_kutta(metric.christoffel, *state, step), None

    return jax.lax.scan(advance, (z, v), length=num_steps)[0]


@partial(jax.jit, static_argnums=3)
def _flow_log_van_vleck(metric: Metric, z: Array, v: Array, num_steps: int) -> tuple[Array, Array]:
    y, jacobian = _autodiff.jacobian(lambda w: _flow(metric, z, w, num_steps)[0], v, metric.dim)
    log_jacobian = jnp.linalg.slogdet(jacobian)[1]
    return y, -(log_jacobian + 0.5 * (metric.logdet(y) - metric.logdet(z)))


def _check(metric: Metric, z: Array, v: Array, num_steps: int) -> tuple[Array, Array]:
    z = check_finite("z", check_point("z", z, metric.dim))
    v = check_finite("v", check_point("v", v, metric.dim))
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    dtype = jnp.promote_types(z.dtype, v.dtype)
    z, v = jnp.broadcast_arrays(z.astype(dtype), v.astype(dtype))
    return z, v


def _check_path(end: Array, num_steps: int) -> Array:
    finite = jnp.isfinite(end).all(-1)
    if not holds(finite):
        raise ValueError(
            f"{int((~finite).sum())} of {finite.size} geodesics left the reals within unit time, or met a singular "
            f"metric. Shorten `v`, raise `num_steps` (now {num_steps}), or check that the metric is complete and "
            "smooth where they pass."
        )
    return end
