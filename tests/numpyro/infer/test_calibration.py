"""Simulation-based calibration (Talts et al. 2018): prior -> data -> NUTS -> uniform ranks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from pyro_riemann.numpyro import Sphere
from tests.numpyro.infer.models import NOISE, kernel, law, replications

pytestmark = pytest.mark.usefixtures("optimised")


def ranks(name: str, problems: int, thin: int, kept: int) -> np.ndarray:
    """Rank of the truth among ``kept`` posterior draws, for both coordinates and the prior's log density."""
    prior = law(name, kernel() if name == "uniform" else Sphere(2))
    first, second, third = jax.random.split(jax.random.PRNGKey(1), 3)
    truth = prior.sample(first, (problems,))
    data = truth + NOISE * jax.random.normal(second, truth.shape)
    mcmc = MCMC(
        NUTS(partial(replications, name), max_tree_depth=6),
        num_warmup=150,
        num_samples=thin * kept,
        thinning=thin,
        progress_bar=False,
    )
    mcmc.run(third, data)
    draws = mcmc.get_samples()["z"]

    def seen(z: jax.Array) -> jax.Array:
        return jnp.concat([z, prior.log_prob(z)[..., None]], axis=-1)

    return np.asarray((seen(draws) < seen(truth)).sum(0))


def assert_uniform(rank: np.ndarray, kept: int, bins: int) -> None:
    for statistic in rank.T:
        counts = np.bincount(statistic * bins // (kept + 1), minlength=bins)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("name", ["uniform", pytest.param("normal", marks=pytest.mark.slow)])
def test_ranks_are_uniform(name: str) -> None:
    assert_uniform(ranks(name, problems=200, thin=3, kept=39), kept=39, bins=10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "wrapped normal"])
def test_ranks_are_uniform_at_length(name: str) -> None:
    assert_uniform(ranks(name, problems=600, thin=5, kept=59), kept=59, bins=20)
