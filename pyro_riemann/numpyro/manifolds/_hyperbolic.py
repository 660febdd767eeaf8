"""Hyperbolic space in the Poincare ball."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._checks import check_array, holds
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.manifolds._space_form import ConformalSpaceForm


class Hyperbolic(ConformalSpaceForm):
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
    """

    sign = -1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, check_negative(curvature))

    def to_ambient(self, z: Array) -> Array:
        r"""Points ``(*batch, d + 1)`` of the hyperboloid :math:`x_0^2 - |x|^2 = 1 / |K|`, x_0 last.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        below = self._denominator(self._check("z", z))[..., None]
        return self._factor**0.5 * jnp.concat([2 * z / below, 2 / below - 1], axis=-1)

    def from_ambient(self, x: Array) -> Array:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        unit = on_hyperboloid(x, self.dim, self._factor)
        return unit[..., :-1] / (1 + unit[..., -1:])

    def _check(self, name: str, z: Array) -> Array:
        z = super()._check(name, z)
        inside = self._denominator(z) > 0
        if not holds(inside):
            norm = jnp.linalg.norm(z, axis=-1)
            raise ValueError(
                f"`{name}` must lie in the open unit ball, got {int((~inside).sum())} of {norm.size} points "
                f"with norm 1 or more, or NaN (largest: {norm.max().item():.6g}). "
                "`manifolds.Hyperboloid` is the same space in a chart that is all of R^d."
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
        value = _heat_kernel.hyperbolic(s, time / self._factor, self.dim)
        return (value - self._log_density_factor).astype(jnp.result_type(z, y))


def check_negative(curvature: float) -> float:
    """``curvature``, if it is that of a hyperbolic space."""
    if not -math.inf < curvature < 0:
        raise ValueError(f"`curvature` must be negative and finite, got {curvature}.")
    return curvature


def on_hyperboloid(x: Array, dim: int, squared_radius: float) -> Array:
    """Points of the unit hyperboloid, the time last, from those of one of a radius, ``(*batch, d + 1)``."""
    x = check_array("x", x)
    if x.ndim == 0 or x.shape[-1] != dim + 1:
        raise ValueError(f"`x` must have shape (*batch, {dim + 1}), got {x.shape}.")
    x = x / squared_radius**0.5
    squared = jnp.square(x)
    gap = jnp.abs(squared[..., -1] - squared[..., :-1].sum(-1) - 1)
    if not holds((gap < 1e-3 * squared.sum(-1)) & (x[..., -1] > 0)):
        raise ValueError(
            f"`x` must lie on the hyperboloid x_0^2 - |x|^2 = {squared_radius:g}, its positive entry x_0 last."
        )
    return x
