"""The algebra of metrics that are another one times a constant, or in other coordinates."""

from __future__ import annotations

from typing import Any

from pyro_riemann._formulas import Array, eye
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.radial import RadialLaw


class Rewritten(MetricAlgebra[A]):
    """A metric whose geodesics are those of another one, ``base``."""

    base: MetricAlgebra[A]

    @property
    def solver(self) -> Any:
        """Settings of the boundary-value solver: those of ``base``, where the solving is done."""
        return self.base.solver

    @solver.setter
    def solver(self, value: Any) -> None:
        self.base.solver = value

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether ``base`` is symmetric."""
        return self.base.is_symmetric

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether ``base`` is."""
        return self.base.is_uniquely_geodesic


class Scaled(Rewritten[A]):
    """``base`` times a number, ``factor``."""

    factor: A

    def _scale(self, like: A) -> Array:
        """The number, of the dtype and device of ``like``."""
        return self.face.cast(self.factor, like)

    def _root(self, like: A) -> Array:
        return self.face.xp.sqrt(self._scale(like))

    def _log_volume(self, like: A) -> Array:
        """What the logarithm of the volume element gains."""
        return 0.5 * self.dim * self.face.xp.log(self._scale(like))

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: A) -> A:
        return self._scale(z) * self.base.metric(z)

    def cholesky(self, z: A) -> A:
        return self._root(z) * self.base.cholesky(z)

    def logdet(self, z: A) -> A:
        return self.base.logdet(z) + 2 * self._log_volume(z)

    def logdet_gradient(self, z: A) -> A:
        return self.base.logdet_gradient(z)

    def inner(self, z: A, u: A, v: A) -> A:
        return self._scale(z) * self.base.inner(z, u, v)

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        metric, slope = self.base.metric_jacobian(z)
        return self._scale(z) * metric, self._scale(z) * slope

    def metric_derivatives(self, z: A, v: A) -> tuple[A, A, A]:
        metric, slope, along = self.base.metric_derivatives(z, v)
        return self._scale(z) * metric, self._scale(z) * slope, self._scale(z) * along

    def speed_hessian(self, z: A, v: A) -> A:
        return self._scale(z) * self.base.speed_hessian(z, v)

    def christoffel(self, z: A, v: A) -> A:
        return self.base.christoffel(z, v)

    def drift(self, z: A) -> A:
        return self.base.drift(z) / self._scale(z)

    def scalar_curvature(self, z: A) -> A:
        return self.base.scalar_curvature(z) / self._scale(z)

    def injectivity_radius(self, z: A) -> A | None:
        radius = self.base.injectivity_radius(z)
        return None if radius is None else self._root(z) * radius

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        return self.base.ambient_hint(shape)

    @property
    def landmarks(self) -> A | None:  # type: ignore[override]  # others hold it
        """The landmarks of ``base``, ``(k, d)``."""
        return self.base.landmarks

    def peaks(self) -> Peaks | None:
        return self.base.peaks()

    def on_floor(self, z: A) -> A | None:
        return self.base.on_floor(z)

    def covers(self, z: A) -> A | None:
        return self.base.covers(z)

    def coverage(self, codes: A) -> A | float | None:
        return self.base.coverage(codes)

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: A, v: A) -> A:
        return self.base.expmap(z, v)

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        return self.base.expmap_log_van_vleck(z, v)

    def logmap(self, z: A, y: A) -> A:
        return self.base.logmap(z, y)

    def squared_dist(self, z: A, y: A) -> A:
        return self._scale(z) * self.base.squared_dist(z, y)

    def dist(self, z: A, y: A) -> A:
        return self._root(z) * self.base.dist(z, y)

    def log_van_vleck(self, z: A, y: A) -> A:
        return self.base.log_van_vleck(z, y)

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        value = self.base.log_folded_density(z, y, time / self._scale(z))
        return None if value is None else value - self._log_volume(z)

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        value = self.base.log_folded_normal(z, y, factor)
        return None if value is None else value - self._log_volume(z)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log heat kernel of ``base`` at time t / c, ``(*batch)``, as a density with respect to dM of this metric.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance t of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if the heat kernel of ``base`` has no closed form.
        """
        return self.base.log_heat_kernel(z, y, time / self._scale(z)) - self._log_volume(z)


class Warped(Rewritten[A]):
    """``base`` in other coordinates; a face tells the map by ``to_base`` and ``from_base``."""

    has_jets = False

    def to_base(self, z: A) -> A:
        """F(z): the points ``z`` in the chart of ``base``, ``(*batch, d)``."""
        raise NotImplementedError

    def from_base(self, x: A) -> A:
        """The points ``x`` of the chart of ``base`` in this chart, ``(*batch, d)``."""
        raise NotImplementedError

    def _jacobian(self, z: A) -> tuple[Array, Array]:
        return self.face.jacobian(self.to_base, self.face.check_point("z", z, self.dim), self.dim)

    def _push(self, z: A, v: A) -> tuple[Array, Array]:
        return self.face.directional(self.to_base, *self.face.broadcast(z, v))

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: A) -> A:
        x, jacobian = self._jacobian(z)
        return jacobian.mT @ self.base.metric(x) @ jacobian

    def logdet(self, z: A) -> A:
        x, jacobian = self._jacobian(z)
        return self.base.logdet(x) + 2 * self.face.log_abs_det(jacobian)

    def inner(self, z: A, u: A, v: A) -> A:
        (x, first), (_, second) = self._push(z, u), self._push(z, v)
        return self.base.inner(x, first, second)

    def christoffel(self, z: A, v: A) -> A:
        z, v = self.face.broadcast(z, v)
        x, jacobian = self._jacobian(z)
        _, pushed, acceleration = self.face.second_directional(self.to_base, z, v)
        return self.face.solve(jacobian, self.base.christoffel(x, pushed) + acceleration)

    def drift(self, z: A) -> A:
        """Ito drift at ``z`` by Ito's formula, ``(*batch, d)``.

        That of ``base`` less half the trace of F's second derivative, pulled back.
        """
        xp, (x, jacobian) = self.face.xp, self._jacobian(z)
        factor = xp.linalg.cholesky(jacobian.mT @ self.base.metric(x) @ jacobian)
        axes = eye(xp, self.dim, factor).reshape(self.dim, *(1,) * (z.ndim - 1), self.dim)
        frame = self.face.solve(factor.mT, axes)
        _, _, bend = self.face.second_directional(self.to_base, xp.broadcast_to(z, frame.shape), frame)
        return self.face.solve(jacobian, self.base.drift(x) - bend.sum(0) / 2)

    def radial_law(self) -> RadialLaw | None:
        """What ``base`` knows of the volume around every point; periods of a torus are of the axes of ``base``."""
        return self.base.radial_law()

    def injectivity_radius(self, z: A) -> A | None:
        return self.base.injectivity_radius(self.to_base(z))

    def scalar_curvature(self, z: A) -> A:
        return self.base.scalar_curvature(self.to_base(z))

    def on_floor(self, z: A) -> A | None:
        return self.base.on_floor(self.to_base(z))

    def covers(self, z: A) -> A | None:
        return self.base.covers(self.to_base(z))

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: A, v: A) -> A:
        return self.from_base(self.base.expmap(*self._push(z, v)))

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        x, log_van_vleck = self.base.expmap_log_van_vleck(*self._push(z, v))
        return self.from_base(x), log_van_vleck

    def logmap(self, z: A, y: A) -> A:
        x, jacobian = self._jacobian(z)
        return self.face.solve(jacobian, self.base.logmap(x, self.to_base(y)))

    def squared_dist(self, z: A, y: A) -> A:
        return self.base.squared_dist(self.to_base(z), self.to_base(y))

    def dist(self, z: A, y: A) -> A:
        return self.base.dist(self.to_base(z), self.to_base(y))

    def log_van_vleck(self, z: A, y: A) -> A:
        return self.base.log_van_vleck(self.to_base(z), self.to_base(y))

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        return self.base.log_folded_density(self.to_base(z), self.to_base(y), time)

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        x, jacobian = self._jacobian(z)
        return self.base.log_folded_normal(x, self.to_base(y), jacobian @ factor)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log heat kernel of ``base``, ``(*batch)``, with respect to dM, which no change of coordinates touches.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if the heat kernel of ``base`` has no closed form.
        """
        return self.base.log_heat_kernel(self.to_base(z), self.to_base(y), time)

    # ---------------------------------------------------------------- pullbacks only

    def embed(self, z: A) -> A:
        """The immersed points of ``base``, ``(*batch, D)`` at ``z``.

        Raises:
            TypeError: if ``base`` is no pullback, so that :meth:`immersed` is None.
        """
        surface = self.base.immersed()
        if surface is None:
            raise TypeError(f"{type(self.base).__name__} is no pullback: it has no immersion.")
        return surface.embed(self.to_base(z))

    def embed_jacobian(self, z: A) -> tuple[A, A]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``.

        Raises:
            TypeError: as :meth:`embed`.
        """
        return self.face.jacobian(self.embed, z, self.dim)
