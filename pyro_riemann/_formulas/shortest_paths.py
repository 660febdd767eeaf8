"""Shortest paths on graphs over a chart, on the host: everything but the lengths of the edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import scipy

from pyro_riemann._formulas import splines

MAX_GRID_DIM = 3
NEIGHBOURS = 10
TRACK = 8  # points on a path, for each knot of the spline that is laid along it
_MARGIN = 0.15

Numbers = np.ndarray[Any, Any]


def box_around(cloud: Numbers) -> tuple[Numbers, Numbers]:
    """Corners of a box that leaves room for curves between the points ``(n, d)``."""
    low, high = cloud.min(0), cloud.max(0)
    margin = _MARGIN * max((high - low).max(), 1e-3)
    return low - margin, high + margin


def grid_resolution(dim: int, resolution: int) -> int:
    """Nodes an axis in ``dim`` dimensions, where ``resolution`` are wanted in the plane."""
    return resolution if dim <= 2 else max(8, round(resolution ** (2 / 3)))


def simpson(pieces: int) -> list[tuple[float, float]]:
    """Times in [0, 1] and weights of Simpson's rule on ``pieces`` equal parts."""
    count = 2 * pieces
    return [(k / count, (1 if k in (0, count) else 4 if k % 2 else 2) / (6 * pieces)) for k in range(count + 1)]


class Grid:
    """A regular grid over a box; edges join near nodes."""

    def __init__(self, low: Numbers, high: Numbers, resolution: int) -> None:
        dim = low.shape[0]
        self.count = grid_resolution(dim, resolution)
        self.shape = (self.count,) * dim
        self.low, self.high = low, high
        mesh = np.stack(np.meshgrid(*[np.linspace(0, 1, self.count)] * dim, indexing="ij"), -1)
        self.nodes = (low + (high - low) * mesh).reshape(-1, dim)

    def cell(self, points: Numbers) -> Numbers:
        """Index along each axis of the nearest nodes, ``(P, d)``."""
        unit = (points - self.low) / (self.high - self.low)
        cells: Numbers = np.clip(np.round(unit * (self.count - 1)), 0, self.count - 1).astype(np.int64)
        return cells

    def node(self, points: Numbers) -> Numbers:
        """Number of the nearest nodes, ``(P,)``."""
        return np.ravel_multi_index(tuple(self.cell(points).T), self.shape)

    def edges(self) -> tuple[Numbers, Numbers]:
        """Numbers of the two nodes of every edge."""
        index = np.arange(self.nodes.shape[0]).reshape(self.shape)
        rows, columns = [], []
        for offset in _offsets(len(self.shape)):
            rows.append(index[tuple(slice(max(0, -o), self.count - max(0, o)) for o in offset)].ravel())
            columns.append(index[tuple(slice(max(0, o), self.count - max(0, -o)) for o in offset)].ravel())
        return np.concatenate(rows), np.concatenate(columns)


