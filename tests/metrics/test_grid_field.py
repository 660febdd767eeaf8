"""All distances from one centre, against closed forms and against the pairwise solver."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from pyro_riemann import ConstantMetric, GridMetric, Hyperbolic, RiemannianMetric, Sphere
from tests.charts import warped_hyperbolic, warped_sphere

CENTRE = torch.tensor([0.31, -0.27, 0.1], dtype=torch.float64)


def grid_of(metric: RiemannianMetric, size: float = 1.0, resolution: int = 80) -> GridMetric:
    corner = torch.full((metric.dim,), size, dtype=torch.float64)
    return GridMetric(metric, -corner, corner, 30 if metric.dim == 3 else resolution)


def inner_points(dim: int, num: int = 500) -> Tensor:
    """Points whose shortest path to the centre stays in the box."""
    return 0.75 * (2 * torch.rand(num, dim, dtype=torch.float64) - 1)


CHARTS = {"S2": Sphere(2), "H2": Hyperbolic(2), "warped S2": warped_sphere(2), "warped H2": warped_hyperbolic(2)}


@pytest.mark.parametrize("metric", CHARTS.values(), ids=CHARTS)
def test_closed_forms_in_the_plane(metric: RiemannianMetric) -> None:
    size = 0.65 if isinstance(metric, Hyperbolic) else 1.0
    field = grid_of(metric, size).distance_field(CENTRE[:2], resolution=40)
    z = size * inner_points(2)
    exact = metric.dist(CENTRE[:2].expand_as(z), z)
    relative = (field.dist(z) - exact).abs() / exact
    assert relative.median().item() < 1e-4
    assert relative.max().item() < 1e-3
    assert field.eikonal_error.item() < 1e-3


def test_error_falls_with_the_grid() -> None:
    grid, metric = grid_of(warped_sphere(2)), warped_sphere(2)
    z = inner_points(2)
    exact = metric.dist(CENTRE[:2].expand_as(z), z)
    errors = []
    for resolution in (20, 40):
        field = grid.distance_field(CENTRE[:2], resolution=resolution)
        errors.append(((field.dist(z) - exact) / exact).abs().median().item())
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("dim", [1, 3])
def test_other_dimensions(dim: int) -> None:
    metric = Sphere(dim)
    field = grid_of(metric).distance_field(CENTRE[:dim], resolution=12 if dim == 3 else 60)
    z = inner_points(dim)
    exact = metric.dist(CENTRE[:dim].expand_as(z), z)
    relative = (field.dist(z) - exact).abs() / exact.clamp(
        min=0.25
    )  # within a cell of the centre the square is interpolated
    assert relative.median().item() < 1e-3
    assert relative.max().item() < 4e-3


def test_anisotropic_constant_metric() -> None:
    # characteristics far from the grid's axes: Dijkstra alone is a per cent long
    matrix = torch.tensor([[4.0, 1.9], [1.9, 1.0]], dtype=torch.float64)
    metric = ConstantMetric(matrix)
    field = grid_of(metric, resolution=10).distance_field(torch.zeros(2, dtype=torch.float64), resolution=30)
    z = inner_points(2)
    torch.testing.assert_close(field.dist(z), metric.dist(torch.zeros_like(z), z), rtol=1e-3, atol=1e-4)


def test_gradient_is_the_momentum() -> None:
    metric = warped_sphere(2)
    field = grid_of(metric).distance_field(CENTRE[:2], resolution=40)
    z = inner_points(2, 100).requires_grad_()
    (gradient,) = torch.autograd.grad(field.squared_dist(z).sum(), z)
    exact = metric.squared_dist(CENTRE[:2].expand_as(z), z).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, z)[0], rtol=0, atol=5e-3)
    assert torch.autograd.gradcheck(field.squared_dist, (z[:3].detach().requires_grad_(),))


def test_zero_at_the_centre_with_zero_gradient() -> None:
    field = grid_of(Sphere(2)).distance_field(CENTRE[:2], resolution=20)
    z = CENTRE[:2].clone().requires_grad_()
    distance = field.dist(z)
    distance.backward()
    assert distance.item() == 0
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(field.dist(CENTRE[:2] + 1e-9 * torch.randn(50, 2, dtype=torch.float64))).all())


class Wall(RiemannianMetric):
    """A steep wall with a gap: straight lines through it are many times too long."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        height = 200 * torch.exp(-(((z[..., 0] - 0.2) / 0.1) ** 2)) * torch.sigmoid(20 * (0.6 - z[..., 1]))
        return (1 + height)[..., None, None] * torch.eye(2, dtype=z.dtype)


