"""Samplers of the twin against exact laws, and against torch's on the same metric."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import stats

from pyro_riemann.numpyro import EuclideanMetric, KernelMetric, RiemannianMetric, RiemannianUniform, summary, to_arviz
from pyro_riemann.numpyro.manifolds import HalfSpace
from pyro_riemann.numpyro.sampling import HamiltonianKernel, TemperedKernel, default_box, sample_uniform, tempered_smc

KEY = jax.random.key(0)
LOW, HIGH = np.array([-1.0, 0.0]), np.array([2.0, 1.0])
MEAN, SCALE = np.array([0.5, 1.2]), np.array([0.3, 0.4])  # double precision is switched on later


def log_density(z: Array) -> Array:
    """A Gaussian that the walls cut, not normalised."""
    return 3 - 0.5 * jnp.square((z - MEAN) / SCALE).sum(-1)


def truncated(axis: int) -> Any:
    ends = ((float(end[axis]) - float(MEAN[axis])) / float(SCALE[axis]) for end in (LOW, HIGH))
    return stats.truncnorm(*ends, float(MEAN[axis]), float(SCALE[axis]))


def kernel() -> KernelMetric:
    generator = np.random.default_rng(0)
    return KernelMetric(jnp.asarray(8 * generator.random((10, 5))), jnp.full((10, 5), 150.0), 1.5, 1e-3)


@pytest.mark.parametrize("method, settings", [("importance", {}), ("importance", {"num_moves": 2}), ("tempered", {})])
def test_isolated_bumps_are_gaussians_of_equal_mass(method: str, settings: dict[str, int]) -> None:
    metric, dim = kernel(), 5
    result = sample_uniform(metric, 1500, -1.0, 9.0, method, key=KEY, **settings)
    assert result.method == method
    assert result.draws.shape == (1500, 5)
    squared = (jnp.square(result.draws[:, None] - metric.centroids) * metric.precisions).sum(-1)
    statistic = np.asarray(dim * squared.min(1) / 1.5**2)
    assert stats.kstest(statistic, "chi2", args=(dim,)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(squared.argmin(1), minlength=10)).pvalue > 1e-4
    bumps = math.log(10) + dim / 2 * math.log(2 * math.pi * 1.5**2 / dim)
    exact = np.logaddexp(bumps, dim / 2 * math.log(1e-3) + dim * math.log(10.0))
    volume = result.log_volume
    assert abs(float(volume.value) - exact) < 4 * float(volume.standard_error) + 1e-4
    assert volume.standard_error < 0.1
    assert float(result.r_hat.max()) < 1.05
    assert result.floor_share is not None
    assert "log volume" in str(result)


def test_choice_and_diagnostics() -> None:
    plane = sample_uniform(HalfSpace(2), 2000, -1.0, jnp.array([1.0, 2.0]), key=KEY)
    assert plane.method == "table"
    heights = np.asarray(plane.draws[:, 1])
    assert stats.kstest(heights, lambda h: (math.e - np.exp(-h)) / (math.e - math.exp(-2))).pvalue > 1e-3
    assert float(plane.log_volume.value) == pytest.approx(math.log(2) + math.log(math.e - math.exp(-2)), abs=1e-9)
    assert to_arviz(plane)["posterior"]["z"].shape == plane.chains.shape
    assert float(summary(plane)["r_hat"].max()) == pytest.approx(float(plane.r_hat.max()))
    assert sample_uniform(kernel(), 50, key=KEY).method == "importance"


def test_the_draws_are_those_of_the_distribution() -> None:
    """One set-up serves both: the same proposal, and volumes that agree within their errors."""
    metric = kernel()
    result, law = sample_uniform(metric, 200, -1.0, 9.0, key=KEY), RiemannianUniform(metric, -1.0, 9.0)
    assert result.reason.startswith(law.reports[0].reason)
    ours, theirs = result.log_volume, law.log_volume()
    joint = math.hypot(float(ours.standard_error), float(theirs.standard_error))
    assert abs(float(ours.value - theirs.value)) < 4 * joint
    low, high = default_box(metric)
    deviation = 1.5 / math.sqrt(150 * 5)
    np.testing.assert_allclose(low, metric.centroids.min(0) - 4 * deviation)
    np.testing.assert_allclose(high, metric.centroids.max(0) + 4 * deviation)


def test_hamiltonian_moves_leave_a_cut_law_as_it_is() -> None:
    moves = HamiltonianKernel(log_density, LOW, HIGH, SCALE, step_size=0.4, num_leapfrog=6)
    exact = np.stack([truncated(k).rvs(3000, random_state=k) for k in range(2)], -1)
    state, step = moves.init(jnp.asarray(exact)), jax.jit(moves.step)
    for key in jax.random.split(KEY, 5):
        state, info = step(key, state)
    for axis in range(2):
        assert stats.kstest(np.asarray(state.position[:, axis]), truncated(axis).cdf).pvalue > 1e-3
    np.testing.assert_allclose(state.gradient, (MEAN - state.position) / SCALE**2, atol=1e-12)
    assert abs(float(info.accepted.mean() - info.acceptance.mean())) < 4 * (0.25 / 3000) ** 0.5


def test_tempered_populations_reach_the_law_and_its_integral() -> None:
    tempered = TemperedKernel(lambda z: 0 * z[:, 0] - jnp.log(HIGH - LOW).sum(), log_density, LOW, HIGH)
    exact, step = 3.0, jax.jit(tempered.step)
    for axis in range(2):
        low, high = ((float(end[axis]) - float(MEAN[axis])) / float(SCALE[axis]) for end in (LOW, HIGH))
        exact += math.log(stats.norm.cdf(high) - stats.norm.cdf(low))
        exact += math.log(float(SCALE[axis]) * math.sqrt(2 * math.pi))
    scores = []
    for seed in range(10):
        for_start, key = jax.random.split(jax.random.key(seed))
        state = tempered.init(LOW + (HIGH - LOW) * jax.random.uniform(for_start, (8, 200, 2)))
        while state.temperature < 1:
            state, _ = step(jax.random.fold_in(key, int(state.stage)), state)
        value, error = tempered.log_integral(state)
        scores.append(float((value - exact) / error))
    assert stats.chi2(10).ppf(1e-4) < sum(s**2 for s in scores) < 1.5 * stats.chi2(10).ppf(1 - 1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": jnp.eye(2)}, TypeError, "`metric` must be a RiemannianMetric"),
        ({"metric": EuclideanMetric(3)}, ValueError, "`low` and `high` are missing"),
        ({"low": jnp.zeros((2, 5)), "high": 1.0}, ValueError, "a batch of boxes"),
        ({"num_samples": 0}, ValueError, "`num_samples` must be at least 1"),
        ({"method": "nuts"}, ValueError, "`method` must be one of"),
        ({"method": "table"}, ValueError, "needs d <= 2"),
        ({"method": "tempered", "num_islands": 1}, ValueError, "`num_islands`"),
        ({"method": "tempered", "num_particles": 1}, ValueError, "too few for 10 draws"),
        ({"method": "importance", "num_proposals": 3}, ValueError, "`num_proposals`"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        sample_uniform(**({"metric": kernel(), "num_samples": 10, "key": KEY} | arguments))


class Wild(RiemannianMetric):
    """A metric that is not a number on one side."""

    dim = 3

    def metric(self, z: Array) -> Array:
        return jnp.sqrt(z[..., 0])[..., None, None] * jnp.eye(3)


def test_a_metric_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite volume element"):
        tempered_smc(Wild(), 10, -1.0, 1.0, key=KEY)
    with pytest.raises(ValueError, match="must be known"):
        jax.jit(lambda high: sample_uniform(EuclideanMetric(2), 10, -1.0, high, key=KEY).draws)(jnp.ones(2))
