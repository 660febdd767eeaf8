"""The table of a metric: its nodes, its fields and its error, on the host in double precision, and what it knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from pyro_riemann._formulas import Array, log_cholesky, table
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._warn import warn

F = TypeVar("F")

_NUM_PROBES = 512
OUTSIDE = ("metric", "nearest", "error")  # what a table answers beyond its box


def check_sizes(resolution: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """Nodes along each axis."""
    sizes = (resolution,) * dim if isinstance(resolution, int) else tuple(int(r) for r in resolution)
    if len(sizes) != dim or min(sizes) < 4:
        raise ValueError(f"`resolution` must be {dim} whole numbers of at least 4, got {resolution}.")
    return sizes


def check_dimension(dim: int) -> int:
    """Refuse a dimension that has no table."""
    if not 1 <= dim <= 3:
        raise ValueError(f"`metric` has dimension {dim}; a table needs a dimension of 1 to 3.")
    return dim


def check_corners(corners: Array) -> None:
    """Refuse an empty box; ``corners`` is ``(2, d)``."""
    if not (corners[0] < corners[1]).all():
        given = f"{corners[0].tolist()} and {corners[1].tolist()}"
        raise ValueError(f"`low` must lie below `high` on every axis, got {given}.")


def nodes(corners: Array, sizes: tuple[int, ...]) -> Array:
    """Nodes of the regular grid, row by row, ``(prod(sizes), d)``, in the corners' dtype."""
    axes = [np.linspace(*span) for span in zip(*corners.tolist(), sizes, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes)).astype(corners.dtype)


