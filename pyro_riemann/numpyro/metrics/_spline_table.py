"""Splines through values on a grid, and all distances from one centre as such a table."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import smooth, spline_table
from pyro_riemann._formulas.distance_field import distance_table
from pyro_riemann.numpyro._pytree import Pytree


class SplineTable(Pytree):
    """Cubic spline through values on a regular grid, for points in its box.

    Evaluation gathers the 4^d coefficients around each point and contracts them with
    polynomial weights, differentiable in z to any order. Outside the box the value at the nearest face is kept: it
    is constant across.

    Args:
        values: NumPy array ``(R_1, ..., R_d, F)``, at least 4 nodes an axis.
        low: lower corner, ``(d,)``; its dtype is that of the table.
        high: upper corner, ``(d,)``.
    """

    pytree_data_fields = ("coefficients", "high", "low")
    coefficients: Array
    low: Array
    high: Array

    def __init__(self, values: np.ndarray[Any, Any], low: Array, high: Array) -> None:
        self.low, self.high = low, high
        self.coefficients = jnp.asarray(spline_table.prefilter(values), low.dtype)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(size - 2 for size in self.coefficients.shape[:-1])

    def contains(self, z: Array) -> Array:
        """Whether points lie in the box, ``(*batch)`` bool; false for NaN."""
        found: Array = spline_table.contains(z, self.low.astype(z.dtype), self.high.astype(z.dtype))
        return found

    def __call__(self, z: Array) -> Array:
        """Values ``(*batch, F)`` at ``z`` ``(*batch, d)``."""
        return _look_up(self, z, 0)[0]

    def with_jacobian(self, z: Array) -> tuple[Array, Array]:
        """Values ``(*batch, F)`` and their derivatives ``(*batch, F, d)``."""
        value, slope = _look_up(self, z, 1)
        return value, slope

    def with_hessian(self, z: Array) -> tuple[Array, Array, Array]:
        """Values ``(*batch, F)`` with first ``(*batch, F, d)`` and second ``(*batch, F, d, d)`` derivatives."""
        value, slope, curve = _look_up(self, z, 2)
        return value, slope, curve


@partial(jax.jit, static_argnums=2)
def _look_up(table: SplineTable, z: Array, order: int) -> tuple[Array, ...]:
    low, high = table.low.astype(z.dtype), table.high.astype(z.dtype)
    with jax.default_matmul_precision("highest"):
        return spline_table.look_up(jnp, table.coefficients, low, high, z, order)


class _Tabulated(Protocol):
    """A metric on a box."""

    dim: int
    table: SplineTable


class DistanceField(Pytree):
    r"""Geodesic distances from a fixed centre to every point of a box.

    The squared distance is kept as a cubic spline, so a value and its gradient in ``z`` cost
    one table look-up, under ``jit`` and ``vmap`` too. Built on the host by :meth:`GridMetric.distance_field`. Distances
    are those of the shortest curve inside the box, and globally shortest: no start has to be guessed. At the cut
    locus, where the distance has a kink, the spline rounds it off over a cell or two.

    Args:
        metric: a tabulated metric.
        loc: the centre, ``(d,)``, inside its box.
        resolution: nodes an axis.
        max_sweeps: limit of the refinement.
        tolerance: it stops once no value moves by more than this share of the largest.
        horizon: distances beyond it are left as the shortest paths on the grid give them.

    Attributes:
        loc: the centre, ``(d,)``; the field is not differentiable in it.
        eikonal_error: median of :math:`\bigl| |\nabla u|_{G^{-1}} - 1 \bigr|` at the centres of the cells
            within the horizon.
        num_sweeps: sweeps that the refinement took.

    Source: Sethian (1999), *Level Set Methods and Fast Marching Methods*; Dijkstra (1959), *A note on two
    problems in connexion with graphs*.

    Example:
        >>> field = GridMetric(EuclideanMetric(2), -1.0, 1.0, 8).distance_field(jnp.zeros(2))
        >>> round(field(jnp.array([0.6, 0.8])).item(), 3)
        1.0
    """

    pytree_data_fields = ("eikonal_error", "loc", "num_sweeps", "table")
    loc: Array
    eikonal_error: Array
    num_sweeps: Array
    table: SplineTable

    def __init__(
        self,
        metric: _Tabulated,
        loc: Array,
        resolution: tuple[int, ...],
        max_sweeps: int,
        tolerance: float,
        horizon: float = math.inf,
    ) -> None:
        self.dim, table = metric.dim, metric.table
        arrays = [np.asarray(array) for array in (table.coefficients, table.low, table.high)]
        found = distance_table(arrays, np.asarray(loc), resolution, max_sweeps, tolerance, horizon)
        self.loc, self.num_sweeps = loc, jnp.asarray(found.num_sweeps)
        self.eikonal_error = jnp.asarray(found.eikonal_error, loc.dtype)
        self.table = SplineTable(found.squared, table.low, table.high)

    def squared_dist(self, z: Array) -> Array:
        """Squared geodesic distance of ``z``, ``(*batch, d)``, to the centre; shape ``(*batch)``.

        Points outside the box are moved to its face.
        """
        return jnp.maximum(self.table(z)[..., 0] - self.table(self.loc.astype(z.dtype))[..., 0], 0)

    def dist(self, z: Array) -> Array:
        """Geodesic distance of ``z`` to the centre, ``(*batch)``; gradient 0 at the centre."""
        return smooth.root(jnp, self.squared_dist(z))

    def __call__(self, z: Array) -> Array:
        """The same as :meth:`dist`, ``(*batch)`` at ``z``."""
        return self.dist(z)

    def __repr__(self) -> str:
        return f"DistanceField(dim={self.dim}, resolution={self.table.resolution})"