class AllPaths:
    """Shortest paths from every second node of a grid, along each axis, to all nodes."""

    def __init__(self, grid: Grid, lengths: Numbers) -> None:
        self.grid, dim = grid, len(grid.shape)
        self.sources = np.stack(np.meshgrid(*[np.arange(0, grid.count, 2)] * dim, indexing="ij"), -1)
        numbers = np.ravel_multi_index(tuple(self.sources.reshape(-1, dim).T), grid.shape)
        graph = adjacency(*grid.edges(), lengths, len(grid.nodes))
        dist, previous = scipy.sparse.csgraph.dijkstra(graph, directed=False, indices=numbers, return_predecessors=True)
        self.numbers = np.asarray(numbers)
        self.dist, self.previous = dist.astype(np.float32), previous.astype(np.int32)

    def tracks(self, z: Numbers, y: Numbers, count: int) -> Numbers:
        """``count`` points along paths from ``z`` to ``y``, ``(count, P, d)``."""
        cell = np.minimum(self.grid.cell(z) // 2, self.sources.shape[0] - 1)
        row = np.ravel_multi_index(tuple(cell.T), self.sources.shape[:-1])
        path = _walk(self.previous, row, self.numbers[row], self.grid.node(y))
        return _follow(self.grid.nodes, path, self.dist[row, path], z, y, count)


class KeptPaths:
    """Shortest paths on a grid from whatever nodes they are asked for: the search from each is done once."""

    def __init__(self, grid: Grid, lengths: Numbers) -> None:
        self.grid = grid
        self.graph = adjacency(*grid.edges(), lengths, len(grid.nodes))
        self.known: dict[int, tuple[Numbers, Numbers]] = {}

    def tracks(self, z: Numbers, y: Numbers, count: int) -> Numbers:
        """``count`` points along paths from ``z`` to ``y``, ``(count, P, d)``."""
        start = self.grid.node(z)
        sources, row = np.unique(start, return_inverse=True)
        for source in sources.tolist():
            if source not in self.known:
                found = scipy.sparse.csgraph.dijkstra(
                    self.graph, directed=False, indices=source, return_predecessors=True
                )
                self.known[source] = (found[0], found[1])
        dist, previous = (np.stack([self.known[source][k] for source in sources.tolist()]) for k in range(2))
        path = _walk(previous, row, start, self.grid.node(y))
        return _follow(self.grid.nodes, path, dist[row, path], z, y, count)


def adjacency(rows: Numbers, columns: Numbers, lengths: Numbers, count: int) -> scipy.sparse.csr_matrix:
    """Graph with an edge of the given length for every pair of nodes.

    A matrix, not an array of SciPy's: its indices are of 32 bits, without which older searches refuse it.
    """
    return scipy.sparse.csr_matrix((lengths, (rows, columns)), shape=(count, count))


def tracks(
    nodes: Numbers, graph: scipy.sparse.csr_matrix, start: Numbers, end: Numbers, z: Numbers, y: Numbers, count: int
) -> Numbers:
    """``count`` points along shortest paths from ``z``, at the nodes ``start``, to ``y``: ``(count, P, d)``."""
    sources, row = np.unique(start, return_inverse=True)
    dist, previous = scipy.sparse.csgraph.dijkstra(graph, directed=False, indices=sources, return_predecessors=True)
    path = _walk(previous, row, start, end)
    return _follow(nodes, path, dist[row, path], z, y, count)


def neighbour_edges(cloud: Numbers, pairs: int) -> tuple[Numbers, Numbers]:
    """Edges to near neighbours in a cloud that begins with ``pairs`` starts and then their ends.

    The direct edge of a pair is left out: it is long and must not jump a hill.
    """
    count = min(NEIGHBOURS, cloud.shape[0] - 1)
    squares = np.square(cloud).sum(-1)
    distances = squares[:, None] + squares - 2 * cloud @ cloud.T
    np.fill_diagonal(distances, np.inf)
    near = np.argpartition(distances, count - 1, axis=1)[:, :count].reshape(-1)
    rows = np.repeat(np.arange(cloud.shape[0]), count)
    other = near != rows + pairs
    return rows[other], near[other]


def fit(num_knots: int, track: Numbers) -> Numbers:
    """Interior control points ``(P, num_knots + 1, d)`` of the spline along ``(T, P, d)`` equally timed points."""
    matrix = splines.fit_matrix(num_knots, track.shape[0])
    return np.einsum("kt,tpd->pkd", matrix, np.concatenate([track, track[:1], track[-1:]]))


def _walk(previous: Numbers, row: Numbers, start: Numbers, end: Numbers) -> Numbers:
    """Nodes ``(L, P)`` along all shortest paths at once, padded by repeating the start."""
    nodes = [end]
    while (nodes[-1] != start).any():
        step = previous[row, nodes[-1]]
        nodes.append(np.where(step < 0, start, step))
    return np.stack(nodes[::-1] if len(nodes) > 1 else nodes * 2)


def _follow(nodes: Numbers, path: Numbers, lengths: Numbers, z: Numbers, y: Numbers, count: int) -> Numbers:
    points = nodes[path]
    points[0], points[-1] = z, y
    return _resample(points, lengths.astype(points.dtype), count)


def _offsets(dim: int) -> list[tuple[int, ...]]:
    """Half of the neighbours of a grid node: coprime offsets up to 2 in the plane, the adjacent cells in space."""
    reach = 2 if dim == 2 else 1
    every = itertools.product(range(-reach, reach + 1), repeat=dim)
    return [o for o in every if o > (0,) * dim and math.gcd(*o) == 1]


def _resample(points: Numbers, lengths: Numbers, count: int) -> Numbers:
    """``count`` points at equal distances along polygons ``(L, P, d)`` with cumulative lengths ``(L, P)``."""
    wanted = np.linspace(0, 1, count)[:, None] * lengths[-1]
    # the first node beyond the wanted length: as many as lie before it
    right = np.clip((lengths[None] < wanted[:, None]).sum(1), 1, len(lengths) - 1)
    before, after = (np.take_along_axis(lengths, index, 0) for index in (right - 1, right))
    fraction = np.clip((wanted - before) / np.maximum(after - before, 1e-12), 0, 1)[..., None]
    low, high = (np.take_along_axis(points, index[..., None], 0) for index in (right - 1, right))
    return low * (1 - fraction) + high * fraction
