"""Pairs that are hard: solved again, or counted in a warning. Exact lengths of spheres, walls and waves."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from pyro_riemann import (
    EuclideanMetric,
    GeodesicSolver,
    GridMetric,
    Hyperbolic,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    Sphere,
)
from pyro_riemann.geodesics import _pieces, _refine, _solver, _spline
from pyro_riemann.geodesics._audit import audit
from pyro_riemann.geodesics._energy import QuadratureEnergy
from tests import charts, steep_metrics


def uniform(dim: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs of uniform points of the sphere, in the stereographic chart."""
    x = torch.randn(2, count, dim + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, y = Sphere(dim).from_ambient(x / x.norm(dim=-1, keepdim=True))
    return z, y


def graph_of(height, slope=None, dim: int = 2) -> tuple[PullbackMetric, float]:  # type: ignore[no-untyped-def]
    """The surface (x, y, height(x)), flat in itself, and the length of its profile over 0 < x < 1."""
    metric = PullbackMetric(lambda z: torch.cat([z, height(z[..., :1])], -1), dim, jitter=0.0)
    return metric, quad(lambda x: math.hypot(1, slope(x)), 0, 1, limit=500, points=np.linspace(0, 1, 41)[1:-1])[0]


@pytest.mark.parametrize("periods", [1, 2, 3, 4, 5])
def test_a_line_through_an_odd_immersion_is_not_straight(periods: int) -> None:
    rate = 2 * math.pi * periods
    metric, length = graph_of(lambda x: 0.1 * torch.sin(rate * x), lambda x: 0.1 * rate * math.cos(rate * x))
    z = torch.zeros(1, 2, dtype=torch.float64)
    y = z + torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert metric.dist(z, y).item() == pytest.approx(length, rel=1e-3)
    oblique = metric.dist(z, y + torch.tensor([0.0, 0.8], dtype=torch.float64)).item()
    assert oblique == pytest.approx(math.hypot(length, 0.8), rel=1e-3)


def test_distance_across_a_decoder_without_biases_is_continuous() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 40), (40, 60)))
    metric = PullbackMetric(lambda z: torch.tanh(2 * z @ first) @ second, 2)
    z = torch.tensor([[0.7, 0.4], [1.1, -0.6]], dtype=torch.float64)
    torch.testing.assert_close(metric.dist(z, -z), metric.dist(z, -z + 1e-6), rtol=1e-5, atol=0)
    assert bool((metric.dist(z, -z) > 1.01 * (metric.embed(-z) - metric.embed(z)).norm(dim=-1)).all())


def test_straight_pairs_cost_no_iteration() -> None:
    matrix = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []

    def immersion(z: Tensor) -> Tensor:
        seen.append(z[..., 0].numel())
        return z @ matrix.T

    metric = PullbackMetric(immersion, 2, jitter=0.0)
    z, y = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen.clear()
    torch.testing.assert_close(metric.dist(z, y), ((z - y) @ matrix.T).norm(dim=-1), rtol=1e-14, atol=0)
    assert sum(seen) == 7 * (4 + metric.solver.num_segments + 1)


def test_curves_are_judged_between_the_nodes_of_their_energy() -> None:
    """Across a wall that two nodes an interval miss, the error is what the energy lacks of the length."""

    class Wall(RiemannianMetric):
        dim = 2

        def metric(self, z: Tensor) -> Tensor:
            speed = 1 + 2 * torch.exp(-((z[..., 0] - 0.125) ** 2) / (2 * 0.03**2))
            return speed[..., None, None] ** 2 * torch.eye(2, dtype=z.dtype)

    energy, (z, y) = QuadratureEnergy(Wall(), 4, 8), torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]], dtype=torch.float64)
    control = _spline.line(4, z, y)
    found, length = (2 * energy.value(control)).sqrt(), 1 + 2 * 0.03 * math.sqrt(2 * math.pi)
    verdict = audit(energy, control)
    torch.testing.assert_close(verdict.length, torch.full((1,), length, dtype=torch.float64), rtol=0.02, atol=0)
    assert float(verdict.error) > 0.9 * abs(length / float(found) - 1) > 0.05


