"""Hyperbolic space in the Poincare ball."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.conformal import PoincareBall
from pyro_riemann.numpyro.manifolds._space_form import SpaceForm, compiled


class Hyperbolic(PoincareBall[Array], SpaceForm):
    r"""Hyperbolic space :math:`H^d` in the Poincare ball, :math:`G(z) = 4 I / (|K| (1 - |z|^2)^2)` for ``|z| < 1``.

    Curvature is K, scalar curvature ``d (d - 1) K``. The chart is the open unit ball at every K, not all of R^d:
    a point outside raises, or gives NaN under ``jit``. Where a point must be unconstrained (NUTS, an encoder's
    output) use :class:`~pyro_riemann.numpyro.manifolds.Hyperboloid` or
    :class:`~pyro_riemann.numpyro.manifolds.HalfSpace`, the same space in charts that are all of R^d.

    Near the boundary coordinates run out of digits: at K = -1 and distance r from the centre a distance is good to
    about ``exp(r)`` times the machine precision (1e-8 at r = 20 in float64, 1e-3 at r = 10 in float32), and
    beyond r = 36 (16) there are no points; :meth:`expmap` stops there.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite; by methods, if a point lies
            outside the open unit ball.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> ball = Hyperbolic(2)
        >>> round(ball.dist(jnp.zeros(2), jnp.array([0.5, 0.0])).item(), 4)  # 2 atanh(1/2)
        1.0986
        >>> ball = Hyperbolic(3)
        >>> kernel = ball.log_heat_kernel(jnp.zeros(3), jnp.zeros(3), time=0.5)
        >>> expected = -0.25 - 1.5 * jnp.log(jnp.pi)  # e^{-t/2} (2 pi t)^{-3/2}
        >>> jnp.isclose(kernel, expected).item()
        True
    """

    expmap = compiled(PoincareBall.expmap)
    logmap = compiled(PoincareBall.logmap)

    def _denominator(self, name: str, z: Array) -> Array:
        below = super()._denominator(name, z)
        return jnp.where(below > 0, below, jnp.nan)  # where nothing can raise, no number comes out either
