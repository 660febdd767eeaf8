"""The boundary-value solver against closed forms, finite differences and its own honesty."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_riemann import GeodesicSolver, PullbackMetric, RiemannianMetric
from tests import charts

# name: (closed form, the same manifold for the numerical route, scale of the points)
PAIRS: dict[str, tuple[RiemannianMetric, RiemannianMetric]] = {
    "sphere2, sheared pullback": (charts.warped_sphere(2), charts.sphere_pullback(2)),
    "sphere3, sheared pullback": (charts.warped_sphere(3), charts.sphere_pullback(3)),
    "sphere2, metric only": (charts.warped_sphere(2), charts.OnlyMetric(charts.warped_sphere(2))),
    "ball2, metric only": (charts.ball_as_hyperboloid(2), charts.OnlyMetric(charts.ball_as_hyperboloid(2))),
    "hyperbolic2, sheared, metric only": (charts.warped_hyperbolic(2), charts.OnlyMetric(charts.warped_hyperbolic(2))),
    "half-space3, metric only": (charts.half_space_log_height(3), charts.OnlyMetric(charts.half_space_log_height(3))),
    "torus2, sheared, metric only": (charts.warped_torus(2, 40.0), charts.OnlyMetric(charts.warped_torus(2, 40.0))),
}
EXACT = GeodesicSolver(tolerance=1e-16)


def ends(dim: int, count: int = 6, scale: float = 0.3) -> tuple[Tensor, Tensor]:
    points = scale * torch.randn(2, count, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return points[0], points[1]


def central_difference(function: Callable[[Tensor], Tensor], z: Tensor, step: float = 1e-3) -> Tensor:
    """Gradient of a batched scalar function by fourth-order central differences, ``(*batch, d)``."""
    slopes = []
    for axis in step * torch.eye(z.shape[-1], dtype=z.dtype):
        near, far = function(z + axis) - function(z - axis), function(z + 2 * axis) - function(z - 2 * axis)
        slopes.append((8 * near - far) / (12 * step))
    return torch.stack(slopes, -1)


@pytest.mark.parametrize("name", PAIRS)
def test_distance_meets_the_closed_form(name: str) -> None:
    exact, metric = PAIRS[name]
    z, y = ends(metric.dim)
    truth = exact.dist(z, y)
    metric.solver = GeodesicSolver(num_knots=16, num_segments=64)
    torch.testing.assert_close(metric.dist(z, y), truth, rtol=1e-6, atol=0)
    metric.solver = GeodesicSolver()
    torch.testing.assert_close(metric.dist(z, y), truth, rtol=1e-5, atol=0)
    curve = metric.geodesic(z, y, init="line")
    assert bool(curve.converged.all())
    torch.testing.assert_close(curve.length, truth, rtol=3e-4, atol=0)
    torch.testing.assert_close((2 * curve.energy).sqrt(), truth, rtol=1e-5, atol=0)
    torch.testing.assert_close(metric.logmap(z, y), exact.logmap(z, y), rtol=0, atol=2e-4)


def test_richardson_raises_the_order_from_two_to_four() -> None:
    exact, metric = PAIRS["sphere2, sheared pullback"]
    z, y = ends(2)
    errors = {}
    for richardson in (False, True):
        for segments in (32, 64):
            metric.solver = GeodesicSolver(16, segments, richardson=richardson)
            errors[richardson, segments] = (metric.dist(z, y) / exact.dist(z, y) - 1).abs().max().item()
    assert errors[False, 32] < 3e-4
    assert errors[False, 32] / errors[False, 64] == pytest.approx(4, rel=0.1)
    assert errors[True, 32] / errors[True, 64] > 12


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_match_finite_differences(name: str) -> None:
    exact, metric = PAIRS[name]
    metric.solver = EXACT
    z, y = (points.requires_grad_() for points in ends(metric.dim, 3, scale=0.2))
    half = metric.squared_dist(z, y) / 2
    grad_z, grad_y = torch.autograd.grad(half.sum(), (z, y))
    z, y = z.detach(), y.detach()
    torch.testing.assert_close(
        grad_z, central_difference(lambda at: metric.squared_dist(at, y) / 2, z), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(
        grad_y, central_difference(lambda at: metric.squared_dist(z, at) / 2, y), rtol=1e-8, atol=1e-8
    )
    # the covector G gamma'(1): neither the sign nor G may be missing
    momentum = torch.einsum("...ij,...j->...i", exact.metric(y), -exact.logmap(y, z))
    torch.testing.assert_close(grad_y, momentum, rtol=0, atol=5e-4)


def test_the_length_of_a_curve_has_the_gradient_of_the_distance() -> None:
    exact, metric = PAIRS["sphere2, sheared pullback"]
    metric.solver = GeodesicSolver()
    z, y = (points.requires_grad_() for points in ends(2, 3))
    found = torch.autograd.grad(metric.geodesic(z, y, init="line").length.sum(), (z, y))
    for slope, truth in zip(found, torch.autograd.grad(exact.dist(z, y).sum(), (z, y)), strict=True):
        torch.testing.assert_close(slope, truth, rtol=0, atol=1e-3)


def test_gradient_in_the_parameters_of_the_metric() -> None:
    def immersion(weight: Tensor) -> PullbackMetric:
        def surface(z: Tensor) -> Tensor:
            return torch.cat([z, weight * z.square().sum(-1, keepdim=True)], -1)

        metric = PullbackMetric(surface, 2, jitter=0.0)
        metric.solver = EXACT
        return metric

    z, y = ends(2)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(immersion(weight).squared_dist(z, y).sum(), weight)
    step = 1e-5
    up, down = (immersion(weight.detach() + s).squared_dist(z, y).sum() for s in (step, -step))
    torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
def test_van_vleck_determinant_and_its_gradient(name: str) -> None:
    exact, metric = PAIRS[name]
    metric.solver = EXACT
    z, y = ends(metric.dim)
    z.requires_grad_()
    value = metric.log_van_vleck(z, y)
    torch.testing.assert_close(value.detach(), exact.log_van_vleck(z.detach(), y), rtol=0, atol=1e-4)
    (slope,) = torch.autograd.grad(value.sum(), z)
    numerical = central_difference(lambda at: metric.log_van_vleck(at, y), z.detach())
    torch.testing.assert_close(slope, numerical, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(metric.log_van_vleck(y, y), torch.zeros(len(y), dtype=y.dtype), rtol=0, atol=1e-10)


def test_van_vleck_determinant_of_the_cylinder_is_one() -> None:
    metric = charts.cylinder()
    z = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    y = torch.tensor([[2.3, 1.0]], dtype=torch.float64)
    assert metric.log_van_vleck(z, y).abs().item() < 1e-4
    # the Gauss-Newton Hessian of the same curve is far off
    energy = metric.solver.energy(metric)
    stiff = energy.exact_system(metric.solver.control_points(metric, z, y).control).stiffening
    mixed = stiff[:, :2, -2:] - stiff[:, :2, 2:-2] @ torch.linalg.solve(stiff[:, 2:-2, 2:-2], stiff[:, 2:-2, -2:])
    assert torch.linalg.slogdet(mixed).logabsdet.item() < -0.1


def test_van_vleck_determinant_of_a_spline_without_inner_knots() -> None:
    """On one knot interval both ends act on the same chords; V of the sphere is right as far as a cubic follows it."""
    exact, metric = charts.warped_sphere(2), charts.sphere_pullback(2)
    metric.solver = GeodesicSolver(num_knots=1, num_segments=64)
    z, y = ends(2)
    torch.testing.assert_close(metric.log_van_vleck(z, y), exact.log_van_vleck(z, y), rtol=0, atol=0.01)


def test_logmap_is_differentiable() -> None:
    _, metric = PAIRS["sphere2, sheared pullback"]
    metric.solver = EXACT
    z, y = ends(2, 2)
    jacobian = torch.autograd.functional.jacobian(lambda at: metric.logmap(at, y).sum(0), z)
    numerical = torch.stack(
        [central_difference(lambda at: metric.logmap(at, y)[..., 0], z)]
        + [central_difference(lambda at: metric.logmap(at, y)[..., 1], z)]
    )
    torch.testing.assert_close(jacobian, numerical, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sphere2, sheared pullback", "ball2, metric only"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_points_have_distance_and_gradient_zero(name: str, dtype: torch.dtype) -> None:
    metric = PAIRS[name][1].to(dtype)
    z = torch.tensor([[0.3, -0.2], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    for value in (metric.squared_dist(z, z.detach()), metric.dist(z, z.detach())):
        assert value.tolist() == [0.0, 0.0]
        assert torch.autograd.grad(value.sum(), z)[0].abs().max().item() == 0.0
    metric.double()


def test_single_precision_batches_and_determinism() -> None:
    exact, metric = PAIRS["sphere2, sheared pullback"]
    metric.solver = GeodesicSolver()
    z, y = ends(2, 12)
    single = metric.dist(z.float(), y.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact.dist(z, y), rtol=1e-4, atol=0)
    grid = metric.dist(z.reshape(3, 1, 4, 2), y.reshape(3, 1, 4, 2)[:, :, :1])
    assert grid.shape == (3, 1, 4)
    torch.testing.assert_close(grid[1, 0, 2], metric.dist(z[6], y[4]), rtol=1e-9, atol=0)
    assert torch.equal(metric.squared_dist(z, y), metric.squared_dist(z, y))


@pytest.mark.parametrize("name", ["sphere2, sheared pullback", "ball2, metric only"])
def test_traced_distance_equals_the_eager_one(name: str) -> None:
    _, metric = PAIRS[name]
    metric.solver = GeodesicSolver(num_knots=4, num_segments=16)
    z, y = ends(2, 4)
    traced = torch.jit.trace(lambda a, b: metric.squared_dist(a, b), (z, y), check_trace=False)
    other_z, other_y = y + 0.1, z
    at = other_z.clone().requires_grad_()
    with torch.jit.optimized_execution(False):  # which takes a graph of this size longer than the program itself
        value = traced(at, other_y)
        (slope,) = torch.autograd.grad(value.sum(), at)
    torch.testing.assert_close(value.detach(), metric.squared_dist(other_z, other_y), rtol=1e-8, atol=0)
    (eager,) = torch.autograd.grad(metric.squared_dist(at, other_y).sum(), at)
    torch.testing.assert_close(slope, eager, rtol=1e-6, atol=1e-8)


class TwoHills(torch.nn.Module):
    """Flat but for two tall hills (ridges in more dimensions): the straight line slides into the pass between them."""

    def forward(self, z: Tensor) -> Tensor:
        x, y = z[..., :1], z[..., 1:2]
        return torch.cat([z] + [6 * torch.exp(-2 * (x.square() + (y - at).square())) for at in (-0.05, 1.6)], -1)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_graph_walks_around_the_hills(dim: int) -> None:
    metric = PullbackMetric(TwoHills(), dim, jitter=0.0)
    codes = 4 * torch.rand(600, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
    metric.landmarks = codes * torch.tensor([1.0, 1.0, 0.1, 0.1][:dim], dtype=torch.float64)
    z, y = torch.zeros(2, 1, dim, dtype=torch.float64)
    z[:, 0], y[:, 0] = -2.0, 2.0
    line, graph = (metric.geodesic(z, y, init=init, num_knots=16, num_segments=64) for init in ("line", "graph"))
    assert bool(graph.converged.all())
    assert line.length.item() > 1.05 * graph.length.item()


def test_graph_finds_the_short_way_around_the_sphere_of_a_bad_start() -> None:
    exact, metric = PAIRS["sphere2, metric only"]
    z, y = ends(2, 8)
    torch.testing.assert_close(metric.geodesic(z, y, init="graph").length, exact.dist(z, y), rtol=3e-4, atol=0)


def test_a_coarse_table_only_says_where_to_begin() -> None:
    """Curves found on a table of few nodes end as geodesics of the sphere, whose velocities err as curves do."""
    exact, metric = charts.warped_sphere(2), charts.sphere_pullback(2)
    metric.solver = GeodesicSolver(num_knots=16, num_segments=64, init="graph", graph_resolution=8)
    z, y = ends(2)
    torch.testing.assert_close(metric.logmap(z, y), exact.logmap(z, y), rtol=0, atol=1e-6)


def test_tunnelling_is_not_called_convergence() -> None:
    class Wall(torch.nn.Module):
        """A plane cut by a wall much thinner than a chord."""

        def forward(self, z: Tensor) -> Tensor:
            return torch.cat([z, 5 * torch.exp(-((40 * (z[..., :1] - 0.01)) ** 2))], -1)

    metric = PullbackMetric(Wall(), 2, jitter=0.0)
    z = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    curve = metric.geodesic(z, y, init="line", num_knots=4, num_segments=16, on_failure="ignore")
    assert curve.length.item() > 10  # up and down the wall
    assert (2 * curve.energy.item()) ** 0.5 < 0.9 * curve.length.item()  # the chords jumped it
    assert not bool(curve.converged)


def test_unfinished_iterations_are_not_called_convergence() -> None:
    _, metric = PAIRS["sphere2, sheared pullback"]
    z, y = ends(2)
    curve = metric.geodesic(z, y, init="line", max_iterations=1, max_polish=0, on_failure="ignore")
    assert not bool(curve.converged.any())


def test_curve_can_be_called_at_any_time() -> None:
    exact, metric = PAIRS["sphere2, sheared pullback"]
    z, y = ends(2)
    curve = metric.geodesic(z, y, init="line", num_knots=16, num_segments=64)
    torch.testing.assert_close(curve(0.0), z)
    torch.testing.assert_close(curve(1.0), y)
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert curve(times).shape == (5, 6, 2)
    torch.testing.assert_close(curve.points[::16], curve(times))
    # constant speed: a quarter of the time is a quarter of the way
    torch.testing.assert_close(exact.dist(z, curve(0.25)), exact.dist(z, y) / 4, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="`t`"):
        curve(1.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "random"}, "`init`"),
        ({"num_segments": 7}, "`num_segments`"),
        ({"num_knots": 0}, "`num_knots`"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"max_iterations": -1}, "`max_iterations`"),
        ({"on_failure": "shout"}, "`on_failure`"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeodesicSolver(**settings)  # type: ignore[arg-type]
