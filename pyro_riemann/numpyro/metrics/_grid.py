"""A metric tabulated on a box, so that its evaluation costs no decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import grid_table
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann.numpyro._checks import check_finite, check_one_of, check_point, holds
from pyro_riemann.numpyro.geodesics import PathTable
from pyro_riemann.numpyro.metrics import _grid_programs
from pyro_riemann.numpyro.metrics._generic import Corner, GenericMetric
from pyro_riemann.numpyro.metrics._grid_field import DistanceField
from pyro_riemann.numpyro.metrics._spline_table import SplineTable


class TableMetric(GenericMetric):
    """What :class:`GridMetric` does, but for what every public metric offers."""

    pytree_data_fields = (
        "_floor",
        "_peaks",
        "base",
        "interpolation_error",
        "mean_interpolation_error",
        "paths",
        "table",
    )
    table: SplineTable
    _floor: Array | None
    _peaks: Peaks | None
    base: GenericMetric | None
    paths: PathTable | None = None
    interpolation_error: Array
    mean_interpolation_error: Array

    def __init__(
        self,
        metric: GenericMetric,
        low: Corner,
        high: Corner,
        resolution: int | Sequence[int],
        outside: str = "metric",
        chunk_size: int = 4096,
        points: Array | None = None,
        max_error: float | None = 0.1,
    ) -> None:
        self.dim, self.solver = grid_table.check_dimension(metric.dim), metric.solver
        self.outside = check_one_of("outside", outside, ("metric", "error"))
        ends = self._corners(metric, low, high)
        sizes = grid_table.check_sizes(resolution, self.dim)
        nodes = grid_table.nodes(ends, sizes)
        given = None if points is None else np.asarray(check_finite("points", points))
        probes = grid_table.probes(ends) if given is None else grid_table.chosen(given, ends)
        tensors = _grid_programs.evaluate_in_chunks(metric, np.concatenate([nodes, probes]), chunk_size)
        fields = grid_table.fields(tensors[: len(nodes)], nodes)
        self.table = SplineTable(fields.reshape(*sizes, -1), *map(jnp.asarray, ends))
        self.base = metric if outside == "metric" else None
        self._floor = _grid_programs.floor_in_chunks(metric, nodes, sizes, chunk_size) if outside == "error" else None
        known = metric.peaks()
        self._peaks = known and jax.tree.map(lambda leaf: leaf[np.asarray(self.table.contains(known.loc))], known)
        estimate = np.asarray(_grid_programs.metric(self, jnp.asarray(probes), inside=True))
        error = grid_table.relative_error(estimate, tensors[len(nodes) :])
        reported, mean = grid_table.judge(error, max_error, given is not None)
        self.interpolation_error = jnp.asarray(reported, ends.dtype)
        self.mean_interpolation_error = jnp.asarray(mean, ends.dtype)

    def interpolation_error_at(self, z: Array) -> Array:
        r"""Relative error of G at points of the box, :math:`\max_v |v^\top (\hat G - G) v| / v^\top G v`; on the host.

        Args:
            z: ``(*batch, d)``.

        Returns:
            ``(*batch)``; 0 outside the box, where the true metric is used.

        Raises:
            ValueError: if the true metric is not kept (``outside="error"``).
        """
        check_finite("z", check_point("z", z, self.dim))
        if self.base is None:
            raise ValueError('the true metric is not kept with `outside="error"`: give the points as `points=`.')
        flat = np.asarray(z, self.table.low.dtype).reshape(-1, self.dim)
        inside = np.asarray(self.table.contains(jnp.asarray(flat)))
        error = np.zeros(len(flat), flat.dtype)
        if inside.any():
            exact = _grid_programs.evaluate_in_chunks(self.base, flat[inside], 4096)
            estimate = np.asarray(_grid_programs.metric(self, jnp.asarray(flat[inside]), inside=True))
            error[inside] = grid_table.relative_error(estimate, exact)
        return jnp.asarray(error.reshape(z.shape[:-1]))

    def _corners(self, metric: GenericMetric, low: Corner, high: Corner) -> np.ndarray[Any, Any]:
        """Both corners, ``(2, d)``, in the metric's dtype."""
        leaves = [*jax.tree.leaves(metric), low, high]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise TypeError("a table is built on the host: call GridMetric outside of `jit`, `vmap` and `grad`.")
        floating = [leaf for leaf in leaves if jnp.issubdtype(getattr(leaf, "dtype", int), jnp.floating)]
        dtype = floating[0].dtype if floating else jnp.result_type(float)
        corners = np.stack([np.broadcast_to(np.asarray(corner, dtype), self.dim) for corner in (low, high)])
        check_finite("low and high", jnp.asarray(corners))
        grid_table.check_corners(corners)
        return corners

    # ---------------------------------------------------------------- where the volume is

    def peaks(self) -> Peaks | None:
        outer = None if self.base is None else self.base.peaks()
        if self._peaks is None or outer is None:
            return self._peaks
        beyond = self.table.contains(outer.loc)
        if isinstance(beyond, jax.core.Tracer):  # no selection by data: those of the box are the base's, too
            return outer
        both = jax.tree.map(lambda mine, other: jnp.concatenate([mine, other[~np.asarray(beyond)]]), self._peaks, outer)
        return jax.lax.stop_gradient(both)

    @property
    def landmarks(self) -> Array | None:  # type: ignore[override]  # others hold it
        """Points ``(k, d)`` that every search for a path should know of: those of the true metric, if it is kept."""
        return None if self.base is None else self.base.landmarks

    def tabulated(self) -> Self:
        """This metric."""
        return self

    # ---------------------------------------------------------------- evaluation

    def _inside(self, z: Array) -> bool:
        """Whether the table alone serves all points; unknown, and so false, where they cannot be read."""
        inside = self.table.contains(z)
        if isinstance(inside, jax.core.Tracer):
            return self.base is None
        if holds(inside):
            return True
        if self.outside == "error":
            beyond, low, high = ~np.asarray(inside), self.table.low.tolist(), self.table.high.tolist()
            raise ValueError(
                f"{int(beyond.sum())} of {beyond.size} points lie outside the box {low} to {high} of the table, "
                f"for instance z = {np.asarray(z)[beyond][0].tolist()}. "
                'Tabulate a larger box, or use `outside="metric"`.'
            )
        return False

    def metric(self, z: Array) -> Array:
        z = check_point("z", z, self.dim)
        return _grid_programs.metric(self, z, inside=self._inside(z))

    def logdet(self, z: Array) -> Array:
        z = check_point("z", z, self.dim)
        return _grid_programs.logdet(self, z, inside=self._inside(z))

    def logdet_gradient(self, z: Array) -> Array:
        z = check_point("z", z, self.dim)
        return _grid_programs.logdet_gradient(self, z, inside=self._inside(z))

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        z = check_point("z", z, self.dim)
        return _grid_programs.metric_jacobian(self, z, inside=self._inside(z))

    def speed_hessian(self, z: Array, v: Array) -> Array:
        z = check_point("z", z, self.dim)
        return _grid_programs.speed_hessian(self, z, v, inside=self._inside(z))

    def on_floor(self, z: Array) -> Array | None:
        """Where the tabulated metric is on its floor at ``z``, ``(*batch)``; None if it has none.

        A table that has forgotten the metric knows it at its nodes, and answers for the nearest.
        """
        if self.base is not None:
            return self.base.on_floor(z)
        if self._floor is None:
            return None
        sizes = jnp.asarray(self._floor.shape, z.dtype)
        low, high = self.table.low.astype(z.dtype), self.table.high.astype(z.dtype)
        node = jnp.round((jnp.clip(z, low, high) - low) / (high - low) * (sizes - 1)).astype(int)
        return self._floor[tuple(jnp.moveaxis(node, -1, 0))] > 0

    def covers(self, z: Array) -> Array | None:
        if self.base is None:
            return self.table.contains(z)
        beyond = self.base.covers(z)
        return None if beyond is None else self.table.contains(z) | beyond

    def prepare_paths(self, resolution: int = 64) -> Self:
        """Tabulate shortest paths as well, so that ``init="graph"`` starts from a look-up; returns the metric.

        Worth about a thousand calls for single pairs. Call it again after the table has changed.

        Args:
            resolution: nodes per axis (d = 2) of the graph.
        """
        self.paths = PathTable(self, resolution)
        return self

    def distance_field(
        self,
        loc: Array,
        resolution: int | Sequence[int] | None = None,
        max_sweeps: int = 200,
        tolerance: float = 1e-6,
        horizon: float = math.inf,
    ) -> DistanceField:
        """Distances from ``loc`` to every point of the box at once.

        Shortest paths on a grid (Dijkstra, many neighbours), refined to high order along the
        characteristics of the eikonal equation, then interpolated. Built on the host.

        Args:
            loc: the centre, ``(d,)``, inside the box.
            resolution: nodes an axis; the table's own by default, at most 100 (d = 2) or 20 (d = 3).
            max_sweeps: limit of the refinement.
            tolerance: it stops once no value moves by more than this share of the largest.
            horizon: distances beyond it are left as the shortest paths on the grid give them, up to a few per cent too
                long.

        Raises:
            ValueError: if ``loc`` is not one point inside the box, or ``horizon`` is not positive.
            TypeError: if ``loc`` is not a floating array.
        """
        loc = check_finite("loc", check_point("loc", loc, self.dim))
        if loc.ndim != 1 or not bool(self.table.contains(loc)):
            raise ValueError(f"`loc` must be one point ({self.dim},) inside the box, got {loc.tolist()}.")
        if not horizon > 0:
            raise ValueError(f"`horizon` must be positive, got {horizon}.")
        limit = {1: 1000, 2: 100, 3: 20}[self.dim]
        given = tuple(min(limit, r) for r in self.table.resolution) if resolution is None else resolution
        sizes = grid_table.check_sizes(given, self.dim)
        return DistanceField(self, loc.astype(self.table.low.dtype), sizes, max_sweeps, tolerance, horizon)

    def __repr__(self) -> str:
        return f"GridMetric(dim={self.dim}, resolution={self.table.resolution}, outside={self.outside!r})"
