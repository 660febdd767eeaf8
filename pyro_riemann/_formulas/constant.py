"""Metrics that are the same tensor at every point."""

from __future__ import annotations

import inspect

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._formulas.radial import RadialLaw


class Constant(MetricAlgebra[A]):
    """A ``matrix (d, d)`` at every point; geodesics are straight lines."""

    matrix: A
    is_symmetric = True
    is_uniquely_geodesic: bool | None = True

    def _checked(self, matrix: A) -> A:
        """The matrix, if it is one of a metric."""
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`matrix` must have shape (d, d), got {tuple(matrix.shape)}.")
        if not self.face.holds(self.face.xp.isclose(matrix, matrix.mT)):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        if not self.face.holds(self.face.cholesky(matrix)[1]):
            raise ValueError("`matrix` must be positive definite.")
        return matrix

    def metric(self, z: A) -> A:
        return self.face.xp.broadcast_to(self.face.cast(self.matrix, z), (*z.shape, self.dim))

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        zero = self.face.xp.zeros_like(z[..., None, None])
        return self.metric(z), self.face.xp.broadcast_to(zero, (*z.shape, self.dim, self.dim))

    def christoffel(self, z: A, v: A) -> A:
        return self.face.xp.zeros_like(z + v)

    def drift(self, z: A) -> A:
        return self.face.xp.zeros_like(z)

    def scalar_curvature(self, z: A) -> A:
        return self.face.xp.zeros_like(z[..., 0])

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0)

    def injectivity_radius(self, z: A) -> A | None:
        return self.face.xp.full_like(z[..., 0], self.face.xp.inf)

    def expmap(self, z: A, v: A) -> A:
        return z + v

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        y = z + v
        return y, self.face.xp.zeros_like(y[..., 0])

    def logmap(self, z: A, y: A) -> A:
        return y - z

    def squared_dist(self, z: A, y: A) -> A:
        return self.inner(z, y - z, y - z)

    def log_van_vleck(self, z: A, y: A) -> A:
        return self.face.xp.zeros_like((z + y)[..., 0])

    def _identifies(self) -> bool:
        """Whether this is of a subclass that identifies points, of which there are more geodesics than one."""
        return inspect.unwrap(type(self).squared_dist) is not Constant.squared_dist

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        if self._identifies():
            return None
        squared, log_van_vleck = self.squared_dist(z, y), self.log_van_vleck(z, y)
        return densities.single_geodesic(self.face.xp, self.dim, time, squared, log_van_vleck)

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        return None if self._identifies() else self._log_carried_normal(z, y, factor)
