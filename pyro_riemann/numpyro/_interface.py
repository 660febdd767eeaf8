"""What a metric is to the code below it: the protocols that the geodesics are written against.

:class:`Metric` is what every metric offers; :class:`Immersed` and :class:`Tabulated` are what some know besides, and
say so by :meth:`Metric.immersed` and :meth:`Metric.tabulated`. ``RiemannianMetric`` fulfils them from ``dim`` and
``metric(z)`` alone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self, TypedDict, Unpack

import numpy as np
from jax import Array


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


class Settings(TypedDict, total=False):
    """Fields of a ``GeodesicSolver`` by name, as a metric's ``geodesic`` takes them."""

    num_knots: int
    num_segments: int
    max_iterations: int
    max_polish: int
    tolerance: float
    richardson: bool
    constant_hessian: bool
    graph_resolution: int
    on_failure: str


class AllSettings(Settings, total=False):
    """The same with the start of the search, which ``geodesic`` takes by itself."""

    init: str


class Discretisation(Protocol):
    """The settings of a solver that an energy needs."""

    @property
    def num_knots(self) -> int:
        """Intervals of the spline."""
        ...

    @property
    def num_segments(self) -> int:
        """Chords or nodes."""
        ...

    @property
    def richardson(self) -> bool:
        """Whether chords are extrapolated."""
        ...


class Metric(Protocol):
    """Any metric; points and vectors are ``(*batch, d)``."""

    dim: int
    max_memory: int

    def footprint(self, order: int) -> int:
        """Numbers held at a point while G, or its derivatives of this order, are computed; -1 for images alone."""
        ...

    # pointwise
    def metric(self, z: Array) -> Array:
        """G, ``(*batch, d, d)``."""
        ...

    def logdet(self, z: Array) -> Array:
        """``log det G``, ``(*batch)``."""
        ...

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        """``u^T G v``, ``(*batch)``."""
        ...

    def norm(self, z: Array, v: Array) -> Array:
        """``sqrt(v^T G v)``, ``(*batch)``."""
        ...

    def covers(self, z: Array) -> Array | None:
        """Where G is known, ``(*batch)`` bool; None if everywhere."""
        ...

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        """G and its coordinate derivatives, ``(*batch, d, d, d)``."""
        ...

    def metric_derivatives(self, z: Array, v: Array) -> tuple[Array, Array, Array]:
        """G, ``d (G v)_i / d z_j`` and the derivative of G along ``v``."""
        ...

    def speed_hessian(self, z: Array, v: Array) -> Array:
        """Second derivative of ``v^T G v / 2`` in z."""
        ...

    def christoffel(self, z: Array, v: Array) -> Array:
        """The Christoffel symbols contracted with ``v`` twice."""
        ...

    # maps and distances
    def expmap(self, z: Array, v: Array) -> Array:
        """Exponential map."""
        ...

    def logmap(self, z: Array, y: Array) -> Array:
        """Its inverse."""
        ...

    def squared_dist(self, z: Array, y: Array) -> Array:
        """Squared distance, ``(*batch)``."""
        ...

    # what a metric may know besides
    @property
    def landmarks(self) -> Array | None:
        """Points ``(k, d)`` that every search for a path should know of."""
        ...

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


class Immersed(Metric, Protocol):
    """The metric of a surface: the pullback of the Euclidean one through an immersion."""

    @property
    def has_jets(self) -> bool:
        """Whether second derivatives of the immersion are cheap."""
        ...

    def embed(self, z: Array) -> Array:
        """The immersed points, ``(*batch, D)``."""
        ...

    def embed_jacobian(self, z: Array) -> tuple[Array, Array]:
        """These and their Jacobian, ``(*batch, D, d)``."""
        ...


class Box(Protocol):
    """Where a table reaches: two corners ``(d,)``."""

    low: Array
    high: Array


class Paths(Protocol):
    """Shortest paths on a table, to look up."""

    def interior(self, z: Array, y: Array, num_knots: int) -> Array:
        """Control points without the ends, ``(P, num_knots + 1, d)``."""
        ...


class Tabulated(Metric, Protocol):
    """A metric on a box, whose evaluation costs nearly nothing."""

    @property
    def table(self) -> Box:
        """The box."""
        ...

    @property
    def paths(self) -> Paths | None:
        """Curves along shortest paths, looked up; None where they were not prepared."""
        ...


class Solver(Discretisation, Protocol):
    """The settings of a solver that its helpers need."""

    @property
    def max_iterations(self) -> int:
        """Bound on the iterations with the tangential Hessian."""
        ...

    @property
    def max_polish(self) -> int:
        """Bound on those with the full one."""
        ...

    @property
    def tolerance(self) -> float:
        """Relative error of the energy."""
        ...

    def replace(self, **settings: Unpack[Settings]) -> Self:
        """A copy with other settings."""
        ...

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
