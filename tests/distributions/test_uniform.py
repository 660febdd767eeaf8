"""Laws of the Riemannian uniform: cells, volumes, isolated bumps, charts."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pyro_riemann import (
    EuclideanMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianMetric,
    RiemannianUniform,
    WarpedMetric,
)
from tests.charts import half_space_log_height, sphere_pullback, warped_sphere

DTYPE = torch.float64


class Exponential(RiemannianMetric):
    """G = diag(exp(2 a_i z_i)): the uniform law is a product of truncated exponentials."""

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.dim = rates.shape[0]
        self.rates = nn.Parameter(rates)
        self.evaluations = 0

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed((2 * self.rates * z).exp())

    def logdet(self, z: Tensor) -> Tensor:
        self.evaluations += 1
        return 2 * z @ self.rates

    def exact_log_volume(self, low: float, high: float) -> float:
        a = self.rates.detach()
        return float((((a * high).exp() - (a * low).exp()) / a).log().sum())


def isolated_bumps(dim: int, count: int = 20, regularization: float = 1e-3) -> KernelMetric:
    """Centroids so far apart, in units of the bandwidth, that the kernels do not overlap."""
    generator = torch.Generator().manual_seed(dim)
    centroids = torch.rand(10 * count, dim, generator=generator, dtype=DTYPE) * 10
    kept = [centroids[0]]
    for candidate in centroids[1:]:
        if len(kept) < count and min(float((candidate - c).norm()) for c in kept) > 0.9:
            kept.append(candidate)
    scale = 0.05 + 0.05 * torch.rand(len(kept), dim, generator=generator, dtype=DTYPE)
    return KernelMetric(torch.stack(kept), scale**-2, 1.5, regularization)


def overlapping_bumps(dim: int, full: bool = False) -> KernelMetric:
    generator = torch.Generator().manual_seed(1)
    centroids = torch.randn(12, dim, generator=generator, dtype=DTYPE)
    scale = 0.3 + 0.4 * torch.rand(12, dim, generator=generator, dtype=DTYPE)
    precisions = torch.diag_embed(scale**-2) if full else scale**-2
    if full:
        factor = torch.linalg.cholesky(precisions)
        tilt = torch.eye(dim, dtype=DTYPE) + 0.3 * torch.ones(dim, dim, dtype=DTYPE).tril(-1)
        precisions = (tilt @ factor) @ (tilt @ factor).mT
    return KernelMetric(centroids, precisions, 1.5, 1e-2)


def cell_masses(metric: RiemannianMetric, low: Tensor, high: Tensor, cells: int, fine: int = 60) -> Tensor:
    """Probabilities of ``cells x cells`` by the midpoint rule, a route of its own."""
    steps = cells * fine
    axes = [low[i] + (high[i] - low[i]) * (torch.arange(steps, dtype=DTYPE) + 0.5) / steps for i in range(2)]
    points = torch.cartesian_prod(*axes)
    density = torch.cat([(0.5 * metric.logdet(p)).exp().detach() for p in points.split(50_000)])
    mass = density.reshape(cells, fine, cells, fine).sum((1, 3))
    return mass / mass.sum()


TWO_D = {
    "sphere, warped": lambda: warped_sphere(2),
    "sphere, pullback": lambda: sphere_pullback(2),
    "half-plane": lambda: half_space_log_height(2),
    "kernels overlap": lambda: overlapping_bumps(2),
    "kernels overlap, full precisions": lambda: overlapping_bumps(2, full=True),
}


# -------------------------------------------------------------------- the gate


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_constant_metric_is_the_uniform_law_of_the_box(dim):
    low, high = torch.full((dim,), -1.0, dtype=DTYPE), torch.linspace(1, 2, dim, dtype=DTYPE)
    law = RiemannianUniform(EuclideanMetric(dim), low, high)
    flat = torch.distributions.Uniform(low, high)
    z = flat.sample((7,))
    assert torch.allclose(law.log_prob(z), flat.log_prob(z).sum(-1), atol=1e-10)
    draws = law.sample((4000,))
    for i in range(dim):
        assert stats.kstest(draws[:, i].numpy(), "uniform", args=(float(low[i]), float(high[i] - low[i]))).pvalue > 1e-3


# -------------------------------------------------------------------- two dimensions, any metric


@pytest.mark.parametrize("name", TWO_D)
def test_draws_fall_in_cells_as_quadrature_says(name):
    metric = TWO_D[name]()
    low, high = torch.tensor([-1.5, -1.0], dtype=DTYPE), torch.tensor([1.0, 2.0], dtype=DTYPE)
    draws = RiemannianUniform(metric, low, high).sample((20_000,))
    mass = cell_masses(metric, low, high, cells=8)
    index = ((draws - low) / (high - low) * 8).long().clamp(max=7)
    counts = torch.bincount(index[:, 0] * 8 + index[:, 1], minlength=64).double()
    expected = 20_000 * mass.flatten()
    merged = expected > 5  # cells below five expected counts join into one
    observed = torch.cat([counts[merged], counts[~merged].sum()[None]])
    wanted = torch.cat([expected[merged], expected[~merged].sum()[None]])
    keep = wanted > 0
    assert stats.chisquare(observed[keep].numpy(), wanted[keep].numpy() * 20_000 / wanted.sum().item()).pvalue > 1e-3


@pytest.mark.parametrize("name", TWO_D)
def test_first_coordinate_follows_its_own_law(name):
    metric = TWO_D[name]()
    low, high = torch.tensor([-1.5, -1.0], dtype=DTYPE), torch.tensor([1.0, 2.0], dtype=DTYPE)
    draws = RiemannianUniform(metric, low, high).sample((20_000,))
    cumulative = torch.cat([torch.zeros(1, dtype=DTYPE), cell_masses(metric, low, high, 100, 5).sum(1).cumsum(0)])
    edges = torch.linspace(-1.5, 1.0, 101, dtype=DTYPE)
    assert stats.kstest(draws[:, 0].numpy(), lambda x: np.interp(x, edges, cumulative)).pvalue > 1e-3


@pytest.mark.parametrize("name", TWO_D)
def test_density_has_mass_one_and_the_moments_of_its_draws(name):
    metric = TWO_D[name]()
    low, high = torch.tensor([-1.5, -1.0], dtype=DTYPE), torch.tensor([1.0, 2.0], dtype=DTYPE)
    law = RiemannianUniform(metric, low, high)
    axes = [low[i] + (high[i] - low[i]) * (torch.arange(400, dtype=DTYPE) + 0.5) / 400 for i in range(2)]
    points = torch.cartesian_prod(*axes)
    density = law.log_prob(points).exp().detach()
    cell = float((high - low).prod()) / 400**2
    assert abs(float(density.sum()) * cell - 1) < 1e-4
    mean = density @ points * cell
    assert torch.allclose(law.mean, mean, atol=1e-3)
    assert torch.allclose(law.variance, density @ (points - mean).square() * cell, atol=1e-3)
    draws = law.sample((20_000,))
    assert torch.all((draws.mean(0) - law.mean).abs() < 4 * (law.variance / 20_000).sqrt())


def test_volume_of_a_patch_of_the_sphere_in_two_charts():
    polar = PullbackMetric(
        lambda z: torch.stack(
            [z[..., 0].sin() * z[..., 1].cos(), z[..., 0].sin() * z[..., 1].sin(), z[..., 0].cos()], -1
        ),
        2,
        jitter=0.0,
    )
    low, high = torch.tensor([0.2, -0.5], dtype=DTYPE), torch.tensor([1.4, 2.0], dtype=DTYPE)
    area = float((low[0].cos() - high[0].cos()) * (high[1] - low[1]))
    assert abs(float(RiemannianUniform(polar, low, high).log_volume().value) - math.log(area)) < 1e-6
    warped = WarpedMetric(polar, (torch.sinh, torch.asinh))  # each axis for itself: boxes stay boxes
    again = RiemannianUniform(warped, low.asinh(), high.asinh())
    assert abs(float(again.log_volume().value) - math.log(area)) < 1e-6
    z = torch.tensor([0.7, 0.3], dtype=DTYPE)
    invariant = again.log_prob(z.asinh()) - 0.5 * warped.logdet(z.asinh())
    assert torch.allclose(invariant, torch.tensor(-math.log(area), dtype=DTYPE), atol=1e-6)


# -------------------------------------------------------------------- kernel metrics, any dimension


@pytest.mark.parametrize("dim", [2, 8, 16])
def test_isolated_bumps_are_gaussians_of_equal_mass(dim):
    metric = isolated_bumps(dim)
    law = RiemannianUniform(metric, -1.0, 11.0)
    count = metric.centroids.shape[0]
    bump = math.log(count) + 0.5 * dim * math.log(2 * math.pi * float(metric.bandwidth) ** 2 / dim)
    floor = 0.5 * dim * math.log(1e-3) + dim * math.log(12.0)
    volume = law.log_volume()
    assert abs(float(volume.value) - float(torch.logsumexp(torch.tensor([bump, floor], dtype=DTYPE), 0))) < 1e-2
    assert float(volume.standard_error) < 5e-3
    assert law.efficiency > 0.9

    draws = law.sample((4000,))
    squared = ((draws.unsqueeze(1) - metric.centroids).square() * metric.precisions).sum(-1)
    nearest = squared.min(1)
    on_bump = metric.logdet(draws) > dim * math.log(1e-3) + 1e-2
    statistic = (dim * nearest.values / metric.bandwidth**2)[on_bump]
    if dim > 2:  # at d = 2 the floor adds mass of its own far out on the bump
        assert stats.kstest(statistic.numpy(), "chi2", args=(dim,)).pvalue > 1e-3
        error = statistic.std() / math.sqrt(len(statistic))
        assert abs(float(statistic.mean()) - dim) < 3 * float(error)
    counts = torch.bincount(nearest.indices[on_bump], minlength=count)
    if dim > 2:
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_two_dimensional_volume_matches_quadrature():
    metric = isolated_bumps(2)
    law = RiemannianUniform(metric, -1.0, 11.0)
    axis = -1 + 12 * (torch.arange(1200, dtype=DTYPE) + 0.5) / 1200
    total = sum(
        float((0.5 * metric.logdet(torch.cartesian_prod(chunk, axis))).exp().sum()) for chunk in axis.split(100)
    )
    assert abs(float(law.log_volume().value) - math.log(total * (12 / 1200) ** 2)) < 2e-3


@pytest.mark.parametrize("dim, full", [(3, False), (3, True), (8, False), (16, False)])
def test_overlapping_bumps_are_sampled_efficiently(dim, full):
    metric = overlapping_bumps(dim, full)
    law = RiemannianUniform(metric, -5.0, 5.0)
    assert law.efficiency > 0.3
    assert law.log_volume().standard_error < 0.02
    draws = law.sample((4000,))
    assert torch.all((draws.mean(0) - law.mean).abs() < 4.5 * (law.variance / 4000).sqrt())


def test_three_dimensions_agree_with_quadrature():
    metric = overlapping_bumps(3)
    law = RiemannianUniform(metric, -4.0, 4.0)
    axis = -4 + 8 * (torch.arange(120, dtype=DTYPE) + 0.5) / 120
    points = torch.cartesian_prod(axis, axis, axis)
    density = torch.cat([(0.5 * metric.logdet(p)).exp() for p in points.split(100_000)])
    volume = law.log_volume()
    assert abs(float(volume.value) - math.log(float(density.sum()) * (8 / 120) ** 3)) < 4 * float(volume.standard_error)
    mass = density.reshape(4, 30, 4, 30, 4, 30).sum((1, 3, 5)).flatten()
    draws = law.sample((20_000,))
    index = ((draws + 4) / 2).long().clamp(0, 3)
    counts = torch.bincount(index @ torch.tensor([16, 4, 1]), minlength=64).double()
    expected = 20_000 * mass / mass.sum()
    keep = expected > 5
    scaled = expected[keep] * counts[keep].sum() / expected[keep].sum()
    assert stats.chisquare(counts[keep].numpy(), scaled.numpy()).pvalue > 1e-3


def test_share_of_draws_on_the_floor():
    high_floor = isolated_bumps(8, regularization=10.0)
    law = RiemannianUniform(high_floor, -1.0, 11.0)
    assert law.share_on_floor(law.sample((500,))) > 0.9
    low_floor = RiemannianUniform(isolated_bumps(8), -1.0, 11.0)
    assert low_floor.share_on_floor(low_floor.sample((500,))) < 0.01
    with pytest.raises(TypeError, match="KernelMetric"):
        RiemannianUniform(EuclideanMetric(2), -1.0, 1.0).share_on_floor(torch.zeros(3, 2))


# -------------------------------------------------------------------- other metrics, higher dimension


@pytest.mark.parametrize("rate", [0.3, 2.0])
def test_metrics_without_a_mixture_of_their_own(rate):
    metric = Exponential(torch.full((4,), rate, dtype=DTYPE)).requires_grad_(False)
    law = RiemannianUniform(metric, -1.0, 1.0)
    assert law.reports[0].method == ("mixture" if rate < 1 else "tempered")
    volume = law.log_volume()
    assert float(volume.standard_error) < 0.05
    assert abs(float(volume.value) - metric.exact_log_volume(-1.0, 1.0)) < 4 * float(volume.standard_error)
    draws = law.sample((3000,))
    exact = 1 / math.tanh(rate) - 1 / rate
    # particles of the tempered sequence are shared by the draws: twice the error of independent ones
    assert torch.all((draws.mean(0) - exact).abs() < 2 * 3 * draws.std(0) / math.sqrt(3000))


# -------------------------------------------------------------------- gradients


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_gradient_of_the_volume_in_metric_and_bounds(dim):
    metric = Exponential(torch.full((dim,), 0.4, dtype=DTYPE))
    low, high = (torch.full((dim,), x, dtype=DTYPE, requires_grad=True) for x in (-1.0, 0.5))
    RiemannianUniform(metric, low, high).log_volume().value.backward()
    exact_low, exact_high, exact_rates = (x.detach().clone().requires_grad_() for x in (low, high, metric.rates))
    volume = ((exact_rates * exact_high).exp() - (exact_rates * exact_low).exp()) / exact_rates
    volume.log().sum().backward()
    tolerance = 1e-6 if dim <= 2 else 2e-2  # quadrature, or importance sampling
    for ours, exact in ((low, exact_low), (high, exact_high), (metric.rates, exact_rates)):
        assert torch.allclose(ours.grad, exact.grad, atol=tolerance)


def test_gradient_of_the_density_in_the_kernel_parameters():
    base = overlapping_bumps(2)
    point = torch.tensor([0.3, -0.2], dtype=DTYPE)

    def density(bandwidth: Tensor) -> tuple[Tensor, Tensor | None]:
        metric = KernelMetric(base.centroids, base.precisions, nn.Parameter(bandwidth), base.regularization)
        law = RiemannianUniform(metric, -2.0, 2.0)
        value = law.log_prob(point)
        value.backward()
        return value.detach(), metric.bandwidth.grad

    centre, step = torch.tensor(1.2, dtype=DTYPE), 1e-3
    difference = (density(centre + step)[0] - density(centre - step)[0]) / (2 * step)
    slope = density(centre)[1]
    assert slope is not None
    assert torch.allclose(slope, difference, atol=1e-3)


class Density(nn.Module):
    """The law as a module, whose trace keeps the metric's parameters as its own."""

    def __init__(self, metric: RiemannianMetric) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, z: Tensor) -> Tensor:
        low, high = (torch.full((2,), bound, dtype=DTYPE) for bound in (-1.0, 1.0))
        return RiemannianUniform(self.metric, low, high).log_prob(z)


