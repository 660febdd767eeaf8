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

_MAX_GRID_DIM = 3
_NEIGHBOURS = 10
_MARGIN = 0.15


def initial_curves(metric: Any, z: Tensor, y: Tensor, num_knots: int, resolution: int) -> list[Tensor]:
    """Control points ``(P, num_knots + 3, d)`` of curves along shortest graph paths from ``z`` to ``y``.

    Up to three dimensions the graph is a regular grid over the bounding box of the points (and of
    ``metric.landmarks``, where the metric has these); above, the nearest neighbours among them.
    """
    landmarks = getattr(metric, "landmarks", None)
    cloud = torch.cat([z, y] + ([landmarks.to(z)] if landmarks is not None else []))
    if metric.dim <= _MAX_GRID_DIM:
        nodes, graph, start, end = _grid_graph(metric, cloud, z, y, resolution)
    else:
        nodes, graph, start, end = _neighbour_graph(metric, cloud, z, y)
    path, lengths = _paths(graph, start, end)
    points = nodes[torch.from_numpy(path).to(nodes.device)]  # (L, P, d), padded at the end with the last node
    points[0], points[-1] = z, y
    times = torch.from_numpy(lengths).to(points)
    return [_spline.fit(num_knots, _resample(points, times, 8 * num_knots + 1))]


def _grid_graph(
    metric: Any, cloud: Tensor, z: Tensor, y: Tensor, resolution: int
) -> tuple[Tensor, csr_matrix, np.ndarray, np.ndarray]:
    low, high = cloud.amin(0), cloud.amax(0)
    margin = _MARGIN * (high - low).amax().clamp(min=1e-6)
    low, high = low - margin, high + margin
    dim = metric.dim
    count = resolution if dim <= 2 else max(8, round(resolution ** (2 / 3)))
    unit = [torch.linspace(0, 1, count, dtype=z.dtype, device=z.device)] * dim
    nodes = low + (high - low) * torch.stack(torch.meshgrid(*unit, indexing="ij"), -1)
    index = np.arange(count**dim).reshape((count,) * dim)
    rows, columns, weights = [], [], []
    for offset in _offsets(dim):
        here = tuple(slice(max(0, -o), count - max(0, o)) for o in offset)
        there = tuple(slice(max(0, o), count - max(0, -o)) for o in offset)
        rows.append(index[here].ravel())
        columns.append(index[there].ravel())
        weights.append(_edge_lengths(metric, nodes[here].reshape(-1, dim), nodes[there].reshape(-1, dim)))
    graph = _symmetric(np.concatenate(rows), np.concatenate(columns), np.concatenate(weights), count**dim)

    def nearest(points: Tensor) -> np.ndarray:
        cell = ((points - low) / (high - low) * (count - 1)).round().long().cpu().numpy()
        return np.ravel_multi_index(tuple(cell.T), (count,) * dim)

    return nodes.reshape(-1, dim), graph, nearest(z), nearest(y)


def _offsets(dim: int) -> list[tuple[int, ...]]:
    """Half of the neighbours of a grid node: coprime offsets up to 2 in the plane, the adjacent cells in space."""
    reach = 2 if dim == 2 else 1
    every = itertools.product(range(-reach, reach + 1), repeat=dim)
    return [o for o in every if o > (0,) * dim and math.gcd(*o) == 1]


def _neighbour_graph(
    metric: Any, cloud: Tensor, z: Tensor, y: Tensor
) -> tuple[Tensor, csr_matrix, np.ndarray, np.ndarray]:
    count = min(_NEIGHBOURS, cloud.shape[0] - 1)
    near = torch.cdist(cloud, cloud).topk(count + 1, largest=False).indices[:, 1:]
    rows = np.repeat(np.arange(cloud.shape[0]), count)
    columns = near.reshape(-1).cpu().numpy()
    weights = _edge_lengths(metric, cloud[torch.from_numpy(rows)], cloud[torch.from_numpy(columns)])
    start = np.arange(z.shape[0])
    return cloud, _symmetric(rows, columns, weights, cloud.shape[0]), start, start + z.shape[0]


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
