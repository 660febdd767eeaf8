"""Hyperbolic space in the Poincare ball."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.manifolds._space_form import ConformalSpaceForm


class Hyperbolic(ConformalSpaceForm):
    """Hyperbolic space :math:`H^d` in the Poincare ball, :math:`G(z) = 4 I / (1 - |z|^2)^2` for ``|z| < 1``.

    Curvature is -1, scalar curvature ``-d (d - 1)``. The chart is the open unit ball, not all of R^d:
    a point outside raises, or gives NaN under ``jit``. Where a point must be unconstrained (NUTS, an encoder's
    output) use :class:`~pyro_riemann.numpyro.manifolds.Hyperboloid` or
    :class:`~pyro_riemann.numpyro.manifolds.HalfSpace`, the same space in charts that are all of R^d.

    Near the boundary coordinates run out of digits: at distance r from the centre a distance is good to
    about ``exp(r)`` times the machine precision (1e-8 at r = 20 in float64, 1e-3 at r = 10 in float32), and
    beyond r = 36 (16) there are no points; :meth:`expmap` stops there.

    Args:
        dim: dimension d.

    Raises:
        ValueError: if ``dim`` is less than 1; by methods, if a point lies outside the open unit ball.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> ball = Hyperbolic(2)
        >>> round(ball.dist(jnp.zeros(2), jnp.array([0.5, 0.0])).item(), 4)  # 2 atanh(1/2)
        1.0986
    """

    curvature = -1

    def _check(self, name: str, z: Array) -> Array:
        z = super()._check(name, z)
        inside = self._denominator(z) > 0
        if not holds(inside):
            norm = jnp.linalg.norm(z, axis=-1)
            raise ValueError(
                f"`{name}` must lie in the open unit ball, got {int((~inside).sum())} of {norm.size} points "
                f"with norm 1 or more, or NaN (largest: {norm.max().item():.6g}). "
                "`manifolds.Hyperboloid(dim)` is the same space in a chart that is all of R^d."
            )
        return z

    def _denominator(self, z: Array) -> Array:
        below = super()._denominator(z)
        return jnp.where(below > 0, below, jnp.nan)  # where nothing can raise, no number comes out either

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log transition density of Brownian motion with respect to dM, exact; shape ``(*batch)``.

        The generator is half the Laplace-Beltrami operator, so ``time`` is the variance of small
        steps. Odd d is a closed form, even d an integral by Gauss-Legendre quadrature, McKean's for d = 2; no term is
        negative. Accurate in the logarithm at all times and distances up to 709: to 1e-12, or to the rounding of the
        exponents ``l^2 / 2t`` and ``(d - 1)^2 t / 8`` where this is more.
        Computed in float64 where ``jax_enable_x64`` is set, else in float32: then to 1e-5 and the rounding of that.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or so short that the rounding of ``l^2 / 2t``
                exceeds 0.1, or points lie so far apart that ``sinh(l/2)^2`` overflows.

        Source: McKean (1970), *An upper bound to the spectrum of Delta on a manifold of negative curvature*;
        Grigor'yan & Noguchi (1998), *The heat kernel on hyperbolic space*.

        Example:
            >>> ball = Hyperbolic(3)
            >>> kernel = ball.log_heat_kernel(jnp.zeros(3), jnp.zeros(3), time=0.5)
            >>> expected = -0.25 - 1.5 * jnp.log(jnp.pi)  # e^{-t/2} (2 pi t)^{-3/2}
            >>> jnp.isclose(kernel, expected).item()
            True
        """
        z, y = self._check("z", z), self._check("y", y)
        s, _ = self._half_angle(_heat_kernel.widest(z), _heat_kernel.widest(y))
        return _heat_kernel.hyperbolic(s, time, self.dim).astype(jnp.result_type(z, y))
