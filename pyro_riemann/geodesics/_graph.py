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


def grid_curves(table: Any, z: Tensor, y: Tensor, num_knots: int, resolution: int) -> Tensor:
    """Control points ``(P, num_knots + 3, d)`` of curves along shortest paths on a grid over the table's box."""
    low, high = table.table.low.to(z), table.table.high.to(z)
    count = _resolution(table.dim, resolution)
    unit = torch.linspace(0, 1, count, dtype=z.dtype, device=z.device)
    nodes = low + (high - low) * torch.stack(torch.meshgrid(*[unit] * table.dim, indexing="ij"), -1)

    def nearest(points: Tensor) -> np.ndarray:
        cell = ((points - low) / (high - low) * (count - 1)).round().clamp(0, count - 1).long().cpu().numpy()
        return np.ravel_multi_index(tuple(cell.T), (count,) * table.dim)

    graph = _grid_graph(table, nodes, count)
    return _curves(nodes.reshape(-1, table.dim), graph, nearest(z), nearest(y), z, y, num_knots)


def neighbour_curves(metric: Any, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
    """The same along paths through near neighbours among the points and ``metric.landmarks``."""
    cloud = _cloud(metric, z, y)
    count = min(_NEIGHBOURS, cloud.shape[0] - 1)
    near = torch.cdist(cloud, cloud).topk(count + 1, largest=False).indices[:, 1:].reshape(-1)
    rows = torch.arange(cloud.shape[0], device=cloud.device).repeat_interleave(count)
    # the direct edge is always there, so that every pair is connected
    start = torch.arange(z.shape[0], device=cloud.device)
    rows, near = torch.cat([rows, start]), torch.cat([near, start + z.shape[0]])
    graph = _symmetric(rows.cpu().numpy(), near.cpu().numpy(), _edge_lengths(metric, cloud[rows], cloud[near]), len(cloud))
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
    path, lengths = _paths(graph, start, end)
    points = nodes[torch.from_numpy(path).to(nodes.device)]  # (L, P, d), padded at the start by its first node
    points[0], points[-1] = z, y
    times = torch.from_numpy(lengths).to(points)
    return _spline.fit(num_knots, _resample(points, times, 8 * num_knots + 1))


def _grid_graph(table: Any, nodes: Tensor, count: int) -> csr_matrix:
    dim = table.dim
    index = np.arange(count**dim).reshape((count,) * dim)
    rows, columns, weights = [], [], []
    for offset in _offsets(dim):
        here = tuple(slice(max(0, -o), count - max(0, o)) for o in offset)
        there = tuple(slice(max(0, o), count - max(0, -o)) for o in offset)
        rows.append(index[here].ravel())
        columns.append(index[there].ravel())
        weights.append(_edge_lengths(table, nodes[here].reshape(-1, dim), nodes[there].reshape(-1, dim)))
    return _symmetric(np.concatenate(rows), np.concatenate(columns), np.concatenate(weights), count**dim)


def _offsets(dim: int) -> list[tuple[int, ...]]:
    """Half of the neighbours of a grid node: coprime offsets up to 2 in the plane, the adjacent cells in space."""
    reach = 2 if dim == 2 else 1
    every = itertools.product(range(-reach, reach + 1), repeat=dim)
    return [o for o in every if o > (0,) * dim and math.gcd(*o) == 1]


def _edge_lengths(metric: Any, start: Tensor, end: Tensor) -> np.ndarray:
    """Lengths of straight edges by Simpson's rule on the norm of the velocity."""
    velocity = end - start
    total = torch.zeros_like(start[:, 0])
    for fraction, weight in ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6)):
        total = total + weight * metric.norm(start + fraction * velocity, velocity)
    return total.double().cpu().numpy()


def _symmetric(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, size: int) -> csr_matrix:
    return csr_matrix((weights, (rows, columns)), shape=(size, size))


def _paths(graph: csr_matrix, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and lengths along all shortest paths: two arrays ``(L, P)``, the ends repeated as padding."""
    sources, source_of = np.unique(start, return_inverse=True)
    dist, previous = dijkstra(graph, directed=False, indices=sources, return_predecessors=True)
    nodes = [end]
    while (nodes[-1] != start).any():
        step = previous[source_of, nodes[-1]]
        nodes.append(np.where(step < 0, start, step))
    path = np.stack(nodes[::-1] if len(nodes) > 1 else nodes * 2)
    return path, dist[source_of, path]


def _resample(points: Tensor, lengths: Tensor, count: int) -> Tensor:
    """``count`` points at equal distances along polygons ``(L, P, d)`` with cumulative lengths ``(L, P)``."""
    total = lengths.T.contiguous()
    wanted = torch.linspace(0, 1, count).to(total) * total[:, -1:]
    right = torch.searchsorted(total, wanted.contiguous()).clamp(1, total.shape[1] - 1)
    before, after = total.gather(1, right - 1), total.gather(1, right)
    fraction = ((wanted - before) / (after - before).clamp(min=1e-12)).clamp(0, 1).unsqueeze(-1)
    track = points.transpose(0, 1)
    pick = lambda index: track.gather(1, index.unsqueeze(-1).expand(-1, -1, track.shape[-1]))  # noqa: E731
    return (pick(right - 1) * (1 - fraction) + pick(right) * fraction).transpose(0, 1)
