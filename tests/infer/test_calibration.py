"""Simulation-based calibration (Talts et al. 2018): prior -> data -> NUTS -> uniform ranks."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from scipy import stats

from tests.infer.models import DTYPE, NOISE, kernel, law, replications


def ranks(name: str, problems: int, thin: int, kept: int, warmup: int = 150) -> torch.Tensor:
    """Rank of the truth among ``kept`` posterior draws, for both coordinates and the prior's log density."""
    pyro.set_rng_seed(1)
    prior = law(name, kernel() if name == "uniform" else None, torch.tensor(0.2, dtype=DTYPE))
    with torch.no_grad():
        truth = prior.sample((problems,))
    data = truth + NOISE * torch.randn(problems, 2, dtype=DTYPE)
    nuts = NUTS(partial(replications, name), jit_compile=True, ignore_jit_warnings=True, max_tree_depth=6)
    mcmc = MCMC(nuts, num_samples=thin * kept, warmup_steps=warmup, disable_progbar=True)
    mcmc.run(data)
    draws = mcmc.get_samples()["z"][::thin]
    with torch.no_grad():
        seen = torch.cat([draws, prior.log_prob(draws).unsqueeze(-1)], dim=-1)
        own = torch.cat([truth, prior.log_prob(truth).unsqueeze(-1)], dim=-1)
    return (seen < own).sum(0)


def assert_uniform(rank: torch.Tensor, kept: int, bins: int) -> None:
    for statistic in rank.unbind(-1):
        counts = torch.bincount(statistic * bins // (kept + 1), minlength=bins)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_ranks_are_uniform(name):
    assert_uniform(ranks(name, problems=100, thin=3, kept=23, warmup=60), kept=23, bins=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "wrapped normal"])
def test_ranks_are_uniform_at_length(name):
    assert_uniform(ranks(name, problems=400, thin=5, kept=59), kept=59, bins=20)
