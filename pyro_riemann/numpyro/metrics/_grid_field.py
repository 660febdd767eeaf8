"""All distances from one centre at once: shortest paths on a grid, refined along characteristics."""

from __future__ import annotations

import math
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import smooth
from pyro_riemann._formulas.distance_field import distance_table
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.metrics._spline_table import SplineTable


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
