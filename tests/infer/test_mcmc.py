"""Markov chain Monte Carlo with every law, judged by quadrature on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from pyro.infer import HMC, MCMC, NUTS
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_riemann import EuclideanMetric, RiemannianUniform, summary
from tests.infer.models import DTYPE, LAWS, NOISE, all_four, kernel, law, model, observations, on_kernel, on_sphere

KERNELS: dict[str, Callable[..., object]] = {
    "NUTS": partial(NUTS, max_tree_depth=6),
    "NUTS, compiled": partial(NUTS, max_tree_depth=6, jit_compile=True, ignore_jit_warnings=True),
    "HMC": partial(HMC, trajectory_length=0.6),
}


def run(kernel: object, num_samples: int, warmup_steps: int, *arguments: Tensor) -> Tensor:
    mcmc = MCMC(kernel, num_samples=num_samples, warmup_steps=warmup_steps, disable_progbar=True)
    mcmc.run(*arguments)
    return mcmc.get_samples()["z"]


def grid_moments(log_density: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of z and of z^2 by the midpoint rule on 200 x 200 cells."""
    axes = [low[i] + (high[i] - low[i]) * (torch.arange(200, dtype=DTYPE) + 0.5) / 200 for i in range(2)]
    points = torch.cartesian_prod(*axes)
    weights = log_density(points).detach().softmax(0)
    return weights @ points, weights @ points.square()


def assert_moments(draws: Tensor, mean: Tensor, square: Tensor) -> None:
    """Draws ``(chains, n, d)`` have these first and second moments, within four standard errors by the ESS."""
    for statistic, exact in ((draws, mean), (draws.square(), square)):
        error = statistic.flatten(0, 1).std(0) / effective_sample_size(statistic).sqrt()
        assert ((statistic.mean((0, 1)) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("sampler", KERNELS)
@pytest.mark.parametrize("name", LAWS)
def test_posterior_agrees_with_quadrature(name, sampler):
    data, prior = observations(), law(name)
    draws = run(KERNELS[sampler](partial(model, name)), 160, 80, data)
    centre = torch.tensor([0.2, -0.1], dtype=DTYPE)

    def log_density(z: Tensor) -> Tensor:
        likelihood = -0.5 * ((data - z.unsqueeze(-2)) / NOISE).square().sum((-1, -2))
        return prior.log_prob(z) + likelihood

    reach = 1.0 if name == "uniform" else 1.5
    assert_moments(draws.unsqueeze(0), *grid_moments(log_density, centre - reach, centre + reach))


@pytest.mark.parametrize("target, name", [(on_kernel, "uniform"), (on_sphere, "normal")])
def test_nuts_and_our_sampler_agree_with_quadrature(target, name):
    """Four chains: R-hat at most 1.01, moments within four standard errors; our own sampler the same."""
    one = law(name, kernel() if name == "uniform" else None)
    chains = []
    for seed in range(4):
        pyro.set_rng_seed(seed)
        chains.append(run(NUTS(target, jit_compile=True, ignore_jit_warnings=True), 300, 80))
    draws = torch.stack(chains)
    table = summary({"z": draws.numpy()})
    assert (table["r_hat"] <= 1.01).all()
    centre = torch.tensor([0.2, -0.1], dtype=DTYPE)
    reach = 1.0 if name == "uniform" else 4.0
    moments = grid_moments(one.log_prob, centre - reach, centre + reach)
    assert_moments(draws, *moments)
    own = one.sample((4, 2000))
    for statistic, exact in ((own, moments[0]), (own.square(), moments[1])):
        error = statistic.flatten(0, 1).std(0) / math.sqrt(8000)
        assert ((statistic.mean((0, 1)) - exact).abs() < 4 * error).all()


def test_spawned_chains_with_every_law(monkeypatch):
    """Chains are processes of their own: laws, metrics and models pass by pickle and by name."""
    # Pyro runs chains one after the other in this very process where it counts fewer cores than chains
    monkeypatch.setattr(torch.multiprocessing, "cpu_count", lambda: 3)
    mcmc = MCMC(
        NUTS(all_four, max_tree_depth=2),
        num_samples=4,
        warmup_steps=4,
        num_chains=2,
        mp_context="spawn",
        disable_progbar=True,
    )
    mcmc.run()
    for name, draws in mcmc.get_samples(group_by_chain=True).items():
        assert draws.shape == (2, 4, 2)
        assert law(name).support.check(draws).all()
        assert len({tuple(chain[-1].tolist()) for chain in draws}) == 2


def test_no_chain_starts_on_an_unbounded_set():
    """Improper: NUTS would run to infinity without one divergence, so the law itself refuses."""
    with pytest.raises(ValueError, match="improper"):
        RiemannianUniform(EuclideanMetric(2), -math.inf, math.inf)
