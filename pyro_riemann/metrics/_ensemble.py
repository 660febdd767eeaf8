"""The expected metric of several decoders, and how far they disagree about a distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from pyro_riemann._formulas.ensemble import Ensemble
from pyro_riemann._interface import Discretisation, Energy
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.metrics._base import RiemannianMetric


class EnsembleMetric(Ensemble[Tensor], RiemannianMetric):
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
        self.dim, self.members = dims[0], nn.ModuleList(metrics)  # type: ignore[assignment]  # torch does not say of what
        knots = [metric.solver.num_knots for metric in metrics]
        self.solver = metrics[knots.index(max(knots))].solver

    def immersed(self) -> Self | None:
        """This metric, if all members are those of surfaces; else None."""
        return None if self._surfaces() is None else self

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        """The discrete energy that the solver minimises: the mean of the members', by chords if all are surfaces.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        if self._surfaces() is None:
            return super().energy(settings, guide)
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)
