"""Starting curves from shortest paths on a graph, to escape local minima."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from pyro_riemann.geodesics import _spline

MAX_GRID_DIM = 3
_NEIGHBOURS = 10
_MARGIN = 0.15


def table_around(metric: Any, z: Tensor, y: Tensor, resolution: int) -> Any:
    """A table of the metric on a box around the points, the metric itself if it is one; None if there can be none."""
    if hasattr(metric, "table"):
        return metric
    cloud = _cloud(metric, z, y)
    low, high = cloud.amin(0), cloud.amax(0)
    margin = _MARGIN * (high - low).amax().clamp(min=1e-3)
    try:
        return metric.tabulate(low - margin, high + margin, _resolution(metric.dim, resolution))
    except ValueError:  # the box reaches out of the metric's domain
        return None


class PathTable:
    """Shortest paths on a grid over a tabulated metric's box, from every second node to all nodes.

    Once it is computed, a starting curve is a look-up.

    Args:
        table: a tabulated metric.
        resolution: nodes per axis (d = 2) of the grid.

    Example:
        >>> from pyro_riemann.geodesics import PathTable
        >>> table = PathTable(GridMetric(Sphere(2), -1.0, 1.0, 16), resolution=16)
        >>> table(torch.zeros(1, 2), torch.ones(1, 2), num_knots=8).shape
        torch.Size([1, 11, 2])
    """

    def __init__(self, table: Any, resolution: int) -> None:
        self.grid = _Grid(table, resolution)
        self.sources = np.stack(np.meshgrid(*[np.arange(0, self.grid.count, 2)] * table.dim, indexing="ij"), -1)
        sources = np.ravel_multi_index(tuple(self.sources.reshape(-1, table.dim).T), self.grid.shape)
        dist, previous = dijkstra(self.grid.graph(table), directed=False, indices=sources, return_predecessors=True)
        self.nodes = np.asarray(sources)
        self.dist, self.previous = dist.astype(np.float32), previous.astype(np.int32)

    def __call__(self, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
        """Control points ``(P, num_knots + 3, d)`` of curves from ``z`` to ``y``."""
        cell = np.minimum(self.grid.cell(z) // 2, self.sources.shape[0] - 1)
        row = np.ravel_multi_index(tuple(cell.T), self.sources.shape[:-1])
        end = self.grid.node(y)
        path = _walk(self.previous, row, self.nodes[row], end)
        return _follow(self.grid.nodes.to(z), path, self.dist[row, path], z, y, num_knots)


def grid_curves(table: Any, z: Tensor, y: Tensor, num_knots: int, resolution: int) -> Tensor:
    """Control points ``(P, num_knots + 3, d)`` of curves along shortest paths on a grid over the table's box."""
    if (paths := getattr(table, "paths", None)) is not None:
        return paths(z, y, num_knots)
    grid = _Grid(table, resolution)
    return _curves(grid.nodes.to(z), grid.graph(table), grid.node(z), grid.node(y), z, y, num_knots)


class _Grid:
    """A regular grid over a table's box."""

    def __init__(self, table: Any, resolution: int) -> None:
        self.count = _resolution(table.dim, resolution)
        self.shape = (self.count,) * table.dim
        self.low, self.high = table.table.low.detach(), table.table.high.detach()
        unit = torch.linspace(0, 1, self.count).to(self.low)
        mesh = torch.stack(torch.meshgrid(*[unit] * table.dim, indexing="ij"), -1)
        self.nodes = (self.low + (self.high - self.low) * mesh).reshape(-1, table.dim)

    def cell(self, points: Tensor) -> np.ndarray:
        """Index along each axis of the nearest nodes, ``(P, d)``."""
        unit = (points - self.low.to(points)) / (self.high - self.low).to(points)
        cells: np.ndarray = (unit * (self.count - 1)).round().clamp(0, self.count - 1).long().cpu().numpy()
        return cells

    def node(self, points: Tensor) -> np.ndarray:
        """Number of the nearest nodes, ``(P,)``."""
        return np.ravel_multi_index(tuple(self.cell(points).T), self.shape)

    def graph(self, table: Any) -> csr_matrix:
        """Adjacency with Riemannian edge lengths."""
        dim, count = len(self.shape), self.count
        index = np.arange(count**dim).reshape(self.shape)
        rows, columns = [], []
        for offset in _offsets(dim):
            rows.append(index[tuple(slice(max(0, -o), count - max(0, o)) for o in offset)].ravel())
            columns.append(index[tuple(slice(max(0, o), count - max(0, -o)) for o in offset)].ravel())
        row, column = np.concatenate(rows), np.concatenate(columns)
        ends = (self.nodes[torch.from_numpy(which).to(self.nodes.device)] for which in (row, column))
        return csr_matrix((_edge_lengths(table, *ends), (row, column)), shape=(count**dim,) * 2)


