"""Charts of hyperbolic space that are all of R^d: no boundary to fall over, no digits lost near it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import half_space, hyperboloid, space_form
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.manifolds._hyperbolic import check_negative, on_hyperboloid
from pyro_riemann.numpyro.manifolds._space_form import SpaceForm


class _HyperbolicChart(SpaceForm):
    """A chart of H^d that is all of R^d."""

    sign = -1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, check_negative(curvature))

    def _half_chord(self, z: Array, y: Array) -> Array:
        """``sinh(l/2)^2``, shape ``(*batch)``."""
        raise NotImplementedError

    def _half_angle(self, z: Array, y: Array) -> tuple[Array, Array]:
        s = self._half_chord(z, y)
        return s, 1 + s

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Exact log heat kernel, as :meth:`pyro_riemann.numpyro.Hyperbolic.log_heat_kernel`; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``, with respect to dM.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or as there.
        """
        z, y = self._check("z", z), self._check("y", y)
        s = self._half_chord(_heat_kernel.widest(z), _heat_kernel.widest(y))
        value = _heat_kernel.hyperbolic(s, time / self._factor, self.dim)
        return (value - self._log_density_factor).astype(jnp.result_type(z, y))


class Hyperboloid(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the hyperboloid :math:`(z, \sqrt{1 + |z|^2})`, z in R^d.

    :math:`G(z) = (I - z z^\top / (1 + |z|^2)) / |K|`, K the curvature; at K = -1 ``|z| = sinh r`` at distance r from
    the origin. The chart does not depend on K. It is not conformal, so the Ito drift of Brownian motion does not
    vanish: it is :math:`|K| d z / 2`.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.numpyro.manifolds import Hyperboloid
        >>> metric = Hyperboloid(2)
        >>> round(metric.dist(jnp.zeros(2), jnp.array([1.0, 0.0])).item(), 4)  # asinh(1)
        0.8814
    """

    def metric(self, z: Array) -> Array:
        slope = z / hyperboloid.height(jnp, self._check("z", z))
        return self._factor * (jnp.eye(self.dim, dtype=z.dtype) - slope[..., :, None] * slope[..., None, :])

    def cholesky(self, z: Array) -> Array:
        below, diagonal = hyperboloid.cholesky(jnp, self._check("z", z))
        return self._factor**0.5 * (below + diagonal[..., None] * jnp.eye(self.dim, dtype=diagonal.dtype))

    def logdet(self, z: Array) -> Array:
        return self.dim * math.log(self._factor) - jnp.log1p(jnp.square(self._check("z", z)).sum(-1))

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        z = self._check("z", z)
        return self._factor * (hyperboloid.root(jnp, z, u) * hyperboloid.root(jnp, z, v)).sum(-1)

    def christoffel(self, z: Array, v: Array) -> Array:
        return -self.inner(z, v, v)[..., None] * z / self._factor

    def drift(self, z: Array) -> Array:
        return self.dim / (2 * self._factor) * self._check("z", z)

    def expmap(self, z: Array, v: Array) -> Array:
        return self._expmap(self._check("z", z), check_point("v", v, self.dim))

    @jax.jit
    def _expmap(self, z: Array, v: Array) -> Array:
        return hyperboloid.expmap(jnp, z, *space_form.within_range(jnp, v, self.inner(z, v, v) / self._factor))

    def logmap(self, z: Array, y: Array) -> Array:
        return self._logmap(self._check("z", z), self._check("y", y))

    @jax.jit
    def _logmap(self, z: Array, y: Array) -> Array:
        return hyperboloid.logmap(jnp, z, y)

    def _half_chord(self, z: Array, y: Array) -> Array:
        return hyperboloid.half_chord(jnp, z, y)

    def to_ball(self, z: Array) -> Array:
        """The points ``z`` in the Poincare ball of :class:`pyro_riemann.numpyro.Hyperbolic`, ``(*batch, d)``."""
        return hyperboloid.to_ball(jnp, self._check("z", z))

    def from_ball(self, x: Array) -> Array:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        return hyperboloid.from_ball(jnp, x)

    def to_ambient(self, z: Array) -> Array:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`pyro_riemann.numpyro.Hyperbolic.to_ambient`.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        z = self._check("z", z)
        return self._factor**0.5 * jnp.concat([z, hyperboloid.height(jnp, z)], axis=-1)

    def from_ambient(self, x: Array) -> Array:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return on_hyperboloid(x, self.dim, self._factor)[..., :-1]


class HalfSpace(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the upper half-space with the logarithm of the height as last coordinate.

    :math:`ds^2 = (e^{-2h} |dx|^2 + dh^2) / |K|` at ``z = (x, h)`` in R^d, K the curvature. The drift of Brownian motion
    is :math:`-|K| (d - 1) / 2` in h and 0 in x.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.numpyro.manifolds import HalfSpace
        >>> metric = HalfSpace(3)
        >>> round(metric.dist(jnp.zeros(3), jnp.array([0.0, 0.0, 2.0])).item(), 4)  # straight up
        2.0
    """

    def metric(self, z: Array) -> Array:
        flat = jnp.exp(-2 * self._check("z", z)[..., -1:])
        scale = jnp.concat([jnp.broadcast_to(flat, (*z.shape[:-1], self.dim - 1)), jnp.ones_like(flat)], axis=-1)
        return self._factor * scale[..., None] * jnp.eye(self.dim, dtype=z.dtype)

    def logdet(self, z: Array) -> Array:
        return self.dim * math.log(self._factor) - 2 * (self.dim - 1) * self._check("z", z)[..., -1]

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return self._factor * half_space.inner(jnp, self._check("z", z), u, v)

    def christoffel(self, z: Array, v: Array) -> Array:
        return half_space.christoffel(jnp, self._check("z", z), check_point("v", v, self.dim))

    def drift(self, z: Array) -> Array:
        return jnp.zeros_like(self._check("z", z)).at[..., -1].set(-(self.dim - 1) / (2 * self._factor))

    def expmap(self, z: Array, v: Array) -> Array:
        return self._expmap(self._check("z", z), check_point("v", v, self.dim))

    @jax.jit
    def _expmap(self, z: Array, v: Array) -> Array:
        return half_space.expmap(jnp, z, *space_form.within_range(jnp, v, self.inner(z, v, v) / self._factor))

    def logmap(self, z: Array, y: Array) -> Array:
        return self._logmap(self._check("z", z), self._check("y", y))

    @jax.jit
    def _logmap(self, z: Array, y: Array) -> Array:
        return half_space.logmap(jnp, z, y)

    def _half_chord(self, z: Array, y: Array) -> Array:
        return half_space.half_chord(jnp, z, y)

    @jax.jit
    def _squared_dist(self, z: Array, y: Array) -> Array:
        return self._factor * half_space.squared_dist(jnp, z, y)

    @jax.jit
    def _log_van_vleck(self, z: Array, y: Array) -> Array:
        return space_form.log_van_vleck_of_velocity(jnp, half_space.squared_dist(jnp, z, y), self.sign, self.dim)

    def to_ball(self, z: Array) -> Array:
        """The points ``z`` in the Poincare ball, ``(*batch, d)``; (0, ..., 0) is its centre."""
        return half_space.to_ball(jnp, self._check("z", z))

    def from_ball(self, x: Array) -> Array:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        return half_space.from_ball(jnp, x)

    def to_ambient(self, z: Array) -> Array:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`pyro_riemann.numpyro.Hyperbolic.to_ambient`.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        return Hyperboloid(self.dim, self.curvature).to_ambient(hyperboloid.from_ball(jnp, self.to_ball(z)))

    def from_ambient(self, x: Array) -> Array:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return self.from_ball(hyperboloid.to_ball(jnp, on_hyperboloid(x, self.dim, self._factor)[..., :-1]))
