"""The sphere in stereographic coordinates."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann.numpyro._checks import check_array, holds
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.manifolds._space_form import ConformalSpaceForm


class Sphere(ConformalSpaceForm):
    r"""The sphere :math:`S^d` of radius R in stereographic coordinates, :math:`G(z) = 4 R^2 I / (1 + |z|^2)^2`.

    The chart :math:`\mathbb{R}^d` covers the sphere but one pole: ``z = 0`` is the other pole,
    ``|z| = 1`` the equator. The chart does not depend on the radius. Curvature is
    :math:`1 / R^2`, scalar curvature :math:`d (d - 1) / R^2`.

    At antipodal points (the cut locus) the distance is pi R and has a kink; gradients are finite
    there but are those of no particular geodesic, and ``log_van_vleck``, infinite in truth, is a
    large finite number.

    Args:
        dim: dimension d of the sphere (2 for the globe).
        radius: R, a positive number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``radius`` not positive and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> sphere = Sphere(2)
        >>> z, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])  # two points on the equator
        >>> round(sphere.dist(z, y).item(), 4)  # a quarter turn
        1.5708
        >>> sphere.to_ambient(z).tolist()
        [1.0, 0.0, 0.0]
    """

    sign = 1

    def __init__(self, dim: int, radius: float = 1.0) -> None:
        if not 0 < radius < math.inf:
            raise ValueError(f"`radius` must be positive and finite, got {radius}.")
        super().__init__(dim, radius**-2.0)
        self.radius = float(radius)

    def __repr__(self) -> str:
        return f"Sphere(dim={self.dim}, radius={self.radius:g})"

    def to_ambient(self, z: Array) -> Array:
        """Vectors of length R, ``(*batch, d + 1)``, of points ``z``; the origin goes to the pole (0, ..., 0, -R)."""
        inverse = 1 / self._denominator(self._check("z", z))[..., None]
        return self.radius * jnp.concat([2 * z * inverse, 1 - 2 * inverse], axis=-1)

    def from_ambient(self, x: Array) -> Array:
        """Chart coordinates of vectors ``(*batch, d + 1)`` of length R; the pole (0, ..., 0, R) has none: infinite.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or is not of length R.
        """
        x = check_array("x", x)
        if x.ndim == 0 or x.shape[-1] != self.dim + 1:
            raise ValueError(f"`x` must have shape (*batch, {self.dim + 1}), got {x.shape}.")
        x = x / self.radius
        if not holds(jnp.abs(jnp.square(x).sum(-1) - 1) < 1e-3):
            length = "unit length" if self.radius == 1 else f"length {self.radius:g}"
            raise ValueError(f"`x` must be of {length}; divide it by its norm along the last axis.")
        return x[..., :-1] / (1 - x[..., -1:])

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        if self.dim == 1:  # the circle, where the heat kernel is the wrapped normal
            return self.log_heat_kernel(z, y, time)
        return super().log_folded_density(z, y, time)

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log transition density of Brownian motion with respect to dM, exact; shape ``(*batch)``.

        The generator is half the Laplace-Beltrami operator, so ``time`` is the variance of small
        steps. One contour integral serves every dimension at small times, spherical harmonics at large ones.
        Accurate in the logarithm at all times and distances, the antipode included: to 1e-12, or to the
        rounding of the exponent ``l^2 / 2t`` where this is more.
        Computed in float64 where ``jax_enable_x64`` is set, else in float32: then to 1e-5 and the rounding of that.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or so short that the rounding of ``l^2 / 2t``
                exceeds 0.1.

        Source: Camporesi (1990), *Harmonic analysis and propagators on homogeneous spaces*.

        Example:
            >>> sphere = Sphere(2)
            >>> kernel = sphere.log_heat_kernel(jnp.zeros(2), jnp.ones(2), time=20.0)
            >>> round(jnp.exp(kernel).item() * 4 * jnp.pi, 4)  # uniform after a long time
            1.0
        """
        z, y = self._check("z", z), self._check("y", y)
        wide, other = _heat_kernel.widest(z), _heat_kernel.widest(y)
        time = time / self._factor
        if self.dim == 1:
            turn = 2 * (jnp.atan(other) - jnp.atan(wide))[..., 0]
            value = _heat_kernel.circle(turn, _heat_kernel.as_time(time, turn), 2 * np.pi)
        else:
            value = _heat_kernel.sphere(*self._half_angle(wide, other), time, self.dim)
        return (value - self._log_density_factor).astype(jnp.result_type(z, y))
