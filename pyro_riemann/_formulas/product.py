"""The algebra of products of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyro_riemann._formulas import Array
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.metric import MetricAlgebra


class Product(MetricAlgebra[A]):
    """Metrics side by side, ``factors``; a face splits points and pads matrices."""

    @property
    def factors(self) -> Sequence[MetricAlgebra[A]]:
        """The metrics."""
        raise NotImplementedError

    def split(self, z: A) -> tuple[A, ...]:
        """Points or vectors as those of the factors: of dimension k, ``(*batch, k)``.

        Args:
            z: points or vectors, ``(*batch, d)``.
        """
        raise NotImplementedError

    def _pad(self, block: Array, before: int, after: int) -> Array:
        """A block of rows with columns of zeros on both sides."""
        raise NotImplementedError

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        parts = ", ".join(f"{type(metric).__name__}({metric.dim})" for metric in self.factors)
        return f" The chart of this product is those of {parts} side by side."

    @property
    def solver(self) -> Any:
        """Settings of the boundary-value solver: those of the first factor; what is assigned goes to all of them."""
        return self.factors[0].solver

    @solver.setter
    def solver(self, value: Any) -> None:
        for metric in self.factors:
            metric.solver = value

    def _parts(self, *arguments: A) -> Iterable[Any]:
        """Each factor with its part of each argument."""
        arguments = self.face.broadcast(*arguments) if len(arguments) > 1 else arguments
        return zip(self.factors, *map(self.split, arguments), strict=True)

    def _sum(self, function: Callable[..., Array], *arguments: A) -> Array:
        """Sum over the factors of ``function(metric, *parts)``."""
        total: Array = 0
        for metric, *parts in self._parts(*arguments):
            total = total + function(metric, *parts)
        return total

    def _join(self, function: Callable[..., Array], *arguments: A) -> Array:
        """The factors' ``function(metric, *parts)`` side by side."""
        return self.face.xp.concatenate([function(metric, *parts) for metric, *parts in self._parts(*arguments)], -1)

    def _blocks(self, blocks: Iterable[Array]) -> Array:
        """Matrices ``(*batch, d_i, d_i)`` along the diagonal of one."""
        before, rows = 0, []
        for block in blocks:
            size = block.shape[-1]
            rows.append(self._pad(block, before, self.dim - before - size))
            before += size
        return self.face.xp.concatenate(rows, -2)

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: A) -> A:
        return self._blocks(metric.metric(x) for metric, x in self._parts(z))

    def cholesky(self, z: A) -> A:
        return self._blocks(metric.cholesky(x) for metric, x in self._parts(z))

    def logdet(self, z: A) -> A:
        return self._sum(lambda metric, x: metric.logdet(x), z)

    def logdet_gradient(self, z: A) -> A:
        return self._join(lambda metric, x: metric.logdet_gradient(x), z)

    def inner(self, z: A, u: A, v: A) -> A:
        return self._sum(lambda metric, x, a, b: metric.inner(x, a, b), z, u, v)

    def metric_derivatives(self, z: A, v: A) -> tuple[A, A, A]:
        found = [metric.metric_derivatives(x, a) for metric, x, a in self._parts(z, v)]
        first, second, third = map(self._blocks, zip(*found, strict=True))
        return first, second, third

    def speed_hessian(self, z: A, v: A) -> A:
        return self._blocks(metric.speed_hessian(x, a) for metric, x, a in self._parts(z, v))

    def christoffel(self, z: A, v: A) -> A:
        return self._join(lambda metric, x, a: metric.christoffel(x, a), z, v)

    def drift(self, z: A) -> A:
        return self._join(lambda metric, x: metric.drift(x), z)

    def scalar_curvature(self, z: A) -> A:
        return self._sum(lambda metric, x: metric.scalar_curvature(x), z)

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether all factors are symmetric."""
        return all(metric.is_symmetric for metric in self.factors)

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether all factors are; None where that is not known of one."""
        known = [metric.is_uniquely_geodesic for metric in self.factors]
        return False if False in known else None if None in known else True

    def injectivity_radius(self, z: A) -> A | None:
        found = (metric.injectivity_radius(x) for metric, x in self._parts(z))
        radii = [radius for radius in found if radius is not None]
        return self.face.xp.amin(self.face.xp.stack(radii), 0) if len(radii) == len(self.factors) else None

    def on_floor(self, z: A) -> A | None:
        """Where one of the factors is on its floor, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        return self._any([metric.on_floor(x) for metric, x in self._parts(z)])

    def covers(self, z: A) -> A | None:
        """Where all factors are known, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        known = [metric.covers(x) for metric, x in self._parts(z)]
        unknown = self._any([None if part is None else ~part for part in known])
        return None if unknown is None else ~unknown

    def _any(self, masks: list[Array]) -> Array:
        known = [mask for mask in masks if mask is not None]
        return self.face.xp.any(self.face.xp.stack(known), 0) if known else None

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: A, v: A) -> A:
        return self._join(lambda metric, x, a: metric.expmap(x, a), z, v)

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        found = [metric.expmap_log_van_vleck(x, a) for metric, x, a in self._parts(z, v)]
        points, logs = zip(*found, strict=True)
        return self.face.xp.concatenate(points, -1), self.face.xp.stack(logs).sum(0)

    def logmap(self, z: A, y: A) -> A:
        return self._join(lambda metric, x, a: metric.logmap(x, a), z, y)

    def squared_dist(self, z: A, y: A) -> A:
        return self._sum(lambda metric, x, a: metric.squared_dist(x, a), z, y)

    def log_van_vleck(self, z: A, y: A) -> A:
        return self._sum(lambda metric, x, a: metric.log_van_vleck(x, a), z, y)

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        total: Array = 0
        for metric, x, a in self._parts(z, y):
            value = metric.log_folded_density(x, a, time)
            if value is None:
                return None
            total = total + value
        return total

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        """Log density of a tangent Gaussian carried to ``y``, ``(*batch)``, where one geodesic leads there.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: on a product with a sphere or a torus, where geodesics meet again; a product of laws,
                one a factor, is known there.
        """
        unique = [metric.is_uniquely_geodesic for metric in self.factors]
        if any(one is None for one in unique):
            return None
        if not all(unique):
            folding = ", ".join(type(m).__name__ for m, one in zip(self.factors, unique, strict=True) if not one)
            raise NotImplementedError(
                f"A tangent Gaussian with a covariance of its own on a product with {folding}, where geodesics meet "
                "again, has no density in closed form. Give `time`, or a law for every factor."
            )
        return self._log_carried_normal(z, y, factor)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log heat kernel, ``(*batch)``, with respect to dM: the sum of those of the factors, which move independently.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if that of a factor has no closed form.
        """
        return self._sum(lambda metric, x, a: metric.log_heat_kernel(x, a, time), z, y)
