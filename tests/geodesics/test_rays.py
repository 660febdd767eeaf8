"""Rays from a centre and the Jacobi fields along them: their equations, and areas of spheres and hyperbolic spaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann._formulas import ray_rule
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


def test_steps_along_rays_meet_the_conditions_of_their_order() -> None:
    """Weights of order five at the nodes 0, 1/5, 3/10, 4/5, 8/9 and 1 of Dormand and Prince, an error of order four."""
    nodes = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
    np.testing.assert_allclose([sum(row) for row in ray_rule.STAGES], nodes[1:])
    weights, powers = np.array(ray_rule.STAGES[-1]), np.arange(5)
    np.testing.assert_allclose(weights @ nodes[:6, None] ** powers, 1 / (powers + 1))
    inner = [sum(a * c for a, c in zip(row, nodes, strict=False)) for row in ray_rule.STAGES[:-1]]
    assert weights[1:] @ np.array(inner) == pytest.approx(1 / 6)
    error = np.array(ray_rule.ERROR) @ nodes[:, None] ** powers
    np.testing.assert_allclose(error[:4], 0, atol=1e-15)
    assert abs(error[4]) > 1e-4


def test_tables_of_the_ray_rule_are_exact_for_polynomials() -> None:
    """Gauss weights, running integrals, and interpolation from nodes and from values and slopes at both ends."""
    nodes, weights, running = ray_rule.panel()
    for k in range(2 * ray_rule.PANEL):
        assert weights @ nodes**k == pytest.approx(1 / (k + 1))
    for k in range(ray_rule.PANEL):
        np.testing.assert_allclose(running @ nodes**k, nodes ** (k + 1) / (k + 1))
        np.testing.assert_allclose(nodes**k @ ray_rule.panel_polynomials(), np.eye(ray_rule.PANEL)[k], atol=1e-9)
    for k in range(3):
        np.testing.assert_allclose(ray_rule.from_every_second() @ nodes[::2] ** k, nodes**k)
    curve, x = np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.5, -0.7, 1.1]), np.linspace(0, 1, 7)
    ends = [curve.deriv(order)(end) if order else curve(end) for end in (0.0, 1.0) for order in range(3)]
    np.testing.assert_allclose(sum(a * b for a, b in zip(ends, ray_rule.quintic(x), strict=True)), curve(x))
    slope = sum(a * b for a, b in zip(ends, ray_rule.quintic_slope(x), strict=True))
    np.testing.assert_allclose(slope, curve.deriv()(x))


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7])
def test_directions_of_the_ray_rule_integrate_quadratic_functions(dim: int) -> None:
    """Unit vectors of mean 0 and second moment I / d; the area of their sphere is d times the volume of its ball."""
    exact = ray_rule.directions(dim, 16 * dim)
    np.testing.assert_allclose(np.linalg.norm(exact, axis=-1), 1)
    np.testing.assert_allclose(exact.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(exact.T @ exact / len(exact), np.eye(dim) / dim, atol=1e-12)
    even = ray_rule.even_directions(dim, 64)
    np.testing.assert_allclose(np.linalg.norm(even, axis=-1), 1)
    np.testing.assert_allclose(even.T @ even / len(even), np.eye(dim) / dim, atol=0.05)
    volume = {1: 2.0, 2: math.pi, 3: 4 / 3 * math.pi, 4: math.pi**2 / 2, 7: 16 / 105 * math.pi**3}[dim]
    assert math.exp(ray_rule.log_sphere_area(dim)) == pytest.approx(dim * volume)
