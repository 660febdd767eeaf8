"""A metric tabulated on a box, so that its evaluation costs no decoder."""

from __future__ import annotations

import copy
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
from pyro_riemann.numpyro.metrics._spline_table import DistanceField, SplineTable


class TableMetric(grid_table.TableAlgebra[Array, DistanceField], GenericMetric):
    """What :class:`GridMetric` does, but for what every public metric offers."""

    _path_table, _field = PathTable, DistanceField
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
        self.outside = check_one_of("outside", outside, grid_table.OUTSIDE)
        ends = self._corners(metric, low, high)
        sizes = grid_table.check_sizes(resolution, self.dim)
        nodes = grid_table.nodes(ends, sizes)
        given = None if points is None else np.asarray(check_finite("points", points))
        probes = grid_table.probes(ends) if given is None else grid_table.chosen(given, ends)
        tensors = _grid_programs.evaluate_in_chunks(metric, np.concatenate([nodes, probes]), chunk_size)
        fields = grid_table.fields(tensors[: len(nodes)], nodes)
        self.table = SplineTable(fields.reshape(*sizes, -1), *map(jnp.asarray, ends))
        self.base = metric if outside == "metric" else None
        self._floor = None if outside == "metric" else self._floor_at_nodes(metric, chunk_size)
        known = metric.peaks()
        self._peaks = known and jax.tree.map(lambda leaf: leaf[np.asarray(self.table.contains(known.loc))], known)
        estimate = np.asarray(_grid_programs.metric(self, jnp.asarray(probes), inside=True))
        error = grid_table.relative_error(estimate, tensors[len(nodes) :])
        reported, mean = grid_table.judge(error, max_error, given is not None)
        self.interpolation_error = jnp.asarray(reported, ends.dtype)
        self.mean_interpolation_error = jnp.asarray(mean, ends.dtype)

    def _checked(self, name: str, z: Array) -> Array:
        return check_finite(name, check_point(name, z, self.dim))

    def _error_at(self, z: Array, original: GenericMetric) -> Array:
        flat = np.asarray(z, self.table.low.dtype).reshape(-1, self.dim)
        inside = np.asarray(self.table.contains(jnp.asarray(flat)))
        error = np.zeros(len(flat), flat.dtype)
        if inside.any():
            exact = _grid_programs.evaluate_in_chunks(original, flat[inside], 4096)
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

    # ---------------------------------------------------------------- evaluation

    def _inside(self, z: Array) -> bool:
        """Whether the table alone serves all points; unknown, and so false, where they cannot be read."""
        if self.outside == "nearest":
            return True
        inside = self.table.contains(z)
        if isinstance(inside, jax.core.Tracer):
            return self.base is None
        if holds(inside):
            return True
        if self.outside == "error":
            self._refuse_beyond(np.asarray(z), ~np.asarray(inside))
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

    def _copied(self) -> Self:
        return copy.copy(self)

    def _floor_at_nodes(self, original: GenericMetric, chunk_size: int = 4096) -> Array | None:
        sizes = self.table.resolution
        nodes = grid_table.nodes(np.stack([self.table.low, self.table.high]), sizes)
        return _grid_programs.floor_in_chunks(original, nodes, sizes, chunk_size)

    def _floor_near(self, z: Array, floor: Array) -> Array:
        sizes = jnp.asarray(floor.shape, z.dtype)
        low, high = self.table.low.astype(z.dtype), self.table.high.astype(z.dtype)
        node = jnp.round((jnp.clip(z, low, high) - low) / (high - low) * (sizes - 1)).astype(int)
        return floor[tuple(jnp.moveaxis(node, -1, 0))] > 0

    def __repr__(self) -> str:
        return f"GridMetric(dim={self.dim}, resolution={self.table.resolution}, outside={self.outside!r})"
