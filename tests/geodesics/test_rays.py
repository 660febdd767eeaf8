"""Rays from a centre and the Jacobi fields along them: their equations, and areas of spheres and hyperbolic spaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann.geodesics._ray_state import across, log_area
from pyro_riemann.geodesics._rays import _FEW, _rates, follow_rays
from pyro_riemann.manifolds import Hyperboloid
from tests import charts

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def network(dim: int) -> PullbackMetric:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PullbackMetric(nn.Sequential(nn.Linear(dim, 12), nn.Tanh(), nn.Linear(12, 9)).double(), dim)


@pytest.mark.parametrize("metric", [Hyperboloid(3), network(3), network(_FEW + 2)], ids=["H3", "d = 3", "d = 6"])
def test_fields_accelerate_as_the_equation_of_geodesics_varies(metric: RiemannianMetric) -> None:
    """Their second derivative is that of the geodesics' in position and velocity, here by forward mode."""
    dim = metric.dim
    z, v, field, slope = 0.2 * random(4, dim), random(4, dim, seed=1), random(4, dim, dim - 1, seed=2), 0.5
    turn = slope * random(4, dim, dim - 1, seed=3)
    acceleration, bending = _rates(metric, z, v, field, turn, torch.ones(4, dtype=F64))
    torch.testing.assert_close(acceleration, -metric.christoffel(z, v), rtol=1e-9, atol=1e-9)
    for column in range(dim - 1):
        along = field[..., column].contiguous(), turn[..., column].contiguous()
        exact = torch.func.jvp(lambda z, v: -metric.christoffel(z, v), (z, v), along)[1]
        torch.testing.assert_close(bending[..., column], exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tolerance", [2e-5, 1e-3])
@pytest.mark.parametrize("metric", [Sphere(3), Hyperboloid(3)], ids=["S3", "H3"])
def test_areas_are_those_of_spheres_up_to_the_conjugate_point(metric: RiemannianMetric, tolerance: float) -> None:
    """Of a metric that only has its tensor; the tolerance is that of one step, relative."""
    only, count = charts.OnlyMetric(metric), 6
    loc = torch.tensor([0.2, -0.1, 0.3], dtype=F64).expand(count, 3)
    white = nn.functional.normalize(random(count, 3, seed=4), dim=-1)
    direction, frame = across(metric.cholesky(loc), white)
    variance = torch.full((count,), 1.5, dtype=F64)
    limit = torch.full((count,), tolerance, dtype=F64)
    group = torch.zeros(count, dtype=torch.int64)
    rays = follow_rays(only, (loc, direction, frame), variance, 1.0, group, limit)
    if isinstance(metric, Sphere):
        torch.testing.assert_close(rays.end, torch.full_like(rays.end, math.pi), rtol=0, atol=20 * tolerance + 1e-3)
        reach, area = 3.0, torch.sin
    else:
        assert bool((rays.end > 4).all())
        reach, area = 4.0, torch.sinh
    for radius in torch.linspace(0.1, reach, 12, dtype=F64):
        step, share = rays.find(radius.expand(1, count))
        value = log_area(only, rays.at(step, share))[0]
        assert float((value - 2 * area(radius).log()).abs().max()) < 50 * tolerance
    assert bool((rays.lost == -math.inf).all())
