"""The tabulated metric: accuracy against the metric it tabulates, and its derivatives."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import EuclideanMetric, GridMetric, PullbackMetric, RiemannianMetric, Sphere, _autodiff
from pyro_riemann._formulas import grid_table
from pyro_riemann.metrics._spline_table import SplineTable
from tests.charts import OnlyMetric, warped_hyperbolic, warped_sphere

LOW, HIGH = -1.0, 1.0


class Surface(nn.Module):
    """A smooth immersion that can be pickled."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, z.sin(), z.square().sum(-1, keepdim=True).cos()], dim=-1)


def corners(dim: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.full((dim,), LOW, dtype=dtype), torch.full((dim,), HIGH, dtype=dtype)


def make(dim: int = 2, dtype: torch.dtype = torch.float64) -> GridMetric:
    return GridMetric(PullbackMetric(Surface(), dim), *corners(dim, dtype), {1: 60, 2: 50, 3: 16}[dim])


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return LOW + (HIGH - LOW) * torch.rand(*shape, dtype=dtype)


# ---------------------------------------------------------------- the spline


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_spline_reproduces_cubics(dim: int) -> None:
    # not-a-knot end conditions: every tensor-product cubic is its own interpolant, up to the faces
    coefficients = torch.randn(*(4,) * dim, 2, dtype=torch.float64)

    def cubic(z: Tensor) -> Tensor:
        powers = z.unsqueeze(-1) ** torch.arange(4)
        result = coefficients.expand(*z.shape[:-1], *coefficients.shape)
        for axis in range(dim):
            result = torch.einsum("ni...,ni->n...", result, powers[:, axis])
        return result

    sizes = (5, 6, 7)[:dim]
    low, high = torch.tensor([-1.0, 0.0, 2.0])[:dim].double(), torch.tensor([1.0, 0.5, 5.0])[:dim].double()
    spans = zip(low.tolist(), high.tolist(), sizes, strict=True)
    axes = [torch.linspace(*span, dtype=torch.float64) for span in spans]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    table = SplineTable(cubic(nodes.reshape(-1, dim)).reshape(*sizes, 2), low, high)
    z = low + (high - low) * torch.rand(40, dim, dtype=torch.float64)
    torch.testing.assert_close(table(z), cubic(z))
    value, slope = table.with_jacobian(z)
    torch.testing.assert_close(value, cubic(z))
    torch.testing.assert_close(slope, _autodiff.jacobian(cubic, z, dim)[1])
    torch.testing.assert_close(table(nodes), cubic(nodes.reshape(-1, dim)).reshape(*sizes, 2))


def test_spline_is_twice_continuously_differentiable() -> None:
    low, high = torch.tensor([[0.0], [8.0]], dtype=torch.float64)
    table = SplineTable(torch.randn(9, 1, dtype=torch.float64), low, high)
    knot = torch.arange(1.0, 8.0, dtype=torch.float64).unsqueeze(-1)

    def derivatives(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _autodiff.second_directional(table, z, torch.ones_like(z))

    for left, right in zip(derivatives(knot - 1e-9), derivatives(knot + 1e-9), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-7)


# ---------------------------------------------------------------- the metric


@pytest.mark.parametrize("base", [warped_sphere(2), warped_hyperbolic(2), Sphere(1), warped_sphere(3)], ids=repr)
def test_error_is_small_known_and_of_fourth_order(base: RiemannianMetric) -> None:
    coarse, fine = (GridMetric(base, *corners(base.dim), count) for count in ((15, 30) if base.dim == 3 else (25, 50)))
    ratio = (coarse.mean_interpolation_error / fine.mean_interpolation_error).item()
    assert 10 < ratio < 40  # 2^4 = 16, and fewer cells near the faces
    z = points(200, base.dim)
    exact, estimate = base.metric(z), fine.metric(z)
    root = torch.linalg.inv(torch.linalg.cholesky(exact))
    error = torch.linalg.matrix_norm(root @ (estimate - exact) @ root.mT, 2)
    assert error.max().item() < 3 * fine.interpolation_error.item()
    assert error.mean().item() == pytest.approx(fine.mean_interpolation_error.item(), rel=0.5)
    assert f"interpolation_error={fine.interpolation_error.item():.1e}" in repr(fine)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_geometry_of_the_tabulated_metric(dim: int) -> None:
    grid = make(dim)
    base, z = grid.base, 0.9 * points(2, 5, dim)
    assert base is not None
    v = torch.randn_like(z)
    torch.testing.assert_close(grid.metric(z), base.metric(z), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(grid.logdet(z), base.logdet(z), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(grid.christoffel(z, v), base.christoffel(z, v), rtol=0.02, atol=0.02)
    torch.testing.assert_close(grid.drift(z), base.drift(z), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_closed_derivatives_match_forward_mode(dim: int) -> None:
    agrees_with_forward_mode(make(dim), points(2, 3, dim))


def agrees_with_forward_mode(grid: GridMetric, z: Tensor) -> None:
    v, generic = torch.randn_like(z), OnlyMetric(grid)
    for name, arguments in (
        ("metric_jacobian", (z,)),
        ("metric_derivatives", (z, v)),
        ("christoffel", (z, v)),
        ("speed_hessian", (z, v)),
        ("drift", (z,)),
        ("logdet", (z,)),
        ("logdet_gradient", (z,)),
    ):
        torch.testing.assert_close(getattr(grid, name)(*arguments), getattr(generic, name)(*arguments))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_table_alone_is_constant_across_its_faces(dim: int) -> None:
    grid = make(dim)
    alone = grid.alone()
    z = 2 * points(40, dim)
    assert not bool(grid.table.contains(z).all())
    torch.testing.assert_close(alone.metric(z), grid.metric(z.clamp(LOW, HIGH)))
    agrees_with_forward_mode(alone, z)
    assert alone.metric(torch.full((dim,), 3.0).double()).shape == (dim, dim)
    assert (alone.base, alone.outside, alone.covers(z)) == (None, "nearest", None)
    assert grid.base is not None
    assert grid.outside == "metric"
    made = GridMetric(grid.base, *corners(dim), grid.table.resolution, outside="nearest")
    torch.testing.assert_close(made.logdet(z), alone.logdet(z))
    assert pickle.loads(pickle.dumps(alone)).outside == "nearest"


def test_a_table_alone_asks_no_decoder() -> None:
    calls = []

    def decoder(z: Tensor) -> Tensor:
        calls.append(len(z))
        return torch.cat([z, z.square().sum(-1, keepdim=True)], -1)

    grid = PullbackMetric(decoder, 2).tabulate(LOW, HIGH, 20)
    alone, z = grid.alone(), torch.tensor([0.2, -0.1], requires_grad=True)
    calls.clear()
    dist = alone.dist(z, torch.tensor([30.0, -20.0]))
    dist.backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    assert calls == []
    line = torch.lerp(z.detach(), torch.tensor([30.0, -20.0]), torch.linspace(0, 1, 4001).unsqueeze(-1))
    straight = alone.norm((line[1:] + line[:-1]) / 2, line.diff(dim=0)).sum()
    assert math.hypot(29.8, 19.9) < float(dist.detach()) < float(straight)  # G is at least the identity
    grid.dist(z.detach(), torch.tensor([1.5, 0.0]))
    assert calls


def test_a_table_alone_keeps_where_its_metric_is_on_its_floor() -> None:
    grid = GridMetric(PullbackMetric(torch.tanh, 2), -5.0, 5.0, 81)  # sech^4 falls below nine jitters at |z| = 3.6
    z = torch.tensor([[0.2, 3.0], [4.0, -4.0], [9.0, 9.0]])
    for alone in (grid.alone(), grid.alone().alone()):
        assert alone.on_floor(z).tolist() == [False, True, True]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradients_of_every_mode(dim: int) -> None:
    grid = make(dim)
    z = points(2, dim).requires_grad_()
    v = torch.randn(2, dim, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: grid.metric(p), (z,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda p: grid.metric_jacobian(p)[1], (z,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda p: grid.logdet(p), (z,), fast_mode=True)
    _, along, second = _autodiff.second_directional(grid.metric, z.detach(), v)
    value, slope = grid.metric_jacobian(z.detach())
    torch.testing.assert_close(along, torch.einsum("nijk,nk->nij", slope, v))
    step = 1e-4
    difference = (grid.metric(z.detach() + step * v) - 2 * value + grid.metric(z.detach() - step * v)) / step**2
    torch.testing.assert_close(second, difference, rtol=1e-2, atol=1e-2)  # the third derivative jumps at knots


@pytest.mark.parametrize("name", ["metric", "logdet", "drift", "metric_jacobian", "logdet_gradient"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_traces(dim: int, name: str) -> None:
    grid = make(dim)
    z = points(4, dim)
    traced = torch.jit.trace(lambda p: getattr(grid, name)(p), (z,))
    other = points(4, dim)
    torch.testing.assert_close(traced(other), getattr(grid, name)(other))


def test_traced_points_outside_take_the_nearest_face() -> None:
    grid = make(2)
    traced = torch.jit.trace(lambda p: grid.metric(p), (points(3, 2),))
    outside = torch.tensor([[2.0, 0.3], [-5.0, 9.0], [0.1, -1.01]], dtype=torch.float64)
    torch.testing.assert_close(traced(outside), grid.metric(outside.clamp(LOW, HIGH)))


def test_vmap_agrees_with_batches() -> None:
    grid, z = make(2), points(6, 2)
    torch.testing.assert_close(torch.vmap(grid.metric)(z), grid.metric(z))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    grid, z = make(2, dtype), points(*batch, 2, dtype=dtype)
    metric, slope = grid.metric_jacobian(z)
    assert metric.shape == (*batch, 2, 2)
    assert slope.shape == (*batch, 2, 2, 2)
    assert metric.dtype == grid.logdet(z).dtype == dtype
    torch.testing.assert_close(metric, grid.base.metric(z), rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]
    outside = z + 3
    torch.testing.assert_close(grid.metric(outside), grid.base.metric(outside))  # type: ignore[union-attr]
    torch.testing.assert_close(grid.metric_jacobian(outside)[1], grid.base.metric_jacobian(outside)[1])  # type: ignore[union-attr]
    # of some points within and some beyond, from the derivatives of G
    both = torch.stack([z, outside])
    v = torch.ones_like(both)
    torch.testing.assert_close(
        grid.christoffel(both, v), RiemannianMetric.christoffel(grid, both, v), rtol=1e-3, atol=1e-3
    )


def test_each_axis_has_its_own_box_and_resolution() -> None:
    base = PullbackMetric(Surface(), 2)
    grid = GridMetric(base, [-1.0, 0.0], [0.5, 2.0], (40, 60))
    assert grid.table.resolution == (40, 60)
    z = torch.tensor([-1.0, 0.0]) + torch.rand(50, 2) * torch.tensor([1.5, 2.0])
    torch.testing.assert_close(grid.metric(z), base.metric(z), rtol=2e-3, atol=2e-3)


def test_only_points_outside_ask_the_true_metric() -> None:
    calls: list[int] = []

    class Counting(EuclideanMetric):
        def metric(self, z: Tensor) -> Tensor:
            calls.append(z.shape[:-1].numel())
            return super().metric(z)

    grid = GridMetric(Counting(2), -1.0, 1.0, 10)
    assert sum(calls) == 100 + 512  # the nodes, and the random points of the error estimate
    calls.clear()
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(grid.metric(z), torch.eye(2).expand(3, 2, 2))
    assert calls == [1]


def test_build_takes_no_gradient_and_no_global_randomness() -> None:
    base = PullbackMetric(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)), 2)
    state = torch.get_rng_state()
    first, second = (GridMetric(base, -1.0, 1.0, 12) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.interpolation_error, second.interpolation_error)
    assert not any(buffer.requires_grad for buffer in first.buffers())


def test_pickle_state_and_dtype() -> None:
    grid = make(2)
    z = points(5, 2)
    for twin in (pickle.loads(pickle.dumps(grid)), copy.deepcopy(grid)):
        assert torch.equal(twin.metric_jacobian(z)[1], grid.metric_jacobian(z)[1])
    other = GridMetric(OnlyMetric(PullbackMetric(Surface(), 2, jitter=0.5)), -3.0, 2.0, 50).double()
    other.load_state_dict(grid.state_dict())
    torch.testing.assert_close(other.metric(z), grid.metric(z))
    assert torch.equal(other.interpolation_error, grid.interpolation_error)
    single = copy.deepcopy(grid).float()
    torch.testing.assert_close(single.metric(z.float()), grid.metric(z).float(), rtol=1e-4, atol=1e-5)


def test_without_the_true_metric_the_table_stands_alone() -> None:
    grid = GridMetric(PullbackMetric(lambda z: Surface()(z), 2), -1.0, 1.0, 12, outside="error")
    assert set(grid.state_dict()) == {
        "_floor",
        "interpolation_error",
        "mean_interpolation_error",
        "table.coefficients",
        "table.low",
        "table.high",
    }
    pickle.dumps(grid)  # the lambda stayed outside
    with pytest.raises(ValueError, match=r"1 of 3 points lie outside the box .* z = \[2\.0"):
        grid.metric(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, -1.0]]))


def test_distances_agree_with_those_of_the_tabulated_manifold() -> None:
    base = warped_sphere(2)
    grid = GridMetric(base, *corners(2), 60)
    z, y = 0.8 * points(2, 12, 2)
    torch.testing.assert_close(grid.dist(z, y), base.dist(z, y), rtol=1e-5, atol=1e-6)


class Broken(RiemannianMetric):
    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(z + 0.5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((EuclideanMetric(4), -1.0, 1.0, 5), "dimension 4"),
        ((EuclideanMetric(2), 1.0, 1.0, 5), "`low` must lie below `high`"),
        ((EuclideanMetric(2), -1.0, float("inf"), 5), "low and high"),
        ((EuclideanMetric(2), -1.0, 1.0, 3), "`resolution` must be 2 whole numbers"),
        ((EuclideanMetric(2), -1.0, 1.0, (5, 5, 5)), "`resolution`"),
        ((EuclideanMetric(2), -1.0, 1.0, 5, "clamp"), "`outside` must be one of"),
        ((Broken(), -1.0, 1.0, 5), r"not finite and positive definite at 16 of 25 nodes.*z = \[-1\.0"),
    ],
)
def test_bad_arguments(arguments: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GridMetric(*arguments)


def test_wrong_points() -> None:
    with pytest.raises(ValueError, match=r"`z` must have shape"):
        make(2).metric(torch.zeros(3))


class Ridge(nn.Module):
    """A wall of width 0.05 at z_0 = 0.8, far from the points at z_0 < 0."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, 5 * torch.exp(-0.5 * ((z[..., :1] - 0.8) / 0.05).square())], -1)


def test_error_is_that_where_the_table_is_used() -> None:
    base = PullbackMetric(Ridge(), 2)
    z = points(400, 2) * torch.tensor([0.25, 1.0]) - torch.tensor([0.6, 0.0])
    z = z[(z.abs() < 1).all(-1) & (z[:, 0] < 0)]
    grid = GridMetric(base, -1.0, 1.0, 20, points=z)
    errors = grid.interpolation_error_at(z)
    root = torch.linalg.inv(torch.linalg.cholesky(base.metric(z)))
    exact = torch.linalg.matrix_norm(root @ (grid.metric(z) - base.metric(z)) @ root.mT, 2)
    torch.testing.assert_close(errors, exact.to(errors), rtol=1e-3, atol=1e-5)
    assert float((errors <= grid.interpolation_error).double().mean()) == pytest.approx(0.9, abs=0.01)
    wall = torch.tensor([[0.76, 0.0], [0.83, 0.5], [5.0, 0.0]])
    inside, also, outside = grid.interpolation_error_at(wall).tolist()
    assert min(inside, also) > 10 * grid.interpolation_error
    assert outside == 0


def test_a_table_that_is_wrong_says_so() -> None:
    base, wall = PullbackMetric(Ridge(), 2), torch.tensor([0.8, 0.0]) + 0.04 * points(100, 2).float()
    with pytest.warns(UserWarning, match=r"90 % of the given points \(bound: `max_error` = 0.1\)"):
        GridMetric(base, -1.0, 1.0, 20, points=wall)
    GridMetric(base, -1.0, 1.0, 20, points=wall, max_error=None)  # not asked
    with pytest.raises(ValueError, match="none of the 3 `points`"):
        GridMetric(base, -1.0, 1.0, 20, points=torch.full((3, 2), 7.0))
    with pytest.raises(ValueError, match="`points` must have shape"):
        GridMetric(base, -1.0, 1.0, 20, points=torch.zeros(3))
    with pytest.raises(ValueError, match="the true metric is not kept"):
        GridMetric(base, -1.0, 1.0, 20, outside="error").interpolation_error_at(torch.zeros(2))


@pytest.mark.parametrize("dim", (1, 2, 3))
def test_neighbours_on_a_curve_that_fills_space_are_near_each_other(dim: int) -> None:
    """Chunks of points are as compact as cubes of as many points would be, but for a factor."""
    points = np.random.default_rng(0).random((8**4, dim))
    order = grid_table.z_order(points)
    assert (np.sort(order) == np.arange(len(points))).all()
    widths = [np.ptp(chunk, 0).mean() for chunk in np.split(points[order], 64)]
    assert np.mean(widths) < 1.7 * (1 / 64) ** (1 / dim)
    assert (grid_table.z_order(np.zeros((3, dim))) == np.arange(3)).all()
