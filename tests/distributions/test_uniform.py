"""Laws of the Riemannian uniform: cells, volumes, isolated bumps, charts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_riemann import (
    EuclideanMetric,
    PullbackMetric,
    RiemannianUniform,
    WarpedMetric,
)
from pyro_riemann._formulas import unit_moves
from pyro_riemann.sampling._runtime import RUNTIME
from tests.charts import half_space_log_height, sphere_pullback, warped_sphere
from tests.distributions._volumes import DTYPE, Exponential, cell_masses, isolated_bumps, overlapping_bumps

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


def test_acceptance_in_the_report_is_that_of_the_moves() -> None:
    """Started in the law, a move keeps it: the rate does not depend on which draws are moved."""
    torch.manual_seed(0)
    metric = overlapping_bumps(3)
    law = RiemannianUniform(metric, -4.0, 4.0)
    (report,) = law.reports
    assert report.method == "mixture"
    (box,) = law._laws()[1]
    target, z = box._target, box._target.unit(law.sample((2000,)))
    moved, rate = unit_moves.moved(RUNTIME, target.slopes, box._setup.law.moves, target.generator(0), z, 1)
    share = float((moved != z).any(-1).double().mean())
    assert abs(float(rate) - share) < 4 * (0.25 / 2000) ** 0.5
    assert abs(report.acceptance - share) < 4 * (0.25 / 256) ** 0.5
    assert share > 0.6


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
    with pytest.warns(UserWarning, match="of the draws lie where `metric` is only the constant"):
        assert law.share_on_floor(law.sample((500,))) > 0.9
    assert law.reports[0].on_floor > 0.9
    low_floor = RiemannianUniform(isolated_bumps(8), -1.0, 11.0)
    assert low_floor.share_on_floor(low_floor.sample((500,))) < 0.01
    with pytest.raises(TypeError, match="KernelMetric"):
        RiemannianUniform(EuclideanMetric(2), -1.0, 1.0).share_on_floor(torch.zeros(3, 2))


# -------------------------------------------------------------------- other metrics, higher dimension


@pytest.mark.parametrize("rate", [0.3, 2.0])
def test_metrics_without_a_mixture_of_their_own(rate):
    metric = Exponential(torch.full((4,), rate, dtype=DTYPE)).requires_grad_(False)
    law = RiemannianUniform(metric, -1.0, 1.0)
    assert law.reports[0].method == "mixture"
    volume = law.log_volume()
    assert float(volume.standard_error) < 0.05
    assert abs(float(volume.value) - metric.exact_log_volume(-1.0, 1.0)) < 4 * float(volume.standard_error)
    draws = law.sample((3000,))
    exact = 1 / math.tanh(rate) - 1 / rate
    # particles of the tempered sequence are shared by the draws: twice the error of independent ones
    assert torch.all((draws.mean(0) - exact).abs() < 2 * 3 * draws.std(0) / math.sqrt(3000))
