"""What the sphere and hyperbolic space share: constant curvature, in whatever chart."""

from __future__ import annotations

import math
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import conformal, densities, folding, space_form
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics import RiemannianMetric


class SpaceForm(RiemannianMetric):
    """What follows from the half angle between two points alone; subclasses are charts.

    The chart is that of curvature 1 or -1, whatever the curvature: only lengths change. Points are checked by the
    public methods, before they enter compiled code, where values cannot be read.
    """

    sign: int
    is_symmetric = True

    def __init__(self, dim: int, curvature: float) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self.dim, self.curvature = dim, float(curvature)
        self._factor = 1 / abs(self.curvature)  # of G, over that of curvature 1 or -1

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, curvature={self.curvature:g})"

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """True in hyperbolic space, false on a sphere."""
        return self.sign < 0

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-1:]) != (self.dim + 1,):
            return ""
        name = type(self).__name__
        return f" If these are ambient coordinates, `{name}.from_ambient` has those of the chart."

    def _check(self, name: str, z: Array) -> Array:
        """``z``, if it is a point of the chart."""
        return check_point(name, z, self.dim, self)

    def _half_angle(self, z: Array, y: Array) -> tuple[Array, Array]:
        """``sin(l/2)^2`` and ``cos(l/2)^2``, or ``sinh(l/2)^2`` and ``cosh(l/2)^2``, each ``(*batch)``."""
        raise NotImplementedError

    def scalar_curvature(self, z: Array) -> Array:
        return jnp.full_like(self._check("z", z)[..., 0], self.curvature * self.dim * (self.dim - 1))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(self.curvature)

    def injectivity_radius(self, z: Array) -> Array | None:
        radius = math.inf if self.sign < 0 else math.pi * self._factor**0.5
        return jnp.full_like(self._check("z", z)[..., 0], radius)

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self._squared_dist(self._check("z", z), self._check("y", y))

    @jax.jit
    def _squared_dist(self, z: Array, y: Array) -> Array:
        return self._factor * space_form.squared_dist(jnp, *self._half_angle(z, y), self.sign)

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return self._log_van_vleck(self._check("z", z), self._check("y", y))

    @jax.jit
    def _log_van_vleck(self, z: Array, y: Array) -> Array:
        return space_form.log_van_vleck(jnp, *self._half_angle(z, y), self.sign, self.dim)

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        """``y = expmap(z, v)``, ``(*batch, d)``, and ``log V(z, y)``, ``(*batch)``, in closed form.

        Beyond the antipode, V is that of the longer arc (with an absolute value).
        """
        return self.expmap(z, v), self._log_van_vleck_of_velocity(self.inner(z, v, v) / self._factor)

    @jax.jit
    def _log_van_vleck_of_velocity(self, squared: Array) -> Array:
        return space_form.log_van_vleck_of_velocity(jnp, squared, self.sign, self.dim)

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        r"""Log density at ``y`` of ``expmap(z, v)`` with :math:`v \sim N(0, t\,G(z)^{-1})`, in closed form.

        With respect to dM, shape ``(*batch)``. In hyperbolic space one geodesic leads to ``y``, on the sphere
        infinitely many do: for d >= 2 the density is infinite at ``z`` and at its antipode, where all of them meet, and
        is replaced there by that at a distance of the root of the machine precision.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            time: variance t of the tangent vectors, ``(*batch)``.
        """
        return self._log_folded_density(
            self._check("z", z), self._check("y", y), time, self._num_turns(time / self._factor)
        )

    def _num_turns(self, time: Array) -> int:
        """How many turns the formula of the sphere takes: a power of two, since a new number compiles anew."""
        longest = math.inf if isinstance(time, jax.core.Tracer) or np.size(time) == 0 else float(np.asarray(time).max())
        return int(2 ** math.ceil(math.log2(folding.num_turns(longest, self.dim)))) if self.sign > 0 else 0

    @partial(jax.jit, static_argnames="turns")
    def _log_folded_density(self, z: Array, y: Array, time: Array, turns: int) -> Array:
        if self.sign < 0:
            squared, log_van_vleck = self._squared_dist(z, y), self._log_van_vleck(z, y)
            return densities.single_geodesic(jnp, self.dim, time, squared, log_van_vleck)
        s, c, time = jnp.broadcast_arrays(*self._half_angle(z, y), time / self._factor)
        return folding.log_density(jnp, s, c, time, self.dim, turns) - self._log_density_factor

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        r"""Log density at ``y`` of ``expmap(z, factor @ x)``, x standard normal, in closed form, as a density in dM.

        All geodesics from ``z`` to ``y`` start along one line, on which the law is that of a variance of its own, so
        that on the sphere the sum is that of :meth:`log_folded_density`; shape ``(*batch)``.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.
        """
        noise = jnp.square(jnp.linalg.solve(factor, self.logmap(z, y)[..., None])[..., 0]).sum(-1)
        log_factor, logdet = jnp.linalg.slogdet(factor).logabsdet, self.logdet(z)
        if self.sign < 0:
            log_van_vleck = self.log_van_vleck(z, y)
            return densities.tangent_normal(jnp, self.dim, noise, log_factor, logdet, log_van_vleck)
        squared = self.squared_dist(z, y)
        apart = noise > jnp.finfo(noise.dtype).tiny
        # where the two meet any direction will do
        mean = jnp.exp((2 * log_factor + logdet) / self.dim)
        time = jnp.where(apart, squared / jnp.where(apart, noise, jnp.ones_like(noise)), mean)
        folded = self.log_folded_density(z, y, time)
        return None if folded is None else folded + 0.5 * (self.dim * jnp.log(time) - logdet) - log_factor

    @property
    def _log_density_factor(self) -> float:
        """What the log of a density in dM loses, over that of curvature 1 or -1."""
        return 0.5 * self.dim * math.log(self._factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        """Shortest curve from ``z`` to ``y`` in closed form, batches broadcast.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            init: without effect: nothing is searched for.
            **settings: of the solver's settings only ``num_segments`` matters.

        Raises:
            ValueError: for an unknown ``init``, or settings out of range.
        """
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)


