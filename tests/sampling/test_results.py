"""What samplers return, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann import EuclideanMetric, Hyperbolic, KernelMetric, RiemannianMetric, summary, to_arviz
from pyro_riemann._formulas.unit_laws import TemperedLaw
from pyro_riemann.sampling import (
    BoxLaw,
    default_box,
    hmc,
    importance_resampling,
    independence_metropolis,
    sample_uniform,
    tempered_smc,
)

METHODS: dict[str, dict[str, Any]] = {
    "metropolis": {},
    "importance": {},
    "tempered": {"num_particles": 64},
    "hmc": {"num_steps": 10, "step_size": None},
}


def kernel(dim: int = 3, dtype: torch.dtype = torch.float32) -> KernelMetric:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(8, dim, generator=generator)
    return KernelMetric(centroids.to(dtype), torch.full((8, dim), 6.0, dtype=dtype), 1.2, 1e-3)


class Exponential(RiemannianMetric):
    """G = diag(exp(2 a z_i)): no proposal of its own, and a volume in closed form."""

    def __init__(self, rate: float, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("rate", torch.tensor(rate))

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed((2 * self.rate * z).exp())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 101])
def test_result_is_complete(method: str, dtype: torch.dtype, count: int) -> None:
    metric = kernel(dtype=dtype)
    result = sample_uniform(metric, count, method=method, seed=0, **METHODS[method])
    assert result.method == method
    assert result.draws.shape == (count, 3)
    assert result.draws.dtype == result.chains.dtype == result.log_volume.value.dtype == dtype
    assert ((result.draws >= result.low) & (result.draws <= result.high)).all()
    assert 0 < result.efficiency <= 1.001
    assert 0 < result.acceptance <= 1
    assert result.evaluations >= count
    assert torch.isfinite(result.log_volume.value)
    assert result.floor_share is not None
    assert 0 <= result.floor_share <= 1
    assert not result.draws.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_seed_decides_and_the_global_state_is_left_alone(method: str) -> None:
    metric, settings = kernel(), METHODS[method]
    state = torch.get_rng_state()
    first, again, other = (sample_uniform(metric, 40, method=method, seed=s, **settings).draws for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(5)
    unseeded = sample_uniform(metric, 40, method=method, **settings).draws
    torch.manual_seed(5)
    assert torch.equal(unseeded, sample_uniform(metric, 40, method=method, **settings).draws)


@pytest.mark.parametrize("method", METHODS)
def test_diagnostics_take_the_result(method: str) -> None:
    metric = kernel()
    settings = METHODS[method] | ({"num_chains": 4, "num_steps": 110} if method == "hmc" else {})
    result = sample_uniform(metric, 200, method=method, seed=0, **settings)
    assert to_arviz(result)["posterior"]["z"].shape == tuple(result.chains.shape)
    table = summary(result, metric, num_geodesics=2)
    assert table["r_hat"].to_numpy() == pytest.approx(result.r_hat.numpy())
    assert table["ess_bulk"].to_numpy() == pytest.approx(result.ess_bulk.numpy())
    assert table.floor_share is not None
    assert result.reason in str(result)
    assert "log volume" in str(result)


def test_draws_are_states_of_the_chains() -> None:
    result = independence_metropolis(kernel(), 100, seed=0, num_chains=4)
    assert result.chains.shape == (4, 25, 3)
    assert torch.equal(result.draws[:4], result.chains[:, 0])
    several = hmc(kernel(), 100, seed=0, num_chains=20, num_steps=40, step_size=0.1)
    assert several.chains.shape == (20, 20, 3)
    assert torch.equal(several.draws[-20:], several.chains[:, -1])
    one_each = hmc(kernel(), 30, seed=0, num_steps=20, step_size=0.1)
    assert torch.equal(one_each.draws, one_each.chains[:, -1])


def test_acceptance_is_the_share_of_proposals_that_move_a_chain() -> None:
    """Without thinning the chains are their states one by one; the step to the first of 200 is not seen."""
    for corners in ((), (-1.0, 1.0)):
        result = independence_metropolis(kernel(), 1600, *corners, seed=0, thinning=1)
        moved = (result.chains.diff(dim=1) != 0).any(-1).double().mean()
        assert result.acceptance == pytest.approx(float(moved), abs=1 / 200)
        assert abs(result.acceptance - 0.5) > 0.1


def test_the_share_of_draws_that_moves_is_the_acceptance() -> None:
    """Of one Hamiltonian move of resampled draws, those that it refuses stay where they were."""
    still, moved = (importance_resampling(kernel(), 2000, seed=0, num_moves=count) for count in (0, 1))
    share = float((still.draws != moved.draws).any(-1).double().mean())
    assert still.acceptance == 1.0
    assert abs(moved.acceptance - share) < 4 * (0.25 / 2000) ** 0.5
    assert abs(share - 0.5) > 0.1


def test_acceptance_and_efficiency_of_hamiltonian_chains() -> None:
    """States that a chain repeats are refused moves; an effective draw counts for as many states as it took."""
    result = hmc(kernel(), 400, seed=0, num_chains=50, num_steps=40, warm_up=0, step_size=0.5)
    moved = (result.chains.diff(dim=1) != 0).any(-1).double().mean()
    assert result.acceptance == pytest.approx(float(moved), abs=4 * (0.25 / 2000) ** 0.5)
    assert abs(result.acceptance - 0.5) > 0.1
    assert 2000 * result.efficiency == pytest.approx(float(result.ess_bulk.min()))


@pytest.mark.parametrize(
    ("method", "dim", "settings"),
    [
        ("table", 2, {}),
        ("importance", 3, {}),
        ("importance", 3, {"num_moves": 2}),
        ("metropolis", 3, {"num_moves": 1}),
        ("tempered", 3, {"num_particles": 64}),
        ("hmc", 3, {"num_steps": 10, "warm_up": 2, "step_size": 0.1, "start": "box"}),
        ("hmc", 3, {"num_steps": 10, "warm_up": 2, "start": "proposal", "num_leapfrog": 3}),
    ],
)
def test_evaluations_are_the_points_where_the_metric_is_asked(method: str, dim: int, settings: dict[str, Any]) -> None:
    """What set the proposal up is not counted: it is kept from a first call."""
    asked: list[int] = []

    class Counting(Exponential):
        def metric(self, z: Tensor) -> Tensor:
            asked.append(z.numel() // dim)
            return super().metric(z)

    metric = Counting(1.0, dim)
    for _ in range(2):
        asked.clear()
        result = sample_uniform(metric, 4000 if method == "table" else 400, -1.0, 1.0, method, seed=0, **settings)
    assert result.evaluations == pytest.approx(sum(asked), rel=1e-3, abs=100)  # a few tell whether the metric is new


def test_copies_of_one_proposal_lower_the_effective_size() -> None:
    few = importance_resampling(kernel(), 800, seed=0, num_proposals=80)
    assert float(few.ess_bulk.max()) < 200
    assert float(importance_resampling(kernel(), 800, seed=0).ess_bulk.min()) > 400
    spread = importance_resampling(kernel(), 800, seed=0, num_proposals=80, num_moves=3)
    assert float(spread.ess_bulk.sum()) > float(few.ess_bulk.sum())
    assert len(spread.draws.unique(dim=0)) > 700


# ---------------------------------------------------------------- the choice


def test_choice_follows_dimension_and_efficiency(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample_uniform(EuclideanMetric(2), 10, -1.0, 1.0, seed=0).method == "table"
    mixture = sample_uniform(kernel(), 10, seed=0)
    assert mixture.method == "importance"
    assert "one Gaussian for each of 8 known peaks" in mixture.reason
    assert capsys.readouterr().out == ""
    for dim in (6, 12):
        steep = sample_uniform(Exponential(4.0, dim), 400, -1.0, 1.0, seed=0, verbose=True)
        assert steep.method == "tempered"
        printed = capsys.readouterr().out
        assert "400 draws by tempered (1 Gaussians fitted to the peaks of the volume beside uniform" in printed
        exact = dim * torch.log(2 * torch.sinh(torch.tensor(4.0)) / 4)
        assert abs(float(steep.log_volume.value - exact)) < 4 * float(steep.log_volume.standard_error)
        mean = 1 / torch.tanh(torch.tensor(4.0)) - 1 / 4
        assert torch.all((steep.draws.mean(0) - mean).abs() < 5 * steep.draws.std(0) / 20)


def test_flat_metric_is_uniform_on_the_box() -> None:
    for method in ("metropolis", "tempered", "importance"):
        result = sample_uniform(EuclideanMetric(4), 500, -1.0, 3.0, method, seed=0)
        assert abs(float(result.log_volume.value) - 4 * torch.tensor(4.0).log()) < 1e-5
        assert result.floor_share is None
        assert torch.all((result.draws.mean(0) - 1).abs() < 5 * (16 / 12 / 500) ** 0.5)


def test_default_box_holds_the_bumps() -> None:
    metric = kernel()
    low, high = default_box(metric)
    deviation = metric.bandwidth * (1 / (6.0 * 3)) ** 0.5
    torch.testing.assert_close(low, metric.centroids.amin(0) - 4 * deviation)
    torch.testing.assert_close(high, metric.centroids.amax(0) + 4 * deviation)
    full = KernelMetric(metric.centroids, torch.diag_embed(metric.precisions), metric.bandwidth, 1e-3)
    torch.testing.assert_close(default_box(full)[0], low)
    result = sample_uniform(metric, 10, seed=0)
    assert torch.equal(result.low, low)
    assert torch.equal(result.high, high)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": torch.eye(2)}, TypeError, "`metric` must be a RiemannianMetric"),
        ({"metric": EuclideanMetric(3)}, ValueError, "`low` and `high` are missing"),
        ({"low": -1.0}, ValueError, "`high` is missing"),
        ({"low": 1.0, "high": -1.0}, ValueError, "strictly below"),
        ({"low": torch.zeros(2, 3), "high": 1.0}, ValueError, "a batch of boxes"),
        ({"metric": Hyperbolic(3), "low": -1.0, "high": 1.0}, ValueError, "open unit ball|leaves the chart"),
        ({"num_samples": 0}, ValueError, "`num_samples` must be at least 1"),
        ({"num_samples": 10.0}, TypeError, "`num_samples` must be an int"),
        ({"method": "nuts"}, ValueError, "`method` must be one of"),
        ({"method": "table"}, ValueError, "needs d <= 2"),
        ({"method": "metropolis", "num_chains": 0}, ValueError, "`num_chains`"),
        ({"method": "metropolis", "thinning": 0}, ValueError, "`thinning`"),
        ({"method": "importance", "num_proposals": 3}, ValueError, "`num_proposals`"),
        ({"method": "tempered", "num_islands": 1}, ValueError, "`num_islands`"),
        ({"method": "tempered", "num_particles": 1}, ValueError, "too few for 10 draws"),
        ({"method": "hmc", "num_steps": 4}, ValueError, "`num_steps` must be at least 8"),
        ({"method": "hmc", "num_chains": 2, "num_steps": 8}, ValueError, "are too few for 10 draws"),
        ({"method": "hmc", "step_size": -1.0}, ValueError, "`step_size` must be positive"),
        ({"method": "hmc", "start": "origin"}, ValueError, "`start` must be"),
        ({"method": "hmc", "start": torch.zeros(3, 3)}, ValueError, "`start` must have shape"),
        ({"method": "hmc", "start": torch.full((10, 3), 99.0)}, ValueError, "10 points outside the box"),
        ({"method": "hmc", "low": 50.0, "high": 51.0}, ValueError, "No centroid lies in the box"),
        ({"metric": EuclideanMetric(3), "method": "hmc", "low": 0.0, "high": 1.0}, ValueError, "needs a KernelMetric"),
        ({"method": "hmc", "num_chains": 1}, ValueError, "`num_chains` must be at least 2"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        sample_uniform(**({"metric": kernel(), "num_samples": 10, "seed": 0} | arguments))


def test_table_takes_no_settings() -> None:
    with pytest.raises(TypeError, match="takes no settings, got num_moves"):
        sample_uniform(EuclideanMetric(1), 10, 0.0, 1.0, "table", num_moves=1)


def test_starts_of_one_s_own() -> None:
    metric = kernel()
    start = metric.centroids[:1].expand(20, -1)
    result = hmc(metric, 20, num_steps=8, step_size=1e-6, start=start, seed=0)
    assert float((result.draws - start).abs().max()) < 1e-3
    assert tempered_smc(metric, 20, seed=0, num_particles=64).chains.shape == (8, 64, 3)


@pytest.mark.parametrize("start", ["box", "proposal", "centroids"])
def test_chains_that_hardly_move_have_the_law_of_their_starts(start: str) -> None:
    """Uniform on the box, the target itself, and centroids in the box with equal probabilities."""
    settings: dict[str, Any] = {"num_steps": 8, "num_leapfrog": 1, "step_size": 1e-9, "seed": 0, "start": start}
    if start == "centroids":
        metric = kernel(dtype=torch.float64)
        middle = metric.centroids[:, 0].median() + 1e-6
        inside = metric.centroids[metric.centroids[:, 0] > middle]
        draws = hmc(metric, 2000, torch.stack([middle, middle - 9, middle - 9]), 9.0, **settings).draws
        near = torch.cdist(draws, inside)
        assert near.amin(-1).max() < 1e-6
        share = near.argmin(-1).bincount(minlength=4) / 2000
        assert torch.all((share - 1 / 4).abs() < 4 * (3 / 16 / 2000) ** 0.5)
        return
    draws = hmc(Exponential(2.0, 2), 2000, -1.0, 1.0, **settings).draws
    mean = 0.0 if start == "box" else 1 / math.tanh(2.0) - 1 / 2
    second = 1 / 3 if start == "box" else 1 - 2 * mean / 2  # by parts: E z^2 = 1 - 2 E z / rate
    assert torch.all((draws.mean(0) - mean).abs() < 4 * draws.std(0) / 2000**0.5)
    assert torch.all((draws.square().mean(0) - second).abs() < 4 * draws.square().std(0) / 2000**0.5)


def test_a_law_by_temperatures_draws_from_its_particles() -> None:
    """No mixture fits; each draw is a particle that has moved on. Of each coordinate the density is e^(4 z)."""
    dim = 6
    law = BoxLaw(Exponential(4.0, dim), torch.full((dim,), -1.0), torch.full((dim,), 1.0), max_points=200_000)
    assert isinstance(law._setup.law, TemperedLaw)
    first, second = (law.draw(500, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert first.unique(dim=0).shape == first.shape
    assert not torch.equal(first, second)
    assert law.draw(0).shape == (0, dim)
    mean = 1 / math.tanh(4.0) - 1 / 4
    assert abs(float(first.mean() - mean)) < 4 * float(first.std()) / (100 * dim) ** 0.5


def test_an_error_of_the_volume_is_that_of_the_metric_that_was_drawn_from() -> None:
    """It is found when it is first asked for; kept then, and refused if the metric is another one by then."""
    metrics = kernel(), kernel()
    asked, late = (sample_uniform(metric, 100, method="importance", seed=0) for metric in metrics)
    volume = asked.log_volume
    with torch.no_grad():
        for metric in metrics:
            metric.bandwidth.mul_(1.1)
    assert asked.log_volume is volume
    with pytest.raises(RuntimeError, match="the metric has changed"):
        _ = late.log_volume
    anew = sample_uniform(metrics[1], 100, method="importance", seed=0).log_volume
    assert abs(float(anew.value - volume.value)) > 5 * float(anew.standard_error)
