"""What a metric is to the code below it: the protocols that the geodesics are written against.

:class:`Metric` is what every metric offers; :class:`Immersed` and :class:`Tabulated` are what some know besides, and
say so by :meth:`Metric.immersed` and :meth:`Metric.tabulated`. ``RiemannianMetric`` fulfils them from ``dim`` and
``metric(z)`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self, TypedDict, Unpack

from torch import Tensor


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
    def metric(self, z: Tensor) -> Tensor:
        """G, ``(*batch, d, d)``."""
        ...

    def logdet(self, z: Tensor) -> Tensor:
        """``log det G``, ``(*batch)``."""
        ...

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``u^T G v``, ``(*batch)``."""
        ...

    def norm(self, z: Tensor, v: Tensor) -> Tensor:
        """``sqrt(v^T G v)``, ``(*batch)``."""
        ...

    def covers(self, z: Tensor) -> Tensor | None:
        """Where G is known, ``(*batch)`` bool; None if everywhere."""
        ...

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """G and its coordinate derivatives, ``(*batch, d, d, d)``."""
        ...

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G, ``d (G v)_i / d z_j`` and the derivative of G along ``v``."""
        ...

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        """Second derivative of ``v^T G v / 2`` in z."""
        ...

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        """The Christoffel symbols contracted with ``v`` twice."""
        ...

    # maps and distances
    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        """Exponential map."""
        ...

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        """Its inverse."""
        ...

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        """Squared distance, ``(*batch)``."""
        ...

    # what a metric may know besides
    @property
    def landmarks(self) -> Tensor | None:
        """Points ``(k, d)`` that every search for a path should know of."""
        ...

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


class Immersed(Metric, Protocol):
    """The metric of a surface: the pullback of the Euclidean one through an immersion."""

    @property
    def has_jets(self) -> bool:
        """Whether second derivatives of the immersion are cheap."""
        ...

    def embed(self, z: Tensor) -> Tensor:
        """The immersed points, ``(*batch, D)``."""
        ...

    def embed_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """These and their Jacobian, ``(*batch, D, d)``."""
        ...


class Box(Protocol):
    """Where a table reaches: two corners ``(d,)``."""

    low: Tensor
    high: Tensor


class Tabulated(Metric, Protocol):
    """A metric on a box, whose evaluation costs nearly nothing."""

    @property
    def table(self) -> Box:
        """The box."""
        ...

    @property
    def paths(self) -> Callable[[Tensor, Tensor, int], Tensor] | None:
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

    def energy(self, metric: Metric, guide: Tensor | None = None) -> Energy:
        """The discrete energy that is minimised."""
        ...

    def room(self, metric: Metric, start: Tensor) -> int:
        """Number of curves in work at a time."""
        ...
