"""Every sampler against quadrature in the plane, and against each other and exact laws in sixteen dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann import KernelMetric, RiemannianMetric
from pyro_riemann._formulas.unit_mixture import mixture
from pyro_riemann.manifolds import ScaledMetric
from pyro_riemann.sampling import (
    SamplingResult,
    hmc,
    importance_resampling,
    independence_metropolis,
    sample_uniform,
    tempered_smc,
)
from pyro_riemann.sampling._hmc import bridge_log_volume
from tests.charts import half_space_log_height

DTYPE = torch.float64

Sampler = Callable[..., SamplingResult]


def mixing_hmc(metric: RiemannianMetric, num_samples: int, low: Any, high: Any, **settings: Any) -> SamplingResult:
    """Hamiltonian Monte Carlo with steps that suit the metric, from the whole box: mixes in the plane."""
    defaults = {"num_chains": 250, "num_steps": 140, "warm_up": 20, "step_size": None, "start": "box"}
    return hmc(metric, num_samples, low, high, **(defaults | settings))


def table(metric: RiemannianMetric, num_samples: int, low: Any, high: Any, seed: int) -> SamplingResult:
    return sample_uniform(metric, num_samples, low, high, "table", seed)


SAMPLERS: dict[str, Sampler] = {
    "table": table,
    "metropolis": independence_metropolis,
    "importance": importance_resampling,
    "tempered": tempered_smc,
    "hmc": mixing_hmc,
}


def overlapping(dim: int, full: bool = False) -> KernelMetric:
    """Kernels that lift each other, of unequal mass."""
    generator = torch.Generator().manual_seed(1)
    centroids = (1 if dim == 2 else 0.3) * torch.randn(10, dim, generator=generator, dtype=DTYPE)
    scale = 0.3 + 0.4 * torch.rand(10, dim, generator=generator, dtype=DTYPE)
    precisions = scale**-2
    if full:
        tilt = torch.eye(dim, dtype=DTYPE) + 0.3 * torch.ones(dim, dim, dtype=DTYPE).tril(-1)
        precisions = tilt @ torch.diag_embed(precisions) @ tilt.mT
    return KernelMetric(centroids, precisions, 1.5, 1e-2 if dim == 2 else 1e-4)


def isolated(dim: int, count: int = 12) -> KernelMetric:
    """Centroids many bandwidths apart: every bump is a Gaussian of its own, all of equal mass."""
    generator = torch.Generator().manual_seed(dim)
    centroids = 8 * torch.rand(count, dim, generator=generator, dtype=DTYPE)
    scale = 0.05 + 0.05 * torch.rand(count, dim, generator=generator, dtype=DTYPE)
    return KernelMetric(centroids, scale**-2, 1.5, 1e-3)


LOW, HIGH = torch.tensor([-1.5, -1.0], dtype=DTYPE), torch.tensor([1.0, 2.0], dtype=DTYPE)
PLANE: dict[str, Callable[[], RiemannianMetric]] = {
    "overlapping": lambda: overlapping(2),
    "overlapping, full precisions": lambda: overlapping(2, full=True),
    "half-plane": lambda: half_space_log_height(2),
}


def cell_masses(metric: RiemannianMetric, cells: int, fine: int = 60) -> tuple[Tensor, float]:
    """Probabilities of ``cells x cells`` and the log volume of the box, by the midpoint rule."""
    steps = cells * fine
    axes = [LOW[i] + (HIGH[i] - LOW[i]) * (torch.arange(steps, dtype=DTYPE) + 0.5) / steps for i in range(2)]
    points = torch.cartesian_prod(*axes)
    with torch.no_grad():
        density = torch.cat([(0.5 * metric.logdet(piece)).exp() for piece in points.split(50_000)])
    mass = density.reshape(cells, fine, cells, fine).sum((1, 3))
    return mass / mass.sum(), math.log(float(mass.sum() * (HIGH - LOW).prod()) / steps**2)


def cell_pvalue(draws: Tensor, mass: Tensor) -> float:
    """Multinomial chi-square of the counts in cells; cells that expect fewer than five join into one."""
    cells, count = mass.shape[0], len(draws)
    index = ((draws - LOW) / (HIGH - LOW) * cells).long().clamp(0, cells - 1)
    counts = torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2).double()
    expected = count * mass.flatten()
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    present = wanted > 0
    return float(stats.chisquare(observed[present].numpy(), wanted[present].numpy()).pvalue)


# ---------------------------------------------------------------- two dimensions: quadrature


@pytest.mark.parametrize("name", PLANE)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_fall_in_cells_as_quadrature_says(sampler: str, name: str) -> None:
    metric = PLANE[name]()
    settings: dict[str, Any] = {"importance": {"num_proposals": 60_000}, "metropolis": {"thinning": 12}}.get(
        sampler, {}
    )
    result = SAMPLERS[sampler](metric, 3000, LOW, HIGH, seed=1, **settings)
    mass, log_volume = cell_masses(metric, 6)
    assert result.draws.shape == (3000, 2)
    assert ((result.draws >= LOW) & (result.draws <= HIGH)).all()
    assert cell_pvalue(result.draws, mass) > 1e-3
    volume = result.log_volume
    assert abs(float(volume.value) - log_volume) < 3 * float(volume.standard_error) + 1e-5
    assert float(volume.standard_error) < 0.1
    assert float(result.r_hat.max()) < 1.05
    assert float(result.ess_bulk.min()) > 500


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "table"])
def test_error_of_the_log_volume_is_its_error(sampler: str) -> None:
    """Twelve runs scatter about quadrature as their standard errors say."""
    metric = overlapping(2)
    _, log_volume = cell_masses(metric, 6)
    settings: dict[str, Any] = {"hmc": {"num_chains": 400, "num_steps": 12, "warm_up": 6, "start": "proposal"}}.get(
        sampler, {}
    )
    runs = [SAMPLERS[sampler](metric, 400, LOW, HIGH, seed=seed, **settings).log_volume for seed in range(12)]
    scores = [(float(run.value) - log_volume) / float(run.standard_error) for run in runs]
    # the tempered error comes from eight islands: its scores are Student's, not normal
    limit = stats.chi2(12).ppf(1 - 1e-4) * (1.5 if sampler == "tempered" else 1.0)
    assert sum(score**2 for score in scores) < limit
    assert sum(score**2 for score in scores) > stats.chi2(12).ppf(1e-4)


def test_error_of_a_bridge_is_that_of_as_many_draws_as_are_effective() -> None:
    """Meng and Wong's least error, from a step of heights 1 and 9 to the uniform law; 0.4 of the draws count."""
    count, effective = 20_000, 8_000
    heights = torch.tensor([1.0, 9.0], dtype=DTYPE)
    nowhere = torch.zeros(0, 1, dtype=DTYPE)
    uniform: Any = SimpleNamespace(mixture=mixture(torch, nowhere, nowhere, torch.zeros(1)))
    target: Any = SimpleNamespace(
        value=lambda unit: heights[(unit[:, 0] > 0.5).long()].log(), proposal=lambda: uniform, on_device=lambda q: q
    )
    draws = torch.cat([torch.full((count // 10, 1), 0.2), torch.full((9 * count // 10, 1), 0.7)]).to(DTYPE)
    value, error = bridge_log_volume(target, draws, effective, torch.Generator().manual_seed(0))
    share, density = effective / (effective + count), heights / 5
    overlap = float((density / (share * density + 1 - share)).mean())
    exact = ((1 / overlap - 1) / (share * (1 - share) * (effective + count))) ** 0.5
    assert error == pytest.approx(exact, rel=0.02)
    assert abs(value - math.log(5)) < 4 * exact


def test_warm_up_does_not_depend_on_the_unit_of_length() -> None:
    metric = overlapping(3)
    low, high = torch.tensor([[-2.0], [2.0]], dtype=DTYPE).expand(2, 3)
    counts = {
        independence_metropolis(ScaledMetric(metric, factor), 80, low, high, thinning=3, seed=0).evaluations
        for factor in (1e-3, 1.0, 1e3)
    }
    assert len(counts) == 1


# ---------------------------------------------------------------- sixteen dimensions


def share_by_centroid(metric: KernelMetric, draws: Tensor) -> Tensor:
    """Share of the draws whose nearest centroid, in its own metric, is each."""
    squared = ((draws.unsqueeze(1) - metric.centroids).square() * metric.precisions).sum(-1)
    return torch.bincount(squared.argmin(1), minlength=len(metric.centroids)).double() / len(draws)


def test_all_samplers_agree_in_sixteen_dimensions() -> None:
    metric, count = overlapping(16), 4000
    runs = {
        "metropolis": independence_metropolis(metric, count, -5.0, 5.0, seed=0),
        "importance": importance_resampling(metric, count, -5.0, 5.0, seed=1, num_proposals=40_000),
        "tempered": tempered_smc(metric, count, -5.0, 5.0, seed=2),
        "hmc": hmc(metric, count, -5.0, 5.0, num_steps=16, step_size=None, start="proposal", seed=3),
    }
    reference = runs.pop("importance")
    spread, shares = reference.draws.std(0), share_by_centroid(metric, reference.draws)
    assert float(shares.max()) < 0.6  # several centroids matter
    for name, result in runs.items():
        # particles share ancestors and chains have memory: half the draws count as independent
        error = spread * math.sqrt(2 / count + 2 / count)
        assert torch.all((result.draws.mean(0) - reference.draws.mean(0)).abs() < 4 * error), name
        variance_error = spread**2 * math.sqrt(2 * 4 / count)
        assert torch.all((result.draws.var(0) - reference.draws.var(0)).abs() < 4.5 * variance_error), name
        share_error = (shares * (1 - shares) * 4 / count).sqrt() + 1 / count
        assert torch.all((share_by_centroid(metric, result.draws) - shares).abs() < 4 * share_error), name
        gap = float(result.log_volume.value - reference.log_volume.value)
        error_of_gap = math.hypot(*(float(r.log_volume.standard_error) for r in (result, reference)))
        assert abs(gap) < 4 * error_of_gap, name
        assert error_of_gap < 0.1
        if name != "hmc":
            assert float(result.r_hat.max()) < 1.05


@pytest.mark.parametrize("sampler", ["metropolis", "importance", "tempered", "hmc"])
@pytest.mark.parametrize("dim", [8, 16])
def test_isolated_bumps_are_gaussians_of_equal_mass(sampler: str, dim: int) -> None:
    """There d D^2 / rho^2 is chi-square, the bumps are equally likely, and the volume is known."""
    metric, count = isolated(dim), 1500
    settings: dict[str, Any] = {"step_size": None, "num_steps": 20} if sampler == "hmc" else {}
    run = {**SAMPLERS, "hmc": hmc}[sampler]
    result = run(metric, count, -1.0, 9.0, seed=4, **settings)
    squared = ((result.draws.unsqueeze(1) - metric.centroids).square() * metric.precisions).sum(-1).min(1)
    statistic = (dim * squared.values / metric.bandwidth**2).numpy()
    assert abs(statistic.mean() - dim) < 3 * math.sqrt(2) * statistic.std() / math.sqrt(count)
    assert stats.kstest(statistic, "chi2", args=(dim,)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(squared.indices.numpy(), minlength=12)).pvalue > 1e-4
    bumps = math.log(12) + dim / 2 * math.log(2 * math.pi * float(metric.bandwidth) ** 2 / dim)
    floor = dim / 2 * math.log(1e-3) + dim * math.log(10.0)
    volume = result.log_volume
    assert abs(float(volume.value) - np.logaddexp(bumps, floor)) < 3 * float(volume.standard_error) + 1e-4
    assert result.floor_share == 0.0
    if sampler == "hmc":  # the chains stay on the bump where they began, and R-hat says so
        assert float(result.r_hat.min()) > 1.5
        assert float(result.ess_bulk.max()) < 4 * count
    else:
        assert result.efficiency > 0.8
        assert float(result.r_hat.max()) < 1.05


def test_chains_of_the_paper_are_wrong_where_bumps_overlap() -> None:
    """Algorithm 2 of C22 starts at centroids, equally likely, and its chains do not get to where the mass is."""
    metric = overlapping(16)
    paper = hmc(metric, 600, -5.0, 5.0, seed=0)
    right = [independence_metropolis(metric, 600, -5.0, 5.0, seed=seed, thinning=30) for seed in (0, 1)]
    shares = [share_by_centroid(metric, run.draws) for run in (paper, *right)]
    assert float((shares[1] - shares[2]).abs().sum()) / 2 < 0.1
    assert float((shares[0] - shares[1]).abs().sum()) / 2 > 0.2
    assert paper.acceptance > 0.95
    assert float(paper.r_hat.max()) > 1.5


def test_floor_wins_the_box_when_it_is_high() -> None:
    metric = KernelMetric(torch.zeros(1, 8), torch.full((1, 8), 100.0), 1.0, 1.0)
    with pytest.warns(UserWarning, match="of the draws lie where `metric` is only the constant"):
        assert sample_uniform(metric, 200, -3.0, 3.0, seed=0).floor_share > 0.99
    assert sample_uniform(metric, 200, seed=0).floor_share < 0.6  # the default box is close to the bump
