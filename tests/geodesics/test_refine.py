"""The curves that a geodesic is compared with, against circles."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_riemann import EuclideanMetric, GridMetric
from pyro_riemann.geodesics._refine import _arcs, _lay, _steps, polygon

TURNS = (0.5, 1.3)


@pytest.mark.parametrize("dim", [1, 2, 3, 8])
def test_arcs_are_circles_in_every_direction(dim: int) -> None:
    """Of the given half turns, with ends at the points, bent both ways into up to four axes across the line."""
    z, y = torch.randn(2, 3, dim, dtype=torch.float64)
    line, *arcs = _arcs(z, y, 64, TURNS, normals=4)
    assert len(arcs) == 2 * len(TURNS) * min(4, dim - 1)
    torch.testing.assert_close(line.diff(dim=1), ((y - z) / 64)[:, None].expand(3, 64, dim))
    length, bends = (y - z).norm(dim=-1), []
    for place, path in enumerate(arcs):  # of every axis each turn, to both sides
        angle = TURNS[place // 2 % len(TURNS)] * math.pi / 2
        torch.testing.assert_close(path[:, 0], z)
        torch.testing.assert_close(path[:, -1], y)
        arc = path.diff(dim=1).norm(dim=-1)
        torch.testing.assert_close(arc, arc[:, :1].expand(3, 64))
        torch.testing.assert_close(arc.sum(-1), length * angle / math.sin(angle), rtol=1e-3, atol=0)
        bends.append((path[:, 32] - (z + y) / 2) / (length / 2 * math.tan(angle / 2))[:, None])
    if arcs:  # the middle of an arc lies on its axis, at the height of a circle
        sides = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(TURNS))
        expected = torch.block_diag(*[sides.outer(sides)] * (len(arcs) // len(sides)))
        cosine = torch.einsum("apd,bpd->pab", torch.stack(bends), torch.stack(bends))
        torch.testing.assert_close(cosine, expected.expand_as(cosine), rtol=0, atol=1e-6)


def test_ways_out_of_a_box_are_infinite() -> None:
    """Of polygons in a table that refuses what lies outside, the parts inside have their lengths."""
    metric = GridMetric(EuclideanMetric(2), -1.0, 1.0, 8, outside="error")
    path = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.5, 0.8], [0.5, 1.2], [0.0, 0.0]]], dtype=torch.float32)
    torch.testing.assert_close(_steps(metric, path), torch.tensor([[0.5, 0.8, torch.inf, torch.inf]]))


def test_a_spline_is_laid_along_a_polygon_at_an_even_pace() -> None:
    """However uneven its nodes: along a straight one the spline is the line itself."""
    z, y = torch.randn(2, 3, 2, dtype=torch.float64)
    share = torch.cat([torch.zeros(1), torch.rand(30).sort().values, torch.ones(1)]).double()
    path = torch.lerp(z[:, None], y[:, None], share[:, None])
    even = polygon(4, _lay(EuclideanMetric(2), path, 4))
    expected = torch.lerp(z[:, None], y[:, None], torch.linspace(0, 1, even.shape[1], dtype=torch.float64)[:, None])
    torch.testing.assert_close(even, expected, rtol=0, atol=1e-6)