def test_trace_follows_a_metric_that_is_learned():
    """A compiled density sees parameters that have changed since it was recorded."""
    metric = Exponential(torch.full((2,), 0.4, dtype=DTYPE))
    z = torch.tensor([0.3, -0.2], dtype=DTYPE)
    traced = torch.jit.trace(Density(metric), z, check_trace=False)
    for rate in (0.4, 0.7):
        metric.rates.data.fill_(rate)
        metric.rates.grad = None
        value = traced(z)
        assert abs(float(value.detach()) - (rate * float(z.sum()) - metric.exact_log_volume(-1.0, 1.0))) < 1e-6
        value.backward()
        exact = z - (1 / math.tanh(rate) - 1 / rate)
        assert torch.allclose(metric.rates.grad, exact, atol=1e-6)


def test_point_outside_is_impossible_and_has_no_nan_gradient():
    law = RiemannianUniform(half_space_log_height(2), -torch.ones(2, dtype=DTYPE), 1.0, validate_args=False)
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0]], dtype=DTYPE, requires_grad=True)
    value = law.log_prob(z)
    assert value[1] == -torch.inf
    value[0].backward()
    assert torch.isfinite(z.grad).all()


# -------------------------------------------------------------------- set-up, kept laws, batches


def test_set_up_happens_once_and_again_when_the_metric_changes():
    metric = Exponential(torch.full((2,), 0.5, dtype=DTYPE)).requires_grad_(False)
    law = RiemannianUniform(metric, -1.0, 1.0)
    first = law.log_volume().value
    spent = metric.evaluations
    for again in (law, law.expand((5,)), RiemannianUniform(metric, -1.0, 1.0)):
        assert again.log_volume().value.unique() == first
    assert metric.evaluations == spent
    assert pickle.loads(pickle.dumps(law)).log_volume().value == first
    metric.rates.mul_(2)
    assert abs(float(law.log_volume().value) - metric.exact_log_volume(-1.0, 1.0)) < 1e-6
    assert law.log_volume().value != first


