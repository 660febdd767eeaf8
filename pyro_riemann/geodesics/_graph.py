"""Starting curves from shortest paths on a graph, to escape local minima."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyro_riemann._formulas import shortest_paths
from pyro_riemann._formulas.shortest_paths import MAX_GRID_DIM, TRACK, AllPaths, Grid, KeptPaths
from pyro_riemann._interface import Metric, Tabulated
from pyro_riemann._modes import full_precision_methods

__all__ = ["MAX_GRID_DIM", "PathTable", "grid_curves", "neighbour_curves", "table_around"]


def table_around(metric: Metric, z: Tensor, y: Tensor, resolution: int) -> Tabulated | None:
    """A table of the metric on a box around the points, the metric itself if it is one; None if there can be none."""
    if (table := metric.tabulated()) is not None:
        return table
    cloud = _cloud(metric, z, y)
    low, high = (torch.from_numpy(corner).to(cloud) for corner in shortest_paths.box_around(_numbers(cloud)))
    try:
        return metric.tabulate(low, high, shortest_paths.grid_resolution(metric.dim, resolution))
    except ValueError:  # the box reaches out of the metric's domain
        return None


@full_precision_methods
class PathTable:
    """Shortest paths on a grid over a tabulated metric's box, from every second node to all nodes.

    Once it is computed, a starting curve is a look-up.

    Args:
        table: a tabulated metric.
        resolution: nodes per axis (d = 2) of the grid.

    Source: Dijkstra (1959), *A note on two problems in connexion with graphs*.

    Example:
        >>> from pyro_riemann.geodesics import PathTable
        >>> table = PathTable(GridMetric(Sphere(2), -1.0, 1.0, 16), resolution=16)
        >>> table(torch.zeros(1, 2), torch.ones(1, 2), num_knots=8).shape
        torch.Size([1, 11, 2])
    """

    def __init__(self, table: Tabulated, resolution: int) -> None:
        self.paths: AllPaths | KeptPaths = self._search(*_grid(table, resolution))

    @staticmethod
    def _search(grid: Grid, lengths: npt.NDArray[np.float64]) -> AllPaths | KeptPaths:
        return AllPaths(grid, lengths)

    def __call__(self, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
        """Control points ``(P, num_knots + 3, d)`` of curves along shortest paths.

        Args:
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.
            num_knots: intervals of the splines.
        """
        return _spline_along(num_knots, self.paths.tracks(_numbers(z), _numbers(y), TRACK * num_knots + 1), z, y)


class CentredPaths(PathTable):
    """The same from few centres: the search from each is done when a path from there is first asked for."""

    @staticmethod
    def _search(grid: Grid, lengths: npt.NDArray[np.float64]) -> KeptPaths:
        return KeptPaths(grid, lengths)


def grid_curves(table: Tabulated, z: Tensor, y: Tensor, num_knots: int, resolution: int) -> Tensor:
    """Control points ``(P, num_knots + 3, d)`` of curves along shortest paths on a grid over the table's box."""
    if table.paths is not None:
        return table.paths(z, y, num_knots)
    grid, lengths = _grid(table, resolution)
    graph = shortest_paths.adjacency(*grid.edges(), lengths, len(grid.nodes))
    start, end = _numbers(z), _numbers(y)
    track = shortest_paths.tracks(
        grid.nodes, graph, grid.node(start), grid.node(end), start, end, TRACK * num_knots + 1
    )
    return _spline_along(num_knots, track, z, y)


def neighbour_curves(metric: Metric, z: Tensor, y: Tensor, num_knots: int) -> Tensor:
    """The same along paths through near neighbours among the points and ``metric.landmarks``."""
    cloud = _cloud(metric, z, y)
    nodes, first = _numbers(cloud), np.arange(z.shape[0])
    rows, near = shortest_paths.neighbour_edges(nodes, len(first))
    lengths = _edge_lengths(metric, cloud[torch.from_numpy(rows)], cloud[torch.from_numpy(near)])
    # the direct edge is always there, measured finely, so that every pair is connected
    lengths = np.concatenate([lengths, _edge_lengths(metric, z, y, pieces=32)])
    rows, near = np.concatenate([rows, first]), np.concatenate([near, first + len(first)])
    graph = shortest_paths.adjacency(rows, near, lengths, len(nodes))
    track = shortest_paths.tracks(
        nodes, graph, first, first + len(first), _numbers(z), _numbers(y), TRACK * num_knots + 1
    )
    return _spline_along(num_knots, track, z, y)


def _grid(table: Tabulated, resolution: int) -> tuple[Grid, npt.NDArray[np.float64]]:
    """A grid over the table's box and the Riemannian lengths of its edges."""
    low = table.table.low.detach()
    grid = Grid(_numbers(low), _numbers(table.table.high), resolution)
    start, end = (torch.from_numpy(grid.nodes[which]).to(low) for which in grid.edges())
    return grid, _edge_lengths(table, start, end)


def _cloud(metric: Metric, z: Tensor, y: Tensor) -> Tensor:
    return torch.cat([z, y] + ([metric.landmarks.to(z)] if metric.landmarks is not None else []))


def _edge_lengths(metric: Metric, start: Tensor, end: Tensor, pieces: int = 1) -> npt.NDArray[np.float64]:
    """Lengths of straight edges by Simpson's rule on the norm of the velocity, in ``pieces`` equal parts."""
    velocity = end - start
    total = torch.zeros_like(start[:, 0])
    for at, weight in shortest_paths.simpson(pieces):
        total = total + weight * metric.norm(start + at * velocity, velocity)
    return _numbers(total)


def _spline_along(num_knots: int, track: npt.NDArray[np.float64], z: Tensor, y: Tensor) -> Tensor:
    interior = torch.from_numpy(shortest_paths.fit(num_knots, track)).to(z)
    return torch.cat([z.unsqueeze(1), interior, y.unsqueeze(1)], dim=1)


def _numbers(points: Tensor) -> npt.NDArray[np.float64]:
    return points.detach().double().cpu().numpy()