@pytest.mark.parametrize(("dim", "count"), [(2, 400), (3, 150), (8, 30)])
def test_user_written_sphere(dim: int, count: int) -> None:
    """Uniform pairs: far from the origin a short way is a long run of coordinates, and ways lead through infinity."""
    z, y = uniform(dim, count, seed=5)
    metric, exact = charts.OnlyMetric(Sphere(dim)), Sphere(dim).dist(z, y)
    curve = metric.geodesic(z, y, init="line")
    assert bool(curve.converged.all())
    torch.testing.assert_close(metric.dist(z, y), exact, rtol=1e-3, atol=0)
    torch.testing.assert_close((2 * curve.energy).sqrt(), exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(curve.length, exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(curve(1.0), y)
    torch.testing.assert_close(Sphere(dim).dist(z, curve(torch.tensor([0.0, 0.5, 1.0]).double())[0]), 0 * exact)


class Written(RiemannianMetric):
    """A metric that has its tensor and nothing else."""

    dim = 2

    def __init__(self, case: str) -> None:
        super().__init__()
        self.tensor = steep_metrics.CASES[case][0]

    def metric(self, z: Tensor) -> Tensor:
        return self.tensor(torch, z)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("case", "init"), [("spheroid", "line"), ("spheroid", "graph"), ("joukowski", "line")])
def test_the_geodesic_that_is_found_is_the_shortest(case: str, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some percent of straight starts end at another geodesic, which passes every check of its own."""
    z, y, exact = (torch.from_numpy(part) for part in steep_metrics.CASES[case][1](150, 11))
    metric, found = Written(case), {}
    for challenge in (True, False):
        monkeypatch.setattr(_solver, "unguided", lambda metric, challenge=challenge: challenge)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curve = metric.geodesic(z, y, init=init)
        error = ((2 * curve.energy).sqrt() / exact - 1).abs()
        found[challenge] = int((error > 0.01).sum()), int((curve.converged & (error > 2e-3)).sum())
    assert found[True] == (0, 0)
    assert init == "graph" or min(found[False]) > 0


def test_pullback_sphere() -> None:
    z, y = uniform(2, 150, seed=6)
    metric = PullbackMetric(Sphere(2).to_ambient, 2, jitter=0.0)
    torch.testing.assert_close(metric.dist(z, y), Sphere(2).dist(z, y), rtol=1e-3, atol=0)


def test_half_plane_and_ball() -> None:
    class HalfPlane(RiemannianMetric):
        dim = 2

        def metric(self, z: Tensor) -> Tensor:
            return torch.diag_embed(z[..., 1:].expand_as(z) ** -2)

    class Ball(RiemannianMetric):
        dim = 2

        def metric(self, z: Tensor) -> Tensor:
            return torch.diag_embed((2 / (1 - z.square().sum(-1, keepdim=True))).square().expand_as(z))

    normal = torch.randn(2, 60, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    z, y = torch.stack([3 * normal[..., 0], torch.exp(normal[..., 1])], -1)
    exact = torch.acosh(1 + (z - y).square().sum(-1) / (2 * z[:, 1] * y[:, 1]))
    torch.testing.assert_close(HalfPlane().dist(z, y), exact, rtol=1e-3, atol=0)
    z, y = 0.998 * torch.nn.functional.normalize(normal, dim=-1)
    torch.testing.assert_close(Ball().dist(z, y), Hyperbolic(2).dist(z, y), rtol=1e-3, atol=0)


def test_gradient_of_a_distance_that_was_solved_again() -> None:
    """The envelope theorem holds at any pace; the momentum has the length 1."""
    z, y = uniform(2, 60, seed=8)
    metric, sphere = charts.OnlyMetric(Sphere(2)), Sphere(2)
    far = torch.cat([piece.rows for piece in metric.solver.pieces(metric, z, y)[1:]])
    z, y = z[far].requires_grad_(), y[far]
    value = metric.dist(z, y)
    (slope,) = torch.autograd.grad(value.sum(), z)
    (exact,) = torch.autograd.grad(sphere.dist(z, y).sum(), z)
    assert len(far) >= 5
    weight = torch.linalg.inv(sphere.metric(z)).detach()
    error = torch.einsum("ni,nij,nj->n", slope - exact, weight, slope - exact).sqrt()
    assert error.quantile(0.9).item() < 0.02
    with torch.no_grad():
        assert torch.equal(metric.dist(z, y), value)


@pytest.mark.parametrize("width", [0.05, 0.02])
def test_a_wall_is_climbed_or_the_distance_is_reported(width: float) -> None:
    metric, length = graph_of(
        lambda x: 2 * torch.exp(-(((x - 0.61) / width) ** 2)),
        lambda x: -4 * (x - 0.61) / width**2 * math.exp(-(((x - 0.61) / width) ** 2)),
    )
    z = torch.tensor([[0.0, 0.0], [0.0, 0.3]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.2], [0.3, 0.0]], dtype=torch.float64)
    exact = torch.tensor([math.hypot(length, 0.2), 0.3 * math.sqrt(2)], dtype=torch.float64)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        error = (metric.dist(z, y) / exact - 1).abs()
    assert error[1].item() < 1e-3
    assert error[0].item() < 1e-3 or any("1 of 2 pairs" in str(warning.message) for warning in said)


def test_failures_are_counted_and_said() -> None:
    metric = charts.OnlyMetric(charts.warped_sphere(2))
    z, y = torch.tensor([[0.3, -0.8], [0.2, 0.2]], dtype=torch.float64), torch.full((2, 2), 0.2, dtype=torch.float64)
    rough = {"max_iterations": 1, "max_polish": 0}
    metric.solver = GeodesicSolver(**rough)  # type: ignore[arg-type]
    kernel = RiemannianHeatKernel(y[0], torch.tensor(0.5, dtype=torch.float64), metric)
    calls = {
        "dist": lambda: metric.dist(z, y),
        "squared_dist": lambda: metric.squared_dist(z, y),
        "logmap": lambda: metric.logmap(z, y),
        "geodesic": lambda: metric.geodesic(z, y, init="line"),
        "log_prob": lambda: kernel.log_prob(z),
    }
    for call in calls.values():
        with pytest.warns(UserWarning, match="1 of 2 pairs of points have no converged geodesic") as said:
            call()
        assert [warning.filename for warning in said] == [__file__]  # where the caller can see it
    curve = metric.geodesic(z, y, init="line", on_failure="ignore")
    assert curve.converged.tolist() == [False, True]
    metric.solver = GeodesicSolver(**rough, on_failure="raise")  # type: ignore[arg-type]
    for call in calls.values():
        with pytest.raises(RuntimeError, match="1 of 2 pairs"):
            call()
    metric.solver = GeodesicSolver(**rough, on_failure="ignore")  # type: ignore[arg-type]
    for call in calls.values():
        call()


def test_single_precision_passes_the_same_check() -> None:
    z, y = uniform(2, 100, seed=7)
    metric = charts.OnlyMetric(Sphere(2))
    value = metric.dist(z.float(), y.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), Sphere(2).dist(z, y), rtol=1e-3, atol=0)


def test_ways_out_of_a_table_are_reported_and_those_within_are_found() -> None:
    """Great circles through points beyond the equator bend outward: on a table of their box they are not known."""
    table = GridMetric(charts.OnlyMetric(Sphere(2)), -1.0, 1.0, 40, outside="error")
    z, y = torch.tensor([[-0.9, 0.3], [-0.9, 0.98]]).double(), torch.tensor([[0.7, -0.5], [0.9, 0.98]]).double()
    with pytest.warns(UserWarning, match="1 of 2 pairs of points have no converged geodesic"):
        distance = table.dist(z, y)
    exact = Sphere(2).dist(z, y)
    assert abs(distance[0] / exact[0] - 1) < 1e-3
    along_the_wall = 8**0.5 * math.atan(0.9 / 2**0.5)
    assert abs(distance[1] / along_the_wall - 1) < 0.02  # the shortest that the table knows
    with pytest.raises(ValueError, match=r"1 of 2 points `y` lie outside the box"):
        table.dist(z, y + torch.tensor([0.5, 0.0]).double() * (y[:, 1:] < 0))


@pytest.mark.parametrize("num_knots", [16, 64, 128])
def test_the_shortest_start_is_found_at_any_number_of_points(num_knots: int) -> None:
    z, y = uniform(2, 20, 4)
    metric = charts.OnlyMetric(Sphere(2))
    line = _refine.polygon(num_knots, _spline.line(num_knots, z, y))
    best = _refine.best_start(metric, z, y, line, torch.full((20,), torch.inf, dtype=torch.float64))
    assert best.shape == line.shape
    lengths = [_refine._steps(metric, path).sum(-1) for path in (best, line)]
    assert (lengths[0] < 1.001 * lengths[1]).all()
    assert (lengths[0] > 0.999 * Sphere(2).dist(z, y)).all()


def test_of_two_failures_the_shorter_is_kept() -> None:
    """The length of any curve bounds the distance, where it is known: also one that errs less, or has converged."""
    length, error = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0]), torch.tensor([0.001, 0.001, 0.001, 0.5, 0.001])
    new = _pieces.Piece(
        torch.arange(5),
        EuclideanMetric(1).energy(GeodesicSolver()),
        torch.zeros(5, 11, 1),
        torch.tensor([1.9, 2.1, 2.1, 2.1, 1.9]),
        torch.tensor([0.002, 0.0005, 0.0001, 0.002, 0.3]),
        torch.tensor([False, False, True, False, False]),
        *torch.zeros(2, 5, dtype=torch.bool),
    )
    assert _pieces._better(new, length, error).tolist() == [True, False, False, True, False]