@pytest.mark.parametrize("dim", [2, 5])
def test_set_up_is_deterministic_and_takes_no_random_numbers(dim):
    metric = overlapping_bumps(dim)
    state = torch.random.get_rng_state()
    values = [RiemannianUniform(copy.deepcopy(metric), -3.0, 3.0).log_volume().value for _ in range(2)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(state, torch.random.get_rng_state())


def test_batch_of_boxes():
    metric = overlapping_bumps(2)
    low = torch.tensor([[[-1.0, -1.0]], [[0.0, 0.0]]], dtype=DTYPE)
    high = torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]], dtype=DTYPE)
    law = RiemannianUniform(metric, low, high)
    assert law.batch_shape == (2, 3)
    draws = law.sample((400,))
    assert law.support.check(draws).all()
    single = RiemannianUniform(metric, low[1, 0], high[2])
    assert torch.equal(single.log_volume().value, law.log_volume().value[1, 2])
    z = draws[:, 1, 2]
    assert torch.allclose(law.log_prob(draws)[:, 1, 2], single.log_prob(z))


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "low, high, match",
    [
        (None, 1.0, "`low` is missing"),
        (-1.0, None, "`high` is missing"),
        (-math.inf, 1.0, "`low` is infinite"),
        (-1.0, torch.tensor([1.0, math.inf]), "`high` is infinite"),
        (torch.tensor([math.nan, 0.0]), 1.0, "`low` has 1 NaN"),
        (1.0, -1.0, "strictly below"),
        (torch.zeros(2), torch.tensor([1.0, 0.0]), "strictly below"),
        (torch.zeros(3), 1.0, "`low` must be a number or have shape"),
    ],
)
def test_bad_bounds_are_named(low, high, match):
    with pytest.raises(ValueError, match=match):
        RiemannianUniform(EuclideanMetric(2), low, high)


def test_bad_types_are_named():
    with pytest.raises(TypeError, match="`metric`"):
        RiemannianUniform(torch.eye(2), -1.0, 1.0)
    with pytest.raises(TypeError, match="`low`"):
        RiemannianUniform(EuclideanMetric(2), "left", 1.0)
    with pytest.raises(TypeError, match="`high`"):
        RiemannianUniform(EuclideanMetric(2), torch.zeros(2), torch.ones(2, dtype=torch.long))


def test_box_that_leaves_the_chart_is_refused():
    law = RiemannianUniform(Hyperbolic(2), -torch.ones(2, dtype=DTYPE), 1.0)
    with pytest.raises(ValueError, match=r"open unit ball|leaves the chart"):
        law.log_volume()


def test_point_outside_the_support_is_refused_when_validating():
    law = RiemannianUniform(EuclideanMetric(2), -torch.ones(2, dtype=DTYPE), 1.0, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.full((2,), 1.5, dtype=DTYPE))
