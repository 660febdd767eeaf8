"""The expected metric of several decoders, and how far they disagree about a distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from pyro_riemann import _linalg
from pyro_riemann._interface import Discretisation, Energy, Immersed
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.metrics._base import RiemannianMetric


class EnsembleMetric(RiemannianMetric):
    r"""Expected metric :math:`G(z) = \frac1K \sum_k G_k(z)` of K metrics in one chart, such as decoders on one code.

    Of pullbacks it is the pullback through all immersions side by side, :math:`(f_1, \dots, f_K) / \sqrt K`, exactly:
    energies have a limit as the nodes of a curve get denser, and chords need no Jacobian. (A member drawn at every node
    has none: each chord then holds the difference of two members, however short it is.) Members' disagreement acts like
    a decoder's standard deviation: where they were shown no data the expected metric is large.

    Args:
        metrics: the members, of one dimension and in one chart; their parameters are those of this metric.

    Raises:
        ValueError: if there are none, or their dimensions differ.

    Source: Syrota, Moreno-Munoz and Hauberg (2024), *Decoder ensembling for learned latent geometries*, with the sum
    over members in place of their draw at every node.

    Example:
        >>> from pyro_riemann import PullbackMetric
        >>> metric = EnsembleMetric([PullbackMetric(lambda z, s=s: s * z, dim=2, jitter=0.0) for s in (1.0, 3.0)])
        >>> z, y = torch.zeros(2), torch.tensor([1.0, 0.0])
        >>> metric.squared_dist(z, y).round(decimals=4)  # the mean of 1 and 9
        tensor(5.)
        >>> metric.dist_samples(z, y).round(decimals=4)
        tensor([1., 3.])
    """

    def __init__(self, metrics: Sequence[RiemannianMetric]) -> None:
        super().__init__()
        if not metrics:
            raise ValueError("`metrics` is empty: give at least one metric.")
        dims = [metric.dim for metric in metrics]
        if len(set(dims)) > 1:
            raise ValueError(f"`metrics` must have one dimension, got {dims}.")
        self.dim, self.members = dims[0], nn.ModuleList(metrics)
        knots = [metric.solver.num_knots for metric in metrics]
        self.solver = metrics[knots.index(max(knots))].solver

    def __len__(self) -> int:
        """The number of members."""
        return len(self.members)

    @property
    def _metrics(self) -> list[RiemannianMetric]:
        return cast(list[RiemannianMetric], list(self.members))

    def metric(self, z: Tensor) -> Tensor:
        return torch.stack([member.metric(z) for member in self._metrics]).mean(0)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(*(member.metric_jacobian(z) for member in self._metrics), strict=True)
        metric, slope = (torch.stack(part).mean(0) for part in pairs)
        return metric, slope

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = zip(*(member.metric_derivatives(z, v) for member in self._metrics), strict=True)
        metric, slope, along = (torch.stack(part).mean(0) for part in parts)
        return metric, slope, along

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        return torch.stack([member.speed_hessian(z, v) for member in self._metrics]).mean(0)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        # G Gamma(v, v), the covector, is linear in the metric
        pairs = [(member.metric(z), member.christoffel(z, v)) for member in self._metrics]
        forces = torch.stack([torch.einsum("...ij,...j->...i", *pair) for pair in pairs])
        return _linalg.solve(torch.stack([pair[0] for pair in pairs]).mean(0), forces.mean(0))

    def on_floor(self, z: Tensor) -> Tensor | None:
        """Where all members are on their floors, ``(*batch)``, of points z ``(*batch, d)``; None if one has none."""
        floors = [member.on_floor(z) for member in self._metrics]
        known = [floor for floor in floors if floor is not None]
        return torch.stack(known).all(0) if len(known) == len(floors) else None

    def covers(self, z: Tensor) -> Tensor | None:
        """Where all members are known, ``(*batch)`` bool, of points z ``(*batch, d)``; None if everywhere."""
        known = [where for member in self._metrics if (where := member.covers(z)) is not None]
        return torch.stack(known).all(0) if known else None

    # ---------------------------------------------------------------- as a surface

    def _surfaces(self) -> list[Immersed] | None:
        surfaces = [member.immersed() for member in self._metrics]
        found = [surface for surface in surfaces if surface is not None]
        return found if len(found) == len(surfaces) else None

    def immersed(self) -> Self | None:
        """This metric, if all members are those of surfaces; else None."""
        return None if self._surfaces() is None else self

    @property
    def has_jets(self) -> bool:
        """Whether second derivatives of all immersions are cheap."""
        surfaces = self._surfaces()
        return surfaces is not None and all(surface.has_jets for surface in surfaces)

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        """The discrete energy that the solver minimises: the mean of the members', by chords if all are surfaces.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        if self._surfaces() is None:
            return super().energy(settings, guide)
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)

    def embed(self, z: Tensor) -> Tensor:
        """Immersed points of all members side by side, over the root of K: z ``(*batch, d)`` gives ``(*batch, D)``.

        Raises:
            ValueError: if a member is the metric of no surface.
        """
        return torch.cat([surface.embed(z) for surface in self._known_surfaces()], -1) / len(self) ** 0.5

    def embed_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``.

        Raises:
            ValueError: if a member is the metric of no surface.
        """
        pairs = [surface.embed_jacobian(z) for surface in self._known_surfaces()]
        value, jacobian = torch.cat([pair[0] for pair in pairs], -1), torch.cat([pair[1] for pair in pairs], -2)
        return value / len(self) ** 0.5, jacobian / len(self) ** 0.5

    def _known_surfaces(self) -> list[Immersed]:
        if (surfaces := self._surfaces()) is None:
            raise ValueError("A member of this ensemble is the metric of no surface: there is no immersion.")
        return surfaces

    # ---------------------------------------------------------------- the spread

    def dist_samples(self, z: Tensor, y: Tensor) -> Tensor:
        """Distances under each member, ``(K, *batch)``: their spread is what the ensemble does not know.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``.
        """
        return torch.stack([member.dist(z, y) for member in self._metrics])
