"""Flat metrics: the gate through which every density must pass."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point, holds
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics._base import RiemannianMetric


class ConstantMetric(RiemannianMetric):
    """The same metric tensor at every point; geodesics are straight lines.

    Args:
        matrix: symmetric positive definite ``(d, d)``.

    Raises:
        ValueError: if ``matrix`` is not square, symmetric, finite and positive definite.
        TypeError: if ``matrix`` is not a floating array.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> metric = ConstantMetric(jnp.array([[4.0, 0.0], [0.0, 1.0]]))
        >>> metric.dist(jnp.zeros(2), jnp.array([1.0, 0.0])).item()
        2.0
    """

    pytree_data_fields = ("matrix",)
    is_symmetric = True
    is_uniquely_geodesic: bool | None = True
    matrix: Array

    def __init__(self, matrix: Array) -> None:
        matrix = check_array("matrix", matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`matrix` must have shape (d, d), got {matrix.shape}.")
        check_finite("matrix", matrix)
        if not holds(jnp.allclose(matrix, matrix.mT)):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        if not holds(jnp.isfinite(jnp.linalg.cholesky(matrix))):
            raise ValueError("`matrix` must be positive definite.")
        self.dim, self.matrix = matrix.shape[0], matrix

    def metric(self, z: Array) -> Array:
        check_point("z", z, self.dim)
        return jnp.broadcast_to(self.matrix.astype(z.dtype), (*z.shape, self.dim))

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        return self.metric(z), jnp.zeros((*z.shape, self.dim, self.dim), z.dtype)

    def christoffel(self, z: Array, v: Array) -> Array:
        return jnp.zeros_like(z + v)

    def drift(self, z: Array) -> Array:
        return jnp.zeros_like(z)

    def scalar_curvature(self, z: Array) -> Array:
        return jnp.zeros_like(z[..., 0])

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0)

    def injectivity_radius(self, z: Array) -> Array | None:
        return jnp.full_like(z[..., 0], jnp.inf)

    def expmap(self, z: Array, v: Array) -> Array:
        return z + v

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        y = z + v
        return y, jnp.zeros_like(y[..., 0])

    def logmap(self, z: Array, y: Array) -> Array:
        return y - z

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self.inner(z, y - z, y - z)

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return jnp.zeros_like((z + y)[..., 0])

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        if type(self).squared_dist is not ConstantMetric.squared_dist:
            return None  # a subclass that identifies points, of which there are more geodesics than one
        return densities.single_geodesic(jnp, self.dim, time, self.squared_dist(z, y), self.log_van_vleck(z, y))

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        if type(self).squared_dist is not ConstantMetric.squared_dist:
            return None
        return self._log_carried_normal(z, y, factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)


class EuclideanMetric(ConstantMetric):
    """The identity metric on R^d.

    Args:
        dim: dimension d, at least 1.

    Raises:
        ValueError: if ``dim`` is less than 1.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> EuclideanMetric(2).dist(jnp.zeros(2), jnp.array([3.0, 4.0])).item()
        5.0
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        super().__init__(jnp.eye(dim))
