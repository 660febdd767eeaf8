"""Geodesics across the kinks of an immersion, as decoders with ReLU have them: against surfaces that unfold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.geodesics._audit import audit

COUNT = 30  # folds


class Folded(nn.Module):
    """The graph of a piecewise linear function of one coordinate of a turned plane, ``(n, 2) -> (n, 3)``."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.places = torch.linspace(-1, 1, COUNT, dtype=torch.float64) + 0.02 * torch.rand(COUNT, generator=generator)
        slopes = largest * (2 * torch.rand(COUNT + 1, generator=generator, dtype=torch.float64) - 1)
        slopes[0] = 0.0
        self.jumps, self.stretches = slopes.diff(), (1 + slopes.square()).sqrt()
        turn = torch.tensor(0.6, dtype=torch.float64)
        self.turn = torch.stack([torch.cos(turn), torch.sin(turn), -torch.sin(turn), torch.cos(turn)]).reshape(2, 2)
        self.points = 0

    def forward(self, z: Tensor) -> Tensor:
        self.points += len(z)
        turned = z @ self.turn
        height = torch.relu(turned[:, :1] - self.places) @ self.jumps
        return torch.cat([turned, height[:, None]], dim=-1)

    def dist(self, z: Tensor, y: Tensor) -> Tensor:
        """In the plane to which the surface unfolds."""
        ends = []
        for point in (z, y):
            across, along = (point @ self.turn).unbind(-1)
            passed = torch.relu(across[:, None] - self.places)
            ends.append(torch.stack([across + passed @ self.stretches.diff(), along], dim=-1))
        return (ends[1] - ends[0]).norm(dim=-1)


def pairs(count: int) -> tuple[Tensor, Tensor]:
    z, y = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return z, y


@pytest.mark.parametrize("largest", [0.3, 1.0])
def test_curves_across_folds_have_the_length_of_lines_in_the_plane(largest: float) -> None:
    surface = Folded(largest)
    metric, (z, y) = PullbackMetric(surface, 2, jitter=0.0), pairs(20)
    curves = metric.geodesic(z, y)
    assert bool(curves.converged.all())
    torch.testing.assert_close(curves.length, surface.dist(z, y), rtol=1e-3, atol=0)
    torch.testing.assert_close(metric.dist(z, y), surface.dist(z, y), rtol=1e-3, atol=0)
    print(surface.points)