class ConformalSpaceForm(SpaceForm):
    r"""The chart :math:`4 R^2 |dz|^2 / (1 \pm |z|^2)^2` of curvature :math:`\pm 1 / R^2`."""

    def _denominator(self, z: Array) -> Array:
        """``1 + |z|^2`` or ``1 - |z|^2``, shape ``(*batch)``."""
        return conformal.denominator(jnp, z, self.sign)

    def _half_angle(self, z: Array, y: Array) -> tuple[Array, Array]:
        return conformal.half_angle(jnp, z, y, self._denominator(z), self._denominator(y), self.sign)

    def metric(self, z: Array) -> Array:
        return jnp.square(self.cholesky(z))

    def cholesky(self, z: Array) -> Array:
        z = self._check("z", z)
        return (2 * self._factor**0.5 / self._denominator(z))[..., None, None] * jnp.eye(self.dim, dtype=z.dtype)

    def logdet(self, z: Array) -> Array:
        return conformal.logdet(jnp, self._denominator(self._check("z", z)), self.dim) + self.dim * math.log(
            self._factor
        )

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return self._factor * conformal.inner(jnp, self._denominator(self._check("z", z)), u, v)

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        below = self._denominator(self._check("z", z))
        return conformal.metric_jacobian(jnp, z, below, self._factor * jnp.eye(self.dim, dtype=z.dtype), self.sign)

    def christoffel(self, z: Array, v: Array) -> Array:
        return conformal.christoffel(jnp, z, v, self._denominator(self._check("z", z)), self.sign)

    def drift(self, z: Array) -> Array:
        return -self.curvature * (self.dim - 2) / 4 * self._denominator(self._check("z", z))[..., None] * z

    def expmap(self, z: Array, v: Array) -> Array:
        return self._expmap(self._check("z", z), check_point("v", v, self.dim))

    @jax.jit
    def _expmap(self, z: Array, v: Array) -> Array:
        return conformal.expmap(jnp, z, v, self._denominator(z), self.sign)

    def logmap(self, z: Array, y: Array) -> Array:
        return self._logmap(self._check("z", z), self._check("y", y))

    @jax.jit
    def _logmap(self, z: Array, y: Array) -> Array:
        return conformal.logmap(jnp, z, y, self._denominator(z), self._denominator(y), self.sign)
