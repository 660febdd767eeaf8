"""The wrapped normal: its density, its draws, and the memory of its own draws."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    Hyperbolic,
    PullbackMetric,
    RiemannianWrappedNormal,
    Sphere,
)
from tests.charts import sphere_pullback, warped_hyperbolic, warped_sphere
from tests.distributions._shared import (
    CENTRES,
    F64,
    SPHERES,
    derivative,
    from_sphere,
    hyperbolic_rule,
    paraboloid,
    sphere_rule,
    total_mass,
    twisted_sphere,
)

TIME = torch.tensor(0.1, dtype=F64)


def test_constant_metric_gives_the_multivariate_normal() -> None:
    torch.manual_seed(0)
    root = torch.randn(3, 3, dtype=F64)
    metric = ConstantMetric(root @ root.mT + torch.eye(3, dtype=F64))
    loc, time, z = torch.randn(4, 3, dtype=F64), torch.rand(5, 1, dtype=F64) + 0.1, torch.randn(7, 5, 4, 3, dtype=F64)
    wrapped = RiemannianWrappedNormal(loc, time, metric)
    covariance = time[..., None, None] * torch.linalg.inv(metric.matrix)
    normal = MultivariateNormal(loc.expand(5, 4, 3), covariance)
    assert (wrapped.log_prob(z) - normal.log_prob(z)).abs().max() < 1e-10
    draws = wrapped.sample((20000,))
    error = (draws - loc).unsqueeze(-1) * (draws - loc).unsqueeze(-2) - covariance
    assert (error.mean(0).abs() < 5 * error.std(0) / 20000**0.5).all()


# ---------------------------------------------------------------- density


@pytest.mark.parametrize("chart", SPHERES)
@pytest.mark.parametrize("centre", CENTRES)
def test_mass_one_on_the_sphere(chart: str, centre: list[float]) -> None:
    metric = SPHERES[chart]
    loc = from_sphere(metric, torch.tensor(centre, dtype=F64))
    wrapped = RiemannianWrappedNormal(loc, TIME, metric)
    assert abs(total_mass(wrapped.log_prob, metric, *sphere_rule(metric)) - 1) < 1e-7


def test_mass_one_on_the_hyperbolic_plane() -> None:
    metric, z, weights = hyperbolic_rule()
    wrapped = RiemannianWrappedNormal(torch.tensor([0.3, -0.2], dtype=F64), 0.3, metric)
    assert abs(total_mass(wrapped.log_prob, metric, z, weights) - 1) < 1e-7


def test_density_in_dM_does_not_depend_on_the_chart() -> None:
    torch.manual_seed(0)
    x = 0.5 * torch.randn(6, 2, dtype=F64)
    y = x + 0.15 * torch.randn(6, 2, dtype=F64)
    back = warped_sphere(2).from_base
    values = []
    for metric, loc, z in (
        (Sphere(2), x, y),
        (warped_sphere(2), back(x), back(y)),
        (sphere_pullback(2), back(x), back(y)),
    ):
        values.append(RiemannianWrappedNormal(loc, TIME, metric).log_prob(z) - 0.5 * metric.logdet(z))
    assert (values[0] - values[1]).abs().max() < 1e-11
    assert (values[0] - values[2]).abs().max() < 1e-5


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(
    "metric", [warped_sphere(2), warped_hyperbolic(2), warped_hyperbolic(3)], ids=["S2", "H2", "H3"]
)
def test_squared_radius_is_chi_square_and_directions_are_uniform(metric: Sphere) -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.6, -0.3, 0.2], dtype=F64)[: metric.dim]
    z = RiemannianWrappedNormal(loc, TIME, metric).sample((3000,))
    v = metric.logmap(loc.expand_as(z), z)
    assert stats.kstest((metric.inner(loc, v, v) / TIME).numpy(), stats.chi2(metric.dim).cdf).pvalue > 1e-3
    white = (metric.cholesky(loc).mT @ v.unsqueeze(-1)).squeeze(-1) / TIME.sqrt()
    for axis in white.unbind(-1):
        assert stats.kstest(axis.numpy(), stats.norm.cdf).pvalue > 1e-3


def test_draws_are_pathwise_in_loc_time_and_metric() -> None:
    metric, strength = twisted_sphere(0.4)

    def draw(loc: Tensor, time: Tensor, law: object = metric) -> Tensor:
        torch.manual_seed(3)
        z, log_prob = RiemannianWrappedNormal(loc, time, law).rsample_with_log_prob((5,))  # type: ignore[arg-type]
        return z.square().sum() + log_prob.square().sum()

    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    time = TIME.clone().requires_grad_()
    gradients = torch.autograd.grad(draw(loc, time), (loc, time, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: draw(x, time), loc), atol=1e-8, rtol=1e-8)
    assert torch.allclose(gradients[1], derivative(lambda x: draw(loc, x), time), atol=1e-8, rtol=1e-8)
    moved = derivative(lambda x: draw(loc, time, twisted_sphere(x)[0]), strength)
    assert torch.allclose(gradients[2], moved, atol=1e-8, rtol=1e-8)


def test_gradients_of_the_density() -> None:
    metric, strength = twisted_sphere(0.4)
    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    z = torch.tensor([0.5, 0.4], dtype=F64, requires_grad=True)
    time = TIME.clone().requires_grad_()

    def log_prob(centre: Tensor, value: Tensor, t: Tensor, law: object = metric) -> Tensor:
        return RiemannianWrappedNormal(centre, t, law).log_prob(value)  # type: ignore[arg-type]

    gradients = torch.autograd.grad(log_prob(loc, z, time), (loc, z, time, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: log_prob(x, z, time), loc), atol=1e-8)
    assert torch.allclose(gradients[1], derivative(lambda x: log_prob(loc, x, time), z), atol=1e-8)
    assert torch.allclose(gradients[2], derivative(lambda x: log_prob(loc, z, x), time), atol=1e-8)
    moved = derivative(lambda x: log_prob(loc, z, time, twisted_sphere(x)[0]), strength)
    assert torch.allclose(gradients[3], moved, atol=1e-8)


# ---------------------------------------------------------------- memory of its own draws


def counted(metric: PullbackMetric) -> list[int]:
    """Count the calls that ``metric`` makes to its boundary-value solver."""
    calls: list[int] = []
    original = metric.log_van_vleck

    def log_van_vleck(z: Tensor, y: Tensor) -> Tensor:
        calls.append(z.shape[0] if z.dim() > 1 else 1)
        return original(z, y)

    metric.log_van_vleck = log_van_vleck  # type: ignore[method-assign]
    return calls


def law(requires_grad: bool = False) -> tuple[RiemannianWrappedNormal, list[int], Tensor, Tensor]:
    metric = paraboloid()
    metric.requires_grad_(requires_grad)
    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=requires_grad)
    time = torch.tensor(0.05, dtype=F64, requires_grad=requires_grad)
    return RiemannianWrappedNormal(loc, time, metric), counted(metric), loc, time


def test_own_draws_need_no_boundary_value_problem() -> None:
    torch.manual_seed(0)
    wrapped, calls, loc, time = law(requires_grad=True)
    z = wrapped.rsample((3,))
    remembered = wrapped.log_prob(z)
    assert calls == []
    solved = wrapped.log_prob(z.clone())
    assert calls
    assert torch.allclose(remembered, solved, atol=1e-5)
    # the total derivative along the path of the draw is the same either way
    bend = next(wrapped.metric.parameters())
    first = torch.autograd.grad(remembered.sum(), (loc, time, bend), retain_graph=True)
    second = torch.autograd.grad(solved.sum(), (loc, time, bend))
    for one, other in zip(first, second, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-3)


def test_draws_without_gradients_are_remembered_too() -> None:
    wrapped, calls, _, _ = law()
    z = wrapped.sample((3,))
    remembered = wrapped.log_prob(z)
    assert calls == []
    assert torch.allclose(remembered, wrapped.log_prob(z.clone()), atol=1e-5)


def test_memory_is_never_stale() -> None:
    wrapped, calls, loc, _ = law()
    z = wrapped.sample((2,))
    assert wrapped.expand((2,)).log_prob(z).shape == (2,)
    assert len(calls) == 1  # another instance knows nothing of the draw
    z.add_(0.01)
    changed = wrapped.log_prob(z)
    assert len(calls) == 2
    assert torch.allclose(changed, wrapped.log_prob(z.clone()), atol=1e-12)
    z = wrapped.sample((2,))
    loc.add_(0.1)
    wrapped.log_prob(z)
    assert len(calls) == 4
    z = wrapped.sample((2,))
    with torch.no_grad():
        next(wrapped.metric.parameters()).mul_(1.1)
    wrapped.log_prob(z)
    assert len(calls) == 5


def test_a_change_that_no_version_counter_sees_is_seen() -> None:
    wrapped, calls, loc, _ = law()
    bend = next(wrapped.metric.parameters())
    for name, factor in (("bend", 1.1), ("loc", 1.2), ("z", 1.1)):
        z = wrapped.sample((2,))
        before = len(calls)
        wrapped.log_prob(z)
        assert len(calls) == before
        {"bend": bend, "loc": loc, "z": z}[name].data.mul_(factor)
        changed = wrapped.log_prob(z)
        assert len(calls) == before + 1
        assert torch.allclose(changed, wrapped.log_prob(z.clone()), atol=1e-12)
    strength = torch.tensor(0.8, dtype=F64)  # seen by a closure alone
    metric = PullbackMetric(lambda z: torch.cat([z, (strength * z).sin().sum(-1, keepdim=True)], -1), 2, jitter=0.0)
    wrapped = RiemannianWrappedNormal(loc, 0.05, metric)
    z = wrapped.sample((2,))
    strength.mul_(1.5)
    assert torch.allclose(wrapped.log_prob(z), wrapped.log_prob(z.clone()), atol=1e-12)


def test_a_draw_that_was_moved_has_the_density_of_where_it_is() -> None:
    """The law of a flat surface is the multivariate normal, also for a draw or a centre that has moved in place."""
    slopes, loc = torch.tensor([[1.0, 0.2, 0.5], [0.3, 1.1, -0.4]], dtype=F64), torch.tensor([0.3, -0.2], dtype=F64)
    wrapped = RiemannianWrappedNormal(loc, 0.1, PullbackMetric(lambda z: z @ slopes, 2, jitter=0.0))
    for moves in ("draw", "centre"):
        z = wrapped.sample((3,))
        {"draw": z, "centre": loc}[moves].add_(torch.tensor([0.5, -0.3], dtype=F64))
        normal = MultivariateNormal(loc, precision_matrix=slopes @ slopes.mT / 0.1)
        torch.testing.assert_close(wrapped.log_prob(z), normal.log_prob(z), rtol=0, atol=1e-6)


def test_a_detached_draw_is_a_fixed_point_for_gradients() -> None:
    """Of the centre and the time of a multivariate normal, which its draw would follow."""
    slopes = torch.tensor([[1.0, 0.2, 0.5], [0.3, 1.1, -0.4]], dtype=F64)
    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    time = torch.tensor(0.1, dtype=F64, requires_grad=True)
    wrapped = RiemannianWrappedNormal(loc, time, PullbackMetric(lambda z: z @ slopes, 2, jitter=0.0))
    normal = MultivariateNormal(loc, precision_matrix=slopes @ slopes.mT / time)
    z = wrapped.sample((3,))
    values = wrapped.log_prob(z), normal.log_prob(z)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-6)
    ours, exact = (torch.autograd.grad(value.sum(), (loc, time)) for value in values)
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_gradients_at_a_fixed_point_do_not_use_the_memory() -> None:
    wrapped, calls, loc, _ = law(requires_grad=True)
    z = wrapped.sample((2,))  # detached: the score function is wanted
    gradient = torch.autograd.grad(wrapped.log_prob(z).sum(), loc)[0]
    assert len(calls) == 1
    assert torch.equal(gradient, torch.autograd.grad(wrapped.log_prob(z.clone()).sum(), loc)[0])
    assert gradient.abs().max() > 0
    wrapped, calls, _, _ = law()
    z = wrapped.sample((2,)).requires_grad_()  # a leaf, as in HMC
    assert torch.autograd.grad(wrapped.log_prob(z).sum(), z)[0].abs().max() > 0
    assert len(calls) == 1


def test_one_value_in_all_modes() -> None:
    torch.manual_seed(0)
    wrapped, _, _, _ = law(requires_grad=True)
    for z in (wrapped.sample((2,)), wrapped.rsample((2,))):
        value = wrapped.log_prob(z)
        with torch.no_grad():
            assert torch.equal(wrapped.log_prob(z), value)
        wrapped.metric.eval()
        assert torch.equal(wrapped.log_prob(z), value)
        assert torch.allclose(wrapped.log_prob(z.clone()), value, atol=1e-5)


def test_draw_and_clone_have_one_density_and_one_gradient_where_geodesics_are_closed_forms() -> None:
    """The total derivative along the path of the draw, of both; of ``z.detach()`` the partial one."""
    metric, strength = twisted_sphere(0.4)
    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    torch.manual_seed(0)
    wrapped = RiemannianWrappedNormal(loc, 2.0, metric)
    z = wrapped.rsample((20,))
    values = [wrapped.log_prob(x) for x in (z, z.clone(), z.detach())]
    gradients = [torch.autograd.grad(x.sum(), (loc, strength), retain_graph=True) for x in values]
    assert all(torch.equal(values[0], x) for x in values)
    assert all(torch.equal(one, two) for one, two in zip(gradients[0], gradients[1], strict=True))
    along = torch.autograd.grad(wrapped.log_prob(fixed := z.detach().requires_grad_()).sum(), fixed)[0]
    path = torch.autograd.grad(z, (loc, strength), along)
    for total, partial, moved in zip(gradients[0], gradients[2], path, strict=True):
        assert torch.allclose(total, partial + moved, atol=1e-9)


def test_memory_dies_with_the_draw() -> None:
    wrapped, _, _, _ = law(requires_grad=True)
    z = wrapped.rsample((3,))
    record = weakref.ref(next(iter(wrapped.__dict__["_draws"].values())))
    del z
    gc.collect()
    assert record() is None
    assert len(wrapped.__dict__["_draws"]) == 0


# ---------------------------------------------------------------- as a distribution


@pytest.mark.parametrize(
    "metric", [warped_sphere(2), Hyperbolic(2), FlatTorus(2)], ids=["sphere", "hyperbolic", "torus"]
)
def test_shapes_expand_copy_pickle_trace_and_single_precision(metric: Sphere) -> None:
    torch.manual_seed(0)
    loc, time = torch.rand(3, 2, dtype=F64) / 2, torch.tensor([[0.1], [0.2]], dtype=F64)
    wrapped = RiemannianWrappedNormal(loc, time, metric)
    assert (wrapped.batch_shape, wrapped.event_shape) == ((2, 3), (2,))
    assert RiemannianWrappedNormal.infer_shapes(loc=(3, 2), time=(2, 1)) == ((2, 3), (2,))
    wide = wrapped.expand((4, 2, 3))
    z = wide.sample()
    assert z.shape == (4, 2, 3, 2)
    assert torch.allclose(wide.log_prob(z), wrapped.log_prob(z), atol=1e-12)
    assert torch.equal(copy.deepcopy(pickle.loads(pickle.dumps(wrapped))).log_prob(z), wrapped.log_prob(z))

    def function(x: Tensor, centre: Tensor, t: Tensor) -> Tensor:
        return RiemannianWrappedNormal(centre, t, metric).log_prob(x)

    traced = torch.jit.trace(function, (z, loc, time), check_trace=False)
    other = wrapped.sample((4,))
    assert torch.allclose(traced(other, loc, time), wrapped.log_prob(other), atol=1e-12)
    small = RiemannianWrappedNormal(loc.float(), time.float(), metric)
    assert small.rsample().dtype == torch.float32
    assert torch.allclose(small.log_prob(z.float()).double(), wrapped.log_prob(z), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
def test_bad_times_are_named(time: float) -> None:
    with pytest.raises(ValueError, match="time"):
        RiemannianWrappedNormal(torch.zeros(2), time, EuclideanMetric(2), validate_args=True)


def test_a_point_outside_the_chart_is_refused() -> None:
    wrapped = RiemannianWrappedNormal(torch.zeros(2), 0.1, Hyperbolic(2), validate_args=True)
    with pytest.raises(ValueError, match=r"ball|support"):
        wrapped.log_prob(torch.tensor([2.0, 0.0]))
