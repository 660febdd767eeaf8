"""A generic numerical version of every method of a metric, from ``dim`` and ``metric(z)`` alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np
from jax import Array
from numpyro.distributions import constraints

from pyro_riemann._formulas.calculus import Calculus
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._members import adopt
from pyro_riemann.numpyro import _calculus
from pyro_riemann.numpyro._checks import guarded_metric
from pyro_riemann.numpyro._interface import Discretisation, Energy, Immersed, Metric, Settings, Tabulated
from pyro_riemann.numpyro._memory import bound_memory
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import (
    Geodesic,
    GeodesicSolver,
    expmap,
    expmap_log_van_vleck,
    log_van_vleck,
    scalar_curvature,
)
from pyro_riemann.numpyro.geodesics._energy import QuadratureEnergy

Corner = float | Sequence[float] | np.ndarray | Array


class GenericMetric(MetricAlgebra[Array], Pytree):
    """Everything that follows from ``dim`` and ``metric(z)``; its public face is :class:`RiemannianMetric`.

    Tables and conformal metrics, which every metric can make of itself, are built on this class.
    """

    face: ClassVar[Calculus] = _calculus
    solver: GeodesicSolver = GeodesicSolver()
    support: constraints.Constraint = constraints.real_vector

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        adopt(cls, GenericMetric)
        bound_memory(cls)
        guarded_metric(cls)

    # ---------------------------------------------------------------- pointwise algebra

    def scalar_curvature(self, z: Array) -> Array:
        return scalar_curvature(self, z)

    # ---------------------------------------------------------------- initial-value problem

    def expmap(self, z: Array, v: Array) -> Array:
        return expmap(self, z, v, self.flow_steps)

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        return expmap_log_van_vleck(self, z, v, self.flow_steps)

    # ---------------------------------------------------------------- boundary-value problem

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        return QuadratureEnergy(self, settings.num_knots, settings.num_segments, guide)

    def immersed(self) -> Immersed | None:
        """This metric with the immersion whose pullback it is; None, as here, where none is known."""
        return None

    @property
    def condensed(self) -> Metric:
        """A metric with the same energies that costs less to evaluate, for searches; itself if there is none."""
        return self

    def tabulated(self) -> Tabulated | None:
        """This metric with its table, if it is one (a :class:`GridMetric`); else None."""
        return None

    @abstractmethod
    def tabulate(self, low: Corner, high: Corner, resolution: int) -> Tabulated:
        """A table of this metric on a box of the chart; d <= 3."""

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        """Shortest curve from ``z`` to ``y``, batches broadcast.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            init: ``"line"`` starts from the straight line, ``"graph"`` from the better of the
                line and a shortest path on a graph, which finds the global minimum more often.
            **settings: override fields of :attr:`solver` for this call.

        Raises:
            ValueError: for an unknown ``init``, or settings out of range.
        """
        return self.solver.replace(init=init, **settings).solve(self, z, y)

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return log_van_vleck(self, z, y)


adopt(GenericMetric, GenericMetric)
bound_memory(GenericMetric)
guarded_metric(GenericMetric)
