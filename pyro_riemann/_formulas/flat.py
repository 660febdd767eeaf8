"""Flat metrics: the same tensor at every point, and the torus, R^d with ``z`` and ``z + period`` the same point."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import ClassVar

from pyro_riemann._formulas import densities, table
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.exact_kernels import ExactKernels
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._formulas.radial import RadialLaw

_REACH = 8.6  # standard deviations beyond which a normal density is nothing
_IMAGES = 10_000  # at most, in the sum of a tangent Gaussian with a covariance


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


class Torus(MetricAlgebra[A]):
    """The torus of ``periods (d,)``, infinite for a line; the metric itself is the identity."""

    kernels: ClassVar[ExactKernels]
    periods: A

    def _periods(self, like: A) -> tuple[A, A, A]:
        """The periods, 0 for lines, and which are finite."""
        periods = self.face.cast(self.periods, like)
        finite = self.face.xp.isfinite(periods)
        return periods, self.face.xp.where(finite, periods, self.face.xp.zeros_like(periods)), finite

    def wrap(self, z: A) -> A:
        """The image ``(*batch, d)`` of ``z`` in ``[-period / 2, period / 2)``, axis by axis; derivative 1."""
        xp, z = self.face.xp, self.face.check_point("z", z, self.dim)
        periods, shifts, finite = self._periods(z)
        return z - shifts * xp.where(finite, xp.floor(z / periods + 0.5), xp.zeros_like(z))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0, self.periods)

    def injectivity_radius(self, z: A) -> A | None:
        return self.face.xp.broadcast_to(self._periods(z)[0].min() / 2, z.shape[:-1])

    def logmap(self, z: A, y: A) -> A:
        return self.wrap(y - z)

    def squared_dist(self, z: A, y: A) -> A:
        return self.face.xp.square(self.wrap(y - z)).sum(-1)

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        return self.log_heat_kernel(z, y, time)  # on flat manifolds the same law

    def _num_images(self, width: list[float], periods: list[float]) -> list[int]:
        """On either side of every axis, how many images a normal law of these marginal deviations reaches.

        Those beyond are below 1e-16 of the sum.
        """
        counts = [0 if math.isinf(p) else math.ceil(_REACH * w / p) + 1 for w, p in zip(width, periods, strict=True)]
        if (size := math.prod(2 * count + 1 for count in counts)) > _IMAGES:
            raise NotImplementedError(
                f"A tangent Gaussian as wide as {width} on a torus of periods {periods} is a sum over {size} images: "
                "give a smaller covariance, or `time`, whose sum is one an axis."
            )
        return counts

    def _log_images(self, z: A, y: A, factor: A, counts: list[int]) -> A:
        """Log densities ``(n, *batch)`` of a tangent Gaussian at the images of ``y``."""
        xp, step = self.face.xp, self.wrap(y - z)
        turns = table(xp, list(itertools.product(*(range(-count, count + 1) for count in counts))), step)
        _, shifts, finite = self._periods(step)
        around = (-1, *(1,) * (step.ndim - 1))
        step = step + (turns * shifts).reshape(*around, self.dim)
        noise = xp.square(self.face.solve(factor, step)).sum(-1)
        log_factor = self.face.log_abs_det(factor)
        zero = xp.zeros_like(log_factor)
        terms = densities.tangent_normal(xp, self.dim, noise, log_factor, zero, zero)
        exist = ((turns == 0) | finite).all(-1).reshape(around)  # an infinite period has no images
        return xp.where(exist, terms, -xp.full_like(terms, math.inf))

    def _most(self, counts: list[int], like: A) -> A:
        """The largest marginal deviations for which so many images on either side are enough, ``(d,)``."""
        _, shifts, finite = self._periods(like)
        return self.face.xp.where(finite, (table(self.face.xp, counts, like) - 1) * shifts / _REACH, math.inf)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log transition density of Brownian motion at variance ``time``, exact: a wrapped normal per axis.

        With respect to dM = dz over one period; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive.
        """
        step = self.wrap(y - z)
        return self.kernels.circle(step, self.kernels.as_time(time, step)[..., None], self.periods).sum(-1)
