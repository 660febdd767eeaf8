"""Any metric times a constant."""

from __future__ import annotations

from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._checks import check_positive
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.numpyro.metrics import RiemannianMetric


class ScaledMetric(RiemannianMetric):
    r"""The metric of ``base`` times a positive number, :math:`G(z) = c\, G_{base}(z)`.

    Lengths grow by :math:`\sqrt c`, curvatures fall by c, geodesics stay what they are; Brownian motion up to time t is
    that of ``base`` up to t / c. Everything goes to ``base``, and what is a closed form there is one here.

    Args:
        base: any metric.
        factor: c, a positive number or array of shape ``()``. It is data of the metric, so that it can be learned: the
            curvature of a sphere, for instance.

    Raises:
        TypeError: if ``base`` is no metric.
        ValueError: if ``factor`` is not one positive and finite number.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3; Skopek, Ganea & Becigneul (2020),
    *Mixed-curvature variational autoencoders*, for spaces whose curvature is learned.

    Example:
        >>> metric = ScaledMetric(Sphere(2), 4.0)  # the sphere of radius 2
        >>> round(metric.dist(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])).item(), 4)  # a quarter turn
        3.1416
    """

    pytree_data_fields = ("base", "factor")

    def __init__(self, base: RiemannianMetric, factor: float | Array | np.ndarray) -> None:
        if not isinstance(base, RiemannianMetric):
            raise TypeError(f"`base` must be a RiemannianMetric, got {type(base).__name__}.")
        self.dim, self.base = base.dim, base
        if np.ndim(factor) != 0:
            raise ValueError(f"`factor` must be one number, got shape {np.shape(factor)}.")
        # not a number of Python, which would be float32 under `jit`, and a new program for each
        value: Any = factor if isinstance(factor, Array) else np.asarray(factor, float)
        self.factor = check_positive("factor", value)

    def __repr__(self) -> str:
        return f"ScaledMetric(base={self.base!r}, factor={self.factor})"

    def _scale(self, like: Array) -> Array:
        return jnp.asarray(self.factor, like.dtype)

    @property
    def solver(self) -> GeodesicSolver:
        """Settings of the boundary-value solver: those of ``base``, where the solving is done."""
        return self.base.solver

    @solver.setter
    def solver(self, value: GeodesicSolver) -> None:
        self.base.solver = value

    def _log_volume(self, like: Array) -> Array:
        """What the logarithm of the volume element gains."""
        return 0.5 * self.dim * jnp.log(self._scale(like))

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: Array) -> Array:
        return self._scale(z) * self.base.metric(z)

    def cholesky(self, z: Array) -> Array:
        return jnp.sqrt(self._scale(z)) * self.base.cholesky(z)

    def logdet(self, z: Array) -> Array:
        return self.base.logdet(z) + 2 * self._log_volume(z)

    def logdet_gradient(self, z: Array) -> Array:
        return self.base.logdet_gradient(z)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return self._scale(z) * self.base.inner(z, u, v)

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        metric, slope = self.base.metric_jacobian(z)
        return self._scale(z) * metric, self._scale(z) * slope

    def metric_derivatives(self, z: Array, v: Array) -> tuple[Array, Array, Array]:
        metric, slope, along = self.base.metric_derivatives(z, v)
        return self._scale(z) * metric, self._scale(z) * slope, self._scale(z) * along

    def speed_hessian(self, z: Array, v: Array) -> Array:
        return self._scale(z) * self.base.speed_hessian(z, v)

    def christoffel(self, z: Array, v: Array) -> Array:
        return self.base.christoffel(z, v)

    def drift(self, z: Array) -> Array:
        return self.base.drift(z) / self._scale(z)

    def scalar_curvature(self, z: Array) -> Array:
        return self.base.scalar_curvature(z) / self._scale(z)

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        factor: Any = self.factor  # under a transformation no number
        return None if law is None else law._replace(curvature=law.curvature / factor)

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether ``base`` is symmetric."""
        return self.base.is_symmetric

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether ``base`` is."""
        return self.base.is_uniquely_geodesic

    def injectivity_radius(self, z: Array) -> Array | None:
        radius = self.base.injectivity_radius(z)
        return None if radius is None else jnp.sqrt(self._scale(z)) * radius

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        return self.base.ambient_hint(shape)

    @property
    def landmarks(self) -> Array | None:  # type: ignore[override]  # others hold it
        """The landmarks of ``base``, ``(k, d)``."""
        return self.base.landmarks

    def peaks(self) -> Peaks | None:
        return self.base.peaks()

    def on_floor(self, z: Array) -> Array | None:
        return self.base.on_floor(z)

    def covers(self, z: Array) -> Array | None:
        return self.base.covers(z)

    def coverage(self, codes: Array) -> Array | float | None:
        return self.base.coverage(codes)

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: Array, v: Array) -> Array:
        return self.base.expmap(z, v)

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        return self.base.expmap_log_van_vleck(z, v)

    def logmap(self, z: Array, y: Array) -> Array:
        return self.base.logmap(z, y)

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self._scale(z) * self.base.squared_dist(z, y)

    def dist(self, z: Array, y: Array) -> Array:
        return jnp.sqrt(self._scale(z)) * self.base.dist(z, y)

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return self.base.log_van_vleck(z, y)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self._scale(base.length)
        return Geodesic(base.points, jnp.sqrt(factor) * base.length, factor * base.energy, base.converged, base)

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        value = self.base.log_folded_density(z, y, time / self._scale(z))
        return None if value is None else value - self._log_volume(z)

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        value = self.base.log_folded_normal(z, y, factor)
        return None if value is None else value - self._log_volume(z)

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log heat kernel of ``base`` at time t / c, ``(*batch)``, as a density with respect to dM of this metric.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance t of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if the heat kernel of ``base`` has no closed form.
        """
        return self.base.log_heat_kernel(z, y, time / self._scale(z)) - self._log_volume(z)
