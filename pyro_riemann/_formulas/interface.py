"""What of the protocols of both faces does not depend on the array library."""

from __future__ import annotations

from typing import Protocol, Self, TypedDict, Unpack

from pyro_riemann._formulas.calculus import A


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


class Search(Discretisation, Protocol):
    """The settings of a solver that its iterations need."""

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


class Pointwise(Protocol[A]):
    """What a metric computes at points and pairs of them; points and vectors are ``(*batch, d)``."""

    dim: int
    max_memory: int

    def footprint(self, order: int) -> int:
        """Numbers held at a point while G, or its derivatives of this order, are computed; -1 for images alone."""
        ...

    # pointwise
    def metric(self, z: A) -> A:
        """G, ``(*batch, d, d)``."""
        ...

    def logdet(self, z: A) -> A:
        """``log det G``, ``(*batch)``."""
        ...

    def inner(self, z: A, u: A, v: A) -> A:
        """``u^T G v``, ``(*batch)``."""
        ...

    def norm(self, z: A, v: A) -> A:
        """``sqrt(v^T G v)``, ``(*batch)``."""
        ...

    def covers(self, z: A) -> A | None:
        """Where G is known, ``(*batch)`` bool; None if everywhere."""
        ...

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        """G and its coordinate derivatives, ``(*batch, d, d, d)``."""
        ...

    def metric_derivatives(self, z: A, v: A) -> tuple[A, A, A]:
        """G, ``d (G v)_i / d z_j`` and the derivative of G along ``v``."""
        ...

    def speed_hessian(self, z: A, v: A) -> A:
        """Second derivative of ``v^T G v / 2`` in z."""
        ...

    def christoffel(self, z: A, v: A) -> A:
        """The Christoffel symbols contracted with ``v`` twice."""
        ...

    # maps and distances
    def expmap(self, z: A, v: A) -> A:
        """Exponential map."""
        ...

    def logmap(self, z: A, y: A) -> A:
        """Its inverse."""
        ...

    def squared_dist(self, z: A, y: A) -> A:
        """Squared distance, ``(*batch)``."""
        ...

    # what a metric may know besides
    @property
    def landmarks(self) -> A | None:
        """Points ``(k, d)`` that every search for a path should know of."""
        ...


class Box(Protocol[A]):
    """Where a table reaches: two corners ``(d,)``."""

    low: A
    high: A
