"""The algebra of the mean of several metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyro_riemann._formulas import Array
from pyro_riemann._formulas.calculus import A, Surface
from pyro_riemann._formulas.metric import MetricAlgebra


class Ensemble(MetricAlgebra[A]):
    """The mean of metrics in one chart, ``members``."""

    members: Sequence[MetricAlgebra[A]]

    def __len__(self) -> int:
        """The number of members."""
        return len(self.members)

    def _mean(self, values: Iterable[Array]) -> Array:
        """The mean of one array for each member."""
        return self.face.xp.stack(list(values)).mean(0)

    def metric(self, z: A) -> A:
        return self._mean(member.metric(z) for member in self.members)

    def inner(self, z: A, u: A, v: A) -> A:
        return self._mean(member.inner(z, u, v) for member in self.members)

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        pairs = zip(*(member.metric_jacobian(z) for member in self.members), strict=True)
        metric, slope = map(self._mean, pairs)
        return metric, slope

    def metric_derivatives(self, z: A, v: A) -> tuple[A, A, A]:
        parts = zip(*(member.metric_derivatives(z, v) for member in self.members), strict=True)
        metric, slope, along = map(self._mean, parts)
        return metric, slope, along

    def speed_hessian(self, z: A, v: A) -> A:
        return self._mean(member.speed_hessian(z, v) for member in self.members)

    def christoffel(self, z: A, v: A) -> A:
        # G Gamma(v, v), the covector, is linear in the metric
        pairs = [(member.metric(z), member.christoffel(z, v)) for member in self.members]
        force = self._mean(self.face.xp.einsum("...ij,...j->...i", *pair) for pair in pairs)
        return self.face.solve(self._mean(metric for metric, _ in pairs), force)

    def on_floor(self, z: A) -> A | None:
        """Where all members are on their floors, ``(*batch)``, of points z ``(*batch, d)``; None if one has none."""
        floors = [member.on_floor(z) for member in self.members]
        known = [floor for floor in floors if floor is not None]
        return self.face.xp.all(self.face.xp.stack(known), 0) if len(known) == len(floors) else None

    def covers(self, z: A) -> A | None:
        """Where all members are known, ``(*batch)`` bool, of points z ``(*batch, d)``; None if everywhere."""
        known = [where for member in self.members if (where := member.covers(z)) is not None]
        return self.face.xp.all(self.face.xp.stack(known), 0) if known else None

    # ---------------------------------------------------------------- as a surface

    def _surfaces(self) -> list[Surface[A]] | None:
        surfaces = [member.immersed() for member in self.members]
        found = [surface for surface in surfaces if surface is not None]
        return found if len(found) == len(surfaces) else None

    @property
    def has_jets(self) -> bool:
        """Whether second derivatives of all immersions are cheap."""
        surfaces = self._surfaces()
        return surfaces is not None and all(surface.has_jets for surface in surfaces)

    def embed(self, z: A) -> A:
        """Immersed points of all members side by side, over the root of K: z ``(*batch, d)`` gives ``(*batch, D)``.

        Raises:
            ValueError: if a member is the metric of no surface.
        """
        return self.face.xp.concatenate([surface.embed(z) for surface in self._known_surfaces()], -1) / len(self) ** 0.5

    def embed_jacobian(self, z: A) -> tuple[A, A]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``.

        Raises:
            ValueError: if a member is the metric of no surface.
        """
        pairs = [surface.embed_jacobian(z) for surface in self._known_surfaces()]
        values, jacobians = zip(*pairs, strict=True)
        value, jacobian = self.face.xp.concatenate(values, -1), self.face.xp.concatenate(jacobians, -2)
        return value / len(self) ** 0.5, jacobian / len(self) ** 0.5

    def _known_surfaces(self) -> list[Surface[A]]:
        if (surfaces := self._surfaces()) is None:
            raise ValueError("A member of this ensemble is the metric of no surface: there is no immersion.")
        return surfaces

    # ---------------------------------------------------------------- the spread

    def dist_samples(self, z: A, y: A) -> A:
        """Distances under each member, ``(K, *batch)``: their spread is what the ensemble does not know.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``.
        """
        return self.face.xp.stack([member.dist(z, y) for member in self.members])
