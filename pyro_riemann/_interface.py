"""What a metric is to the code below it: the protocols that the geodesics are written against.

:class:`Metric` is what every metric offers; :class:`Immersed` and :class:`Tabulated` are what some know besides, and
say so by :meth:`Metric.immersed` and :meth:`Metric.tabulated`. ``RiemannianMetric`` fulfils them from ``dim`` and
``metric(z)`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from pyro_riemann._formulas.calculus import Surface
from pyro_riemann._formulas.interface import AllSettings, Box, Discretisation, Pointwise, Search, Settings

__all__ = ["AllSettings", "Discretisation", "Energy", "Immersed", "Metric", "Settings", "Solver", "System", "Tabulated"]


class System(NamedTuple):
    """Second-order model of the energy around the current curves."""

    energy: Tensor  # (P,)
    gradient: Tensor  # (P, C, d)
    hessian: Tensor  # (P, C d, C d), tangential or full
    stiffening: Tensor  # (P, C d, C d), positive, added in proportion to the damping


class Energy(Protocol):
    r"""A discrete version of :math:`\tfrac12\int |\gamma'|^2_G\,dt` for a batch of P splines ``(P, C, d)``."""

    @property
    def metric(self) -> Metric:
        """The metric whose energy this is."""
        ...

    num_knots: int
    num_segments: int
    frugal: bool  # whether a gradient costs so much less than a Hessian that few of these must do

    def rows(self, index: Tensor) -> Energy:
        """The energy of some of the curves."""
        ...

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        ...

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient."""
        ...

    def system(self, control: Tensor) -> System:
        """Energy, gradient and tangential Hessian."""
        ...

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        ...

    def constant_system(self, control: Tensor) -> System:
        """The same with the Hessian of a constant metric."""
        ...


class Metric(Pointwise[Tensor], Protocol):
    """Any metric."""

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        """The discrete energy of its boundary-value problem."""
        ...

    def immersed(self) -> Immersed | None:
        """The metric as that of an immersed surface, if it is one."""
        ...

    def tabulated(self) -> Tabulated | None:
        """The metric as a table, if it is one."""
        ...

    def tabulate(self, low: Tensor, high: Tensor, resolution: int) -> Tabulated:
        """A table of the metric on a box."""
        ...


class Immersed(Metric, Surface[Tensor], Protocol):
    """The metric of a surface: the pullback of the Euclidean one through an immersion."""


class Tabulated(Metric, Protocol):
    """A metric on a box, whose evaluation costs nearly nothing."""

    @property
    def table(self) -> Box[Tensor]:
        """The box."""
        ...

    @property
    def paths(self) -> Callable[[Tensor, Tensor, int], Tensor] | None:
        """Curves along shortest paths, looked up; None where they were not prepared."""
        ...


class Solver(Search, Protocol):
    """The settings of a solver that its helpers need."""

    def energy(self, metric: Metric, guide: Tensor | None = None) -> Energy:
        """The discrete energy that is minimised."""
        ...

    def room(self, metric: Metric, start: Tensor, segments: int | None = None) -> int:
        """Number of curves in work at a time."""
        ...
