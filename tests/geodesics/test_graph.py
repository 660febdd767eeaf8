"""Shortest paths on grids: hand counts, lengths that are known, and curves along them at a constant speed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import GridMetric, RiemannianMetric
from pyro_riemann._formulas import shortest_paths, splines
from pyro_riemann.geodesics import PathTable
from pyro_riemann.geodesics._graph import CentredPaths, _edge_lengths, grid_curves

DTYPE = torch.float64


def test_edges_of_grids_by_hand() -> None:
    """Joined are king's and knight's moves in the plane, and the 26 nearest cells in space, each pair once."""
    plane = shortest_paths.Grid(np.zeros(2), np.ones(2), 5)
    assert plane.nodes.shape == (25, 2)
    start, end = plane.edges()
    assert len(start) == 2 * 5 * 4 + 2 * 4 * 4 + 4 * 4 * 3
    assert len({frozenset(edge) for edge in zip(start.tolist(), end.tolist(), strict=True)}) == len(start)
    steps = np.square(4 * (plane.nodes[end] - plane.nodes[start])).sum(-1)
    assert np.unique(steps.round(9)).tolist() == [1.0, 2.0, 5.0]
    space = shortest_paths.Grid(np.zeros(3), np.ones(3), 27)
    assert space.nodes.shape == (9**3, 3)  # 27 in the plane are as many as 9 in space
    assert len(space.edges()[0]) == 3 * 8 * 81 + 6 * 64 * 9 + 4 * 512
    low, high = shortest_paths.box_around(np.array([[0.0, 1.0], [2.0, 1.5]]))
    np.testing.assert_allclose([low, high], [[-0.3, 0.7], [2.3, 1.8]])


@pytest.mark.parametrize("pieces", [1, 3])
def test_rule_of_simpson_is_exact_for_cubics(pieces: int) -> None:
    """Powers up to the third have the integrals 1 / (k + 1)."""
    times, weights = np.array(shortest_paths.simpson(pieces)).T
    np.testing.assert_allclose([weights @ times**k for k in range(4)], [1, 1 / 2, 1 / 3, 1 / 4])


def test_lengths_of_paths_in_a_flat_plane() -> None:
    """From a corner to (i, j), i >= j, as many knight's moves as will do, and else straight ones or diagonal ones."""
    grid = shortest_paths.Grid(np.zeros(2), np.full(2, 6.0), 7)
    start, end = grid.edges()
    paths = shortest_paths.AllPaths(grid, np.linalg.norm(grid.nodes[end] - grid.nodes[start], axis=-1))
    for i in range(7):
        for j in range(i + 1):
            knights = min(j, i - j)
            exact = 5**0.5 * knights + (i - 2 * knights) * (1 if 2 * j <= i else 0) + 2**0.5 * max(0, 2 * j - i)
            assert paths.dist[0, 7 * i + j] == pytest.approx(exact)
            assert paths.dist[0, 7 * j + i] == pytest.approx(exact)


class Wedge(RiemannianMetric):
    """exp(2 x) (dx^2 + dy^2): the plane in log-polar coordinates, in which rays from the origin run along x."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed((2 * z[..., :1]).exp().expand_as(z))


@pytest.mark.parametrize("pieces", [2, 32])
def test_lengths_of_edges_on_a_ray_are_differences_of_radii(pieces: int) -> None:
    """By Simpson, whose error falls with the fourth power of the number of pieces."""
    start = torch.tensor([[-1.0, 0.3], [0.5, 0.0]], dtype=DTYPE)
    end = torch.tensor([[1.0, 0.3], [-0.2, 0.0]], dtype=DTYPE)
    exact = (end[:, 0].exp() - start[:, 0].exp()).abs().numpy()
    np.testing.assert_allclose(_edge_lengths(Wedge(), start, end, pieces), exact, rtol=0.02 / pieces**4)


CURVES: dict[str, Callable[[GridMetric, Tensor, Tensor], Tensor]] = {
    "all": lambda table, z, y: PathTable(table, 33)(z, y, 8),
    "few centres": lambda table, z, y: CentredPaths(table, 33)(z, y, 8),
    "once": lambda table, z, y: grid_curves(table, z, y, 8, 33),
}


@pytest.mark.parametrize("kind", CURVES)
def test_curves_along_paths_run_at_constant_speed(kind: str) -> None:
    """On a ray of the plane in log-polar coordinates x is the log of a radius that grows evenly."""
    table = GridMetric(Wedge(), -1.0, 1.0, 33)
    ends = torch.tensor([[-1.0, 1.0], [0.5, -0.75], [-0.25, 0.75]], dtype=DTYPE)
    heights = torch.tensor([0.0, 0.5, -0.25], dtype=DTYPE)
    z, y = (torch.stack([ends[:, k], heights], -1) for k in range(2))
    times = np.linspace(0, 1, 21)
    points = torch.from_numpy(splines.basis(8, times)) @ CURVES[kind](table, z, y)
    share = torch.from_numpy(times)
    exact = (torch.lerp(ends[:, :1].exp(), ends[:, 1:].exp(), share)).log()
    torch.testing.assert_close(points[..., 0], exact, rtol=0, atol=2e-3)
    torch.testing.assert_close(points[..., 1], heights[:, None].expand(3, 21), rtol=0, atol=1e-6)
