"""What a metric is to the code below it: the protocols that the geodesics are written against.

:class:`Metric` is what every metric offers; :class:`Immersed` and :class:`Tabulated` are what some know besides, and
say so by :meth:`Metric.immersed` and :meth:`Metric.tabulated`. ``RiemannianMetric`` fulfils them from ``dim`` and
``metric(z)`` alone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jax import Array

from pyro_riemann._formulas.calculus import Surface
from pyro_riemann._formulas.interface import AllSettings, Box, Discretisation, Pointwise, Search, Settings

__all__ = ["AllSettings", "Discretisation", "Energy", "Immersed", "Metric", "Settings", "Solver", "System", "Tabulated"]


class System(NamedTuple):
    """Second-order model of the energy around the current curves."""

    energy: Array  # (P,)
    gradient: Array  # (P, C, d)
    hessian: Array  # (P, C d, C d), tangential or full
    stiffening: Array  # (P, C d, C d), positive, added in proportion to the damping


class Energy(Protocol):
    r"""A discrete version of :math:`\tfrac12\int |\gamma'|^2_G\,dt` for a batch of P splines ``(P, C, d)``."""

    @property
    def metric(self) -> Metric:
        """The metric whose energy this is."""
        ...

    num_knots: int
    num_segments: int
    frugal: bool  # whether a gradient costs so much less than a Hessian that few of these must do

    def rows(self, index: Array) -> Energy:
        """The energy of some of the curves."""
        ...

    def value(self, control: Array) -> Array:
        """Energy of each curve, ``(P,)``."""
        ...

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient."""
        ...

    def system(self, control: Array) -> System:
        """Energy, gradient and tangential Hessian."""
        ...

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        ...

    def constant_system(self, control: Array) -> System:
        """The same with the Hessian of a constant metric."""
        ...


class Metric(Pointwise[Array], Protocol):
    """Any metric."""

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        """The discrete energy of its boundary-value problem."""
        ...

    def immersed(self) -> Immersed | None:
        """The metric as that of an immersed surface, if it is one."""
        ...

    def tabulated(self) -> Tabulated | None:
        """The metric as a table, if it is one."""
        ...

    @property
    def condensed(self) -> Metric:
        """A metric with the same energies that costs less to evaluate, for searches; itself if there is none."""
        ...

    def tabulate(self, low: Array | np.ndarray, high: Array | np.ndarray, resolution: int) -> Tabulated:
        """A table of the metric on a box."""
        ...


class Immersed(Metric, Surface[Array], Protocol):
    """The metric of a surface: the pullback of the Euclidean one through an immersion."""


class Paths(Protocol):
    """Shortest paths on a table, to look up."""

    def interior(self, z: Array, y: Array, num_knots: int) -> Array:
        """Control points without the ends, ``(P, num_knots + 1, d)``."""
        ...


class Tabulated(Metric, Protocol):
    """A metric on a box, whose evaluation costs nearly nothing."""

    @property
    def table(self) -> Box[Array]:
        """The box."""
        ...

    @property
    def paths(self) -> Paths | None:
        """Curves along shortest paths, looked up; None where they were not prepared."""
        ...


class Solver(Search, Protocol):
    """The settings of a solver that its helpers need."""

    @property
    def constant_hessian(self) -> bool:
        """Whether the Hessian is that of a constant metric."""
        ...

    @property
    def graph_resolution(self) -> int:
        """Nodes an axis of the table and graph behind a start on a graph."""
        ...

    @property
    def on_failure(self) -> str:
        """What is done about pairs that did not converge."""
        ...

    def starts(self, metric: Metric, z: Array, y: Array) -> Array | None:
        """Where to begin: None for the straight line, or interior control points ``(S, P, num_knots + 1, d)``."""
        ...