def neighbour_curves(metric: Any, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
    """The same along paths through near neighbours among the points and ``metric.landmarks``."""
    cloud = _cloud(metric, z, y)
    count = min(_NEIGHBOURS, cloud.shape[0] - 1)
    near = torch.cdist(cloud, cloud).topk(count + 1, largest=False).indices[:, 1:].reshape(-1)
    rows = torch.arange(cloud.shape[0], device=cloud.device).repeat_interleave(count)
    # the direct edge is always there, so that every pair is connected; it is long and must not jump a hill
    start = torch.arange(z.shape[0], device=cloud.device)
    other = near != rows + z.shape[0]
    rows, near = rows[other], near[other]
    lengths = _edge_lengths(metric, cloud[rows], cloud[near])
    rows, near = torch.cat([rows, start]), torch.cat([near, start + z.shape[0]])
    lengths = np.concatenate([lengths, _edge_lengths(metric, z, y, pieces=32)])
    graph = csr_matrix((lengths, (rows.cpu().numpy(), near.cpu().numpy())), shape=(len(cloud),) * 2)
    first = start.cpu().numpy()
    return _curves(cloud, graph, first, first + z.shape[0], z, y, num_knots)


def _cloud(metric: Any, z: Tensor, y: Tensor) -> Tensor:
    landmarks = getattr(metric, "landmarks", None)
    return torch.cat([z, y] + ([landmarks.to(z)] if landmarks is not None else []))


def _resolution(dim: int, resolution: int) -> int:
    return resolution if dim <= 2 else max(8, round(resolution ** (2 / 3)))


def _curves(
    nodes: Tensor, graph: csr_matrix, start: np.ndarray, end: np.ndarray, z: Tensor, y: Tensor, num_knots: int
) -> Tensor:
    sources, row = np.unique(start, return_inverse=True)
    dist, previous = dijkstra(graph, directed=False, indices=sources, return_predecessors=True)
    path = _walk(previous, row, start, end)
    return _follow(nodes, path, dist[row, path], z, y, num_knots)


def _walk(previous: np.ndarray, row: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Nodes ``(L, P)`` along all shortest paths at once, padded by repeating the start."""
    nodes = [end]
    while (nodes[-1] != start).any():
        step = previous[row, nodes[-1]]
        nodes.append(np.where(step < 0, start, step))
    return np.stack(nodes[::-1] if len(nodes) > 1 else nodes * 2)


def _follow(nodes: Tensor, path: np.ndarray, lengths: np.ndarray, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
    points = nodes[torch.from_numpy(path).to(nodes.device)]
    points[0], points[-1] = z, y
    track = _resample(points, torch.from_numpy(lengths).to(points), 8 * num_knots + 1)
    return _spline.fit(num_knots, track)


def _offsets(dim: int) -> list[tuple[int, ...]]:
    """Half of the neighbours of a grid node: coprime offsets up to 2 in the plane, the adjacent cells in space."""
    reach = 2 if dim == 2 else 1
    every = itertools.product(range(-reach, reach + 1), repeat=dim)
    return [o for o in every if o > (0,) * dim and math.gcd(*o) == 1]


def _edge_lengths(metric: Any, start: Tensor, end: Tensor, pieces: int = 1) -> np.ndarray:
    """Lengths of straight edges by Simpson's rule on the norm of the velocity, in ``pieces`` equal parts."""
    velocity = end - start
    total = torch.zeros_like(start[:, 0])
    for k in range(2 * pieces + 1):
        weight = (1 if k in (0, 2 * pieces) else 4 if k % 2 else 2) / (6 * pieces)
        total = total + weight * metric.norm(start + k / (2 * pieces) * velocity, velocity)
    lengths: np.ndarray = total.double().cpu().numpy()
    return lengths


def _resample(points: Tensor, lengths: Tensor, count: int) -> Tensor:
    """``count`` points at equal distances along polygons ``(L, P, d)`` with cumulative lengths ``(L, P)``."""
    total = lengths.T.contiguous()
    wanted = torch.linspace(0, 1, count).to(total) * total[:, -1:]
    right = torch.searchsorted(total, wanted.contiguous()).clamp(1, total.shape[1] - 1)
    before, after = total.gather(1, right - 1), total.gather(1, right)
    fraction = ((wanted - before) / (after - before).clamp(min=1e-12)).clamp(0, 1).unsqueeze(-1)
    track = points.transpose(0, 1)

    def pick(index: Tensor) -> Tensor:
        return track.gather(1, index.unsqueeze(-1).expand(-1, -1, track.shape[-1]))

    return (pick(right - 1) * (1 - fraction) + pick(right) * fraction).transpose(0, 1)