def z_order(points: Array) -> Array:
    """The order of points ``(n, d)`` on a curve that fills their box: what follows on another is near it.

    Source: Morton (1966), *A computer oriented geodetic data base*.
    """
    count, dim = points.shape
    bits = min(16, 62 // dim)
    low, width = points.min(0), np.ptp(points, 0)
    place = ((points - low) / np.where(width > 0, width, 1) * (2**bits - 1)).astype(np.int64)
    code = np.zeros(count, np.int64)
    for bit in range(bits):
        for axis in range(dim):
            code |= ((place[:, axis] >> bit) & 1) << (bit * dim + axis)
    return code.argsort(kind="stable")


def probes(corners: Array) -> Array:
    """Random points of the box, always the same, ``(512, d)``."""
    low, high = corners
    unit = np.random.default_rng(0).random((_NUM_PROBES, len(low)))
    return (low + (high - low) * unit).astype(corners.dtype)


def chosen(points: Array, corners: Array) -> Array:
    """At most 512 of the given ``points`` ``(n, d)``, evenly spaced rows, of those that lie in the box."""
    if points.ndim != 2 or points.shape[1] != corners.shape[1]:
        raise ValueError(f"`points` must have shape (n, {corners.shape[1]}), got {points.shape}.")
    inside = points[((points >= corners[0]) & (points <= corners[1])).all(-1)]
    if not len(inside):
        raise ValueError(
            f"none of the {len(points)} `points` lies in the box {corners[0].tolist()} to {corners[1].tolist()}: they "
            "say where the table will be used."
        )
    return inside[:: -(-len(inside) // _NUM_PROBES)].astype(corners.dtype)


def judge(errors: Array, max_error: float | None, given: bool) -> tuple[float, float]:
    """Error to report and mean of the relative errors ``(n,)``: the 90 % quantile at given points, else the largest.

    Warns above ``max_error`` at given points; the corners of a box, where nobody goes, say little.
    """
    reported = float(np.quantile(errors, 0.9)) if given else float(errors.max())
    if given and max_error is not None and reported > max_error:
        warn(
            f"the table is off by up to {reported:.2g} of the metric on 90 % of the given points (bound: `max_error` = "
            f"{max_error:g}): distances and volumes from it are as wrong. Raise `resolution`, or shrink the box."
        )
    return reported, float(errors.mean())


def fields(tensors: Array, points: Array) -> Array:
    """Fields ``(n, d (d + 1) / 2)`` of metrics ``(n, d, d)`` at ``points`` ``(n, d)``."""
    bad = ~np.isfinite(tensors).all((-2, -1))
    safe = np.where(bad[:, None, None], np.eye(tensors.shape[-1]), tensors).astype(np.float64)
    spectrum = np.linalg.eigvalsh(safe)
    bad |= spectrum[:, 0] <= np.finfo(np.float64).eps * spectrum[:, -1]
    if bad.any():
        raise ValueError(
            f"`metric` is not finite and positive definite at {int(bad.sum())} of {len(points)} nodes, "
            f"for instance z = {points[bad][0].tolist()}. Shrink the box, or regularise the metric."
        )
    return log_cholesky.fields_of(np.linalg.cholesky(safe))


def relative_error(estimate: Array, exact: Array) -> Array:
    """``max_v |v^T (estimate - exact) v| / v^T exact v`` at each point, ``(n,)``."""
    root = np.linalg.cholesky(exact.astype(np.float64))
    error = np.linalg.solve(root, estimate.astype(np.float64) - exact.astype(np.float64))
    error = np.linalg.solve(root, np.swapaxes(error, -1, -2))
    return np.asarray(np.linalg.norm(error, 2, axis=(-2, -1)))


class TableAlgebra(MetricAlgebra[A], Generic[A, F]):
    """What a table knows whatever its arrays are."""

    _path_table: ClassVar[Any]  # classes of the face
    _field: ClassVar[Any]
    base: Any
    table: Any
    paths: Any
    outside: str
    _floor: A | None

    @property
    def landmarks(self) -> A | None:  # type: ignore[override]  # others hold it
        """Points ``(k, d)`` that every search for a path should know of: those of the true metric, if it is kept."""
        return None if self.base is None else self.base.landmarks

    def tabulated(self) -> Self:
        """This metric."""
        return self

    def interpolation_error_at(self, z: A) -> A:
        r"""Relative error of G at points of the box, :math:`\max_v |v^\top (\hat G - G) v| / v^\top G v`; on the host.

        Args:
            z: ``(*batch, d)``.

        Returns:
            ``(*batch)``, without gradient; 0 outside the box, where the true metric is used.

        Raises:
            ValueError: if the true metric is not kept (``outside="nearest"`` or ``"error"``).
        """
        self._checked("z", z)
        if self.base is None:
            raise ValueError(
                f'the true metric is not kept with `outside="{self.outside}"`: give the points as `points=`.'
            )
        return self._error_at(z, self.base)

    def _checked(self, name: str, z: A) -> Array:
        raise NotImplementedError

    def _error_at(self, z: A, original: Any) -> A:
        raise NotImplementedError

    def _refuse_beyond(self, z: Array, beyond: Array) -> None:
        """Raise for points ``(*batch, d)`` of which some, ``(*batch)``, lie outside; both of NumPy."""
        raise ValueError(
            f"{int(beyond.sum())} of {beyond.size} points lie outside the box {self.table.low.tolist()} to "
            f"{self.table.high.tolist()} of the table, for instance z = {z[beyond][0].tolist()}. "
            'Tabulate a larger box, or use `outside="metric"` or `"nearest"`.'
        )

    def on_floor(self, z: A) -> A | None:
        """Where the tabulated metric is on its floor at ``z``, ``(*batch)``; None if it has none.

        A table that has forgotten the metric knows it at its nodes, and answers for the nearest.
        """
        if self.base is not None:
            return self.base.on_floor(z)
        return None if self._floor is None else self._floor_near(z, self._floor)

    def _floor_near(self, z: A, floor: A) -> A:
        raise NotImplementedError

    def covers(self, z: A) -> A | None:
        if self.outside == "nearest":
            return None
        if self.base is None:
            return self.table.contains(z)
        beyond = self.base.covers(z)
        return None if beyond is None else self.table.contains(z) | beyond

    def alone(self) -> Self:
        """This table without the metric it was made of: beyond the box G is constant across its faces.

        What a chain wants that now and then leaps far out, where geodesics cost many evaluations of a decoder and the
        draw is refused anyway. The table, its solver and its paths are shared, so that nothing is computed anew.
        """
        other = self._without_metric()
        if self.base is not None:
            other._floor = self._floor_at_nodes(self.base)
        return other

    def _without_metric(self) -> Self:
        """The same, but for where the metric is on its floor: to learn that costs as much as the table."""
        other = self._copied()
        other.base, other.outside = None, "nearest"
        return other

    def _copied(self) -> Self:
        """A copy that shares all but its own attributes."""
        raise NotImplementedError

    def _floor_at_nodes(self, original: Any) -> A | None:
        """Where it is on its floor at the nodes, in the shape of the grid; None if it has none."""
        raise NotImplementedError

    def prepare_paths(self, resolution: int = 64) -> Self:
        """Tabulate shortest paths as well, so that ``init="graph"`` starts from a look-up; returns the metric.

        Worth about a thousand calls for single pairs. Call it again after the table has changed.

        Args:
            resolution: nodes per axis (d = 2) of the graph.
        """
        self.paths = self._path_table(self, resolution)
        return self

    def distance_field(
        self,
        loc: A,
        resolution: int | Sequence[int] | None = None,
        max_sweeps: int = 200,
        tolerance: float = 1e-6,
        horizon: float = math.inf,
    ) -> F:
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
        centre = self._checked("loc", loc)
        if centre.ndim != 1 or not bool(self.table.contains(centre)):
            raise ValueError(f"`loc` must be one point ({self.dim},) inside the box, got {centre.tolist()}.")
        if not horizon > 0:
            raise ValueError(f"`horizon` must be positive, got {horizon}.")
        limit = {1: 1000, 2: 100, 3: 20}[self.dim]
        given = tuple(min(limit, r) for r in self.table.resolution) if resolution is None else resolution
        sizes = check_sizes(given, self.dim)
        return self._field(self, table(self.face.xp, centre, self.table.low), sizes, max_sweeps, tolerance, horizon)
