"""Starting curves from shortest paths on a graph, to escape local minima. All of it runs on the host."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from pyro_riemann._formulas import shortest_paths
from pyro_riemann._formulas.shortest_paths import MAX_GRID_DIM, TRACK, AllPaths, Grid
from pyro_riemann.numpyro._interface import Metric, Solver, Tabulated
from pyro_riemann.numpyro.geodesics import _path, _spline

Numbers = npt.NDArray[np.float64]


def starts(solver: Solver, metric: Metric, z: Array, y: Array) -> Array | None:
    """Interior control points ``(S, P, num_knots + 1, d)`` of curves to begin with; None for the line alone."""
    knots, resolution = solver.num_knots, solver.graph_resolution
    if metric.dim > MAX_GRID_DIM:
        return _with_lines(knots, neighbour_curves(metric, z, y, knots), z, y)
    table = _table_around(metric, z, y, resolution)
    if table is None:
        return None
    path = _grid_curves(table, z, y, knots, resolution)
    if table is metric:
        return path[None]
    # on a table of the metric many iterations cost little; the last ones follow on the metric itself
    return _search(solver, table, z, y, _with_lines(knots, path, z, y))[0][None]


_search = jax.jit(_path.search)


@jax.tree_util.register_static
class PathTable:
    """Shortest paths on a grid over a tabulated metric's box, from every second node to all nodes.

    Once it is computed, a starting curve is a look-up. It lives on the host.

    Args:
        table: a tabulated metric.
        resolution: nodes per axis (d = 2) of the grid.

    Source: Dijkstra (1959), *A note on two problems in connexion with graphs*.

    Example:
        >>> from pyro_riemann.numpyro.geodesics import PathTable
        >>> table = PathTable(GridMetric(Sphere(2), -1.0, 1.0, 16), resolution=16)
        >>> table(jnp.zeros((1, 2)), jnp.ones((1, 2)), num_knots=8).shape
        (1, 11, 2)
    """

    def __init__(self, table: Tabulated, resolution: int) -> None:
        self.paths = AllPaths(*_grid(table, resolution))

    def __call__(self, z: Array, y: Array, num_knots: int) -> Array:
        """Control points ``(P, num_knots + 3, d)`` of curves along shortest paths.

        Args:
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.
            num_knots: intervals of the splines.
        """
        return _spline.with_ends(self.interior(z, y, num_knots), z, y)

    def interior(self, z: Array, y: Array, num_knots: int) -> Array:
        """The control points of a call without the two ends, ``(P, num_knots + 1, d)``.

        Args:
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.
            num_knots: intervals of the splines.
        """
        return _fit(num_knots, self.paths.tracks(_numbers(z), _numbers(y), TRACK * num_knots + 1), z)


def _table_around(metric: Metric, z: Array, y: Array, resolution: int) -> Tabulated | None:
    """A table of the metric on a box around the points, the metric itself if it is one; None if there can be none."""
    if (table := metric.tabulated()) is not None:
        return table
    low, high = shortest_paths.box_around(_cloud(metric, z, y))
    try:
        return metric.tabulate(
            low.astype(z.dtype), high.astype(z.dtype), shortest_paths.grid_resolution(metric.dim, resolution)
        )
    except ValueError:  # the box reaches out of the metric's domain
        return None


def _grid_curves(table: Tabulated, z: Array, y: Array, num_knots: int, resolution: int) -> Array:
    """Curves ``(P, num_knots + 1, d)`` along shortest paths on a grid over the table's box."""
    if table.paths is not None:
        return table.paths.interior(z, y, num_knots)
    grid, lengths = _grid(table, resolution)
    graph = shortest_paths.adjacency(*grid.edges(), lengths, len(grid.nodes))
    start, end = _numbers(z), _numbers(y)
    track = shortest_paths.tracks(
        grid.nodes, graph, grid.node(start), grid.node(end), start, end, TRACK * num_knots + 1
    )
    return _fit(num_knots, track, z)


def neighbour_curves(metric: Metric, z: Array, y: Array, num_knots: int) -> Array:
    """The same along paths through near neighbours among the points and ``metric.landmarks``."""
    nodes, start, end = _cloud(metric, z, y), _numbers(z), _numbers(y)
    first = np.arange(len(start))
    rows, near = shortest_paths.neighbour_edges(nodes, len(first))
    lengths = _edge_lengths(metric, nodes[rows], nodes[near], z.dtype)
    # the direct edge is always there, measured finely, so that every pair is connected
    lengths = np.concatenate([lengths, _edge_lengths(metric, start, end, z.dtype, pieces=32)])
    rows, near = np.concatenate([rows, first]), np.concatenate([near, first + len(first)])
    graph = shortest_paths.adjacency(rows, near, lengths, len(nodes))
    return _fit(
        num_knots,
        shortest_paths.tracks(nodes, graph, first, first + len(first), start, end, TRACK * num_knots + 1),
        z,
    )


def _grid(table: Tabulated, resolution: int) -> tuple[Grid, Numbers]:
    """A grid over the table's box and the Riemannian lengths of its edges."""
    low, high = table.table.low, table.table.high
    grid = Grid(_numbers(low), _numbers(high), resolution)
    rows, columns = grid.edges()
    return grid, _edge_lengths(table, grid.nodes[rows], grid.nodes[columns], low.dtype)


def _cloud(metric: Metric, z: Array, y: Array) -> Numbers:
    ends = [_numbers(z), _numbers(y)]
    if metric.landmarks is not None:
        known = _numbers(metric.landmarks)
        ends.append(known[np.isfinite(known).all(-1)])  # some may lie outside the image of a chart
    return np.concatenate(ends)


def _edge_lengths(metric: Metric, start: Numbers, end: Numbers, dtype: npt.DTypeLike, pieces: int = 1) -> Numbers:
    """Lengths of straight edges by Simpson's rule on the norm of the velocity, in ``pieces`` equal parts."""
    count = len(start)
    room = 1 << max(count - 1, 0).bit_length()  # the number of edges varies: few sizes, few compilations
    ends = (np.concatenate([points, np.repeat(points[:1], room - count, 0)]).astype(dtype) for points in (start, end))
    return _numbers(_lengths(metric, *ends, pieces))[:count]


@partial(jax.jit, static_argnums=3)
def _lengths(metric: Metric, start: Array, end: Array, pieces: int) -> Array:
    velocity = end - start
    times, weights = (jnp.asarray(column, start.dtype) for column in zip(*shortest_paths.simpson(pieces), strict=True))

    def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
        at, weight = node
        return total + weight * metric.norm(start + at * velocity, velocity), None

    return jax.lax.scan(add, jnp.zeros_like(start[:, 0]), (times, weights))[0]


def _with_lines(num_knots: int, path: Array, z: Array, y: Array) -> Array:
    return jnp.stack([path, _spline.line(num_knots, z, y)[:, 1:-1]])


def _fit(num_knots: int, track: Numbers, like: Array) -> Array:
    return jnp.asarray(shortest_paths.fit(num_knots, track), like.dtype)


def _numbers(points: npt.ArrayLike) -> Numbers:
    return np.asarray(points, np.float64)