def test_shortest_paths_go_around_a_wall() -> None:
    grid = grid_of(Wall())
    loc = torch.tensor([-0.5, -0.5], dtype=torch.float64)
    field = grid.distance_field(loc, resolution=50)
    z = torch.tensor([[0.7, -0.5], [0.8, 0.0], [-0.8, 0.7], [0.9, 0.9]], dtype=torch.float64)
    curve = grid.geodesic(loc.expand_as(z), z, init="graph")
    torch.testing.assert_close(field.dist(z), curve.length, rtol=3e-3, atol=0)
    # behind the wall the way leads through the gap, far beyond the straight line's Euclidean length
    assert field.dist(z[0]).item() > 1.5 * (z[0] - loc).norm().item()


def test_within_the_horizon_distances_are_exact_and_beyond_it_those_of_the_graph() -> None:
    grid, z = grid_of(warped_sphere(2)), inner_points(2)
    found = grid.distance_field(CENTRE[:2], resolution=40, horizon=1.0).dist(z)
    exact = warped_sphere(2).dist(CENTRE[:2].expand_as(z), z)
    relative = (found - exact) / exact.clamp(min=0.25)
    near, far = exact < 0.8, exact > 1.1  # a spline feels what happens a few cells away
    assert int(near.sum()) > 50
    assert int(far.sum()) > 50
    assert relative[near].abs().median().item() < 1e-3
    assert relative[near].abs().max().item() < 4e-3
    assert relative[far].min().item() > -4e-3  # a path is never shorter than the shortest
    assert 1e-3 < relative[far].median().item() < 0.03
    with pytest.raises(ValueError, match="`horizon` must be positive"):
        grid.distance_field(CENTRE[:2], horizon=0.0)


def test_shapes_trace_pickle_and_dtype() -> None:
    field = grid_of(Sphere(2)).distance_field(CENTRE[:2], resolution=20)
    z = inner_points(2, 6).reshape(2, 3, 2)
    assert field.dist(z).shape == field(z).shape == (2, 3)
    traced = torch.jit.trace(lambda p: field.squared_dist(p), (z,))
    torch.testing.assert_close(traced(0.5 * z), field.squared_dist(0.5 * z))
    for twin in (pickle.loads(pickle.dumps(field)), copy.deepcopy(field)):
        assert torch.equal(twin.dist(z), field.dist(z))
    assert copy.deepcopy(field).float().dist(z.float()).dtype == torch.float32
    assert torch.equal(field.dist(torch.full((2,), 7.0).double()), field.dist(torch.ones(2).double()))


def test_single_precision_grid() -> None:
    corner = torch.ones(2)
    grid = GridMetric(Sphere(2), -corner, corner, 60)
    field = grid.distance_field(CENTRE[:2].float(), resolution=30)
    z = inner_points(2).float()
    exact = Sphere(2).dist(CENTRE[:2].expand(500, 2), z.double())
    assert ((field.dist(z) - exact).abs() / exact.clamp(min=0.05)).max().item() < 2e-3


@pytest.mark.parametrize(
    ("loc", "match"),
    [
        (torch.tensor([2.0, 0.0]), "inside the box"),
        (torch.zeros(3, 2), r"one point \(2,\)"),
        (torch.zeros(3), "`loc` must have shape"),
        (torch.tensor([float("nan"), 0.0]), "`loc` has 1 NaN"),
    ],
)
def test_bad_centres(loc: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GridMetric(Sphere(2), -1.0, 1.0, 10).distance_field(loc)
