"""Markov chain Monte Carlo with every law, judged by quadrature on a grid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import Array
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import HMC, MCMC, NUTS

from pyro_riemann.numpyro import EuclideanMetric, PullbackMetric, RiemannianUniform, summary
from tests.numpyro.infer.models import CENTRE, LAWS, NOISE, kernel, law, model, observations

pytestmark = pytest.mark.usefixtures("optimised")


def grid_moments(log_density: Callable[[Array], Array], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of z and of z^2 by the midpoint rule on 200 x 200 cells."""
    axis = reach * ((np.arange(200) + 0.5) / 100 - 1)
    points = np.stack(np.meshgrid(CENTRE[0] + axis, CENTRE[1] + axis, indexing="ij"), -1).reshape(-1, 2)
    weights = np.asarray(jax.nn.softmax(log_density(jnp.asarray(points))))
    return weights @ points, weights @ points**2


def assert_moments(draws: Any, moments: tuple[np.ndarray, np.ndarray], independent: bool = False) -> None:
    """Draws ``(chains, n, d)`` have these first and second moments, within four standard errors by the ESS."""
    draws = np.asarray(draws)
    for statistic, exact in ((draws, moments[0]), (draws**2, moments[1])):
        size = statistic[..., 0].size if independent else effective_sample_size(statistic)
        error = statistic.std((0, 1)) / np.sqrt(size)
        assert (abs(statistic.mean((0, 1)) - exact) < 4 * error).all()


def posterior_moments(name: str, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prior = law(name)

    def log_density(z: Array) -> Array:
        return prior.log_prob(z) - 0.5 * (((data - z[:, None]) / NOISE) ** 2).sum((-1, -2))

    return grid_moments(log_density, 1.0 if name == "uniform" else 1.5)


@pytest.fixture(scope="module", params=["NUTS", pytest.param("HMC", marks=pytest.mark.slow)])
def chains(request: pytest.FixtureRequest) -> dict[str, Array]:
    """Four vectorised chains of the model that has all four laws: the problems are independent."""
    kernels = {"NUTS": partial(NUTS, max_tree_depth=6), "HMC": partial(HMC, trajectory_length=1.2)}
    mcmc = MCMC(
        kernels[request.param](model),
        num_warmup=150,
        num_samples=1000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(0), observations())
    draws: dict[str, Array] = mcmc.get_samples(group_by_chain=True)
    return draws


@pytest.mark.parametrize("name", LAWS)
def test_posterior_agrees_with_quadrature(name: str, chains: dict[str, Array]) -> None:
    assert (summary(chains[name])["r_hat"] <= 1.02).all()
    assert_moments(chains[name], posterior_moments(name, observations()))


def test_nuts_and_our_samplers_agree_with_quadrature() -> None:
    """Four chains: R-hat at most 1.01, moments within four standard errors; our own samplers the same."""
    laws = {"uniform": law("uniform", kernel()), "normal": law("normal")}

    def both() -> None:
        for name, one in laws.items():
            numpyro.sample(name, one)

    mcmc = MCMC(
        NUTS(both), num_warmup=200, num_samples=1500, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(1))
    table = summary(mcmc)
    assert (table["r_hat"] <= 1.01).all()
    assert table.divergences == 0
    for name, one in laws.items():
        moments = grid_moments(one.log_prob, 1.0 if name == "uniform" else 4.0)
        assert_moments(mcmc.get_samples(group_by_chain=True)[name], moments)
        assert_moments(one.sample(jax.random.PRNGKey(2), (4, 2000)), moments, independent=True)


def test_geodesics_are_judged_as_users_get_them_with_all_attempts() -> None:
    metric = PullbackMetric(lambda z: jnp.concatenate([z, 0.6 * jnp.sin(3 * z)], -1), 2)
    z = np.random.default_rng(0).normal(size=(4, 20, 2))
    settings: dict[str, Any] = {"num_knots": 16, "num_segments": 64, "init": "graph", "on_failure": "ignore"}
    assert not metric.geodesic(jnp.asarray(z[:2]), jnp.asarray(z[2:]), **settings).converged.all()
    assert summary({"z": z}, metric, num_geodesics=20).converged_share == 1.0


def test_thousands_of_chains_in_one_program() -> None:
    """2,000 short chains by ``vmap``: their last states are independent draws."""
    one = law("uniform", kernel())

    def chain(key: Array) -> Array:
        hmc = HMC(lambda: numpyro.sample("z", one), num_steps=8, trajectory_length=None)
        mcmc = MCMC(hmc, num_warmup=50, num_samples=5, progress_bar=False)
        mcmc.run(key)
        draws: Array = mcmc.get_samples()["z"]
        return draws[-1]

    last = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.PRNGKey(3), 2000))
    assert last.shape == (2000, 2)
    assert_moments(last[None], grid_moments(one.log_prob, 1.0), independent=True)


CHAIN_METHODS = """
import json, sys
import jax
from numpyro.infer import HMC, MCMC, NUTS
from functools import partial
from tests.numpyro.infer.models import model, observations

jax.config.update("jax_enable_x64", True)
found = {"devices": jax.local_device_count()}
model = partial(model, names=("heat kernel", "uniform"))
nuts, hmc = NUTS(model, max_tree_depth=3), HMC(model, step_size=0.1, num_steps=4, trajectory_length=None)
sampler = nuts if sys.argv[1] == "NUTS" else hmc
for method in ("sequential", "parallel", "vectorized"):
    mcmc = MCMC(sampler, num_warmup=10, num_samples=10, num_chains=2, chain_method=method, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(0), observations())
    found[method] = {name: draws.tolist() for name, draws in mcmc.get_samples(group_by_chain=True).items()}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["HMC", "NUTS"])
def test_chain_methods_give_the_same_chains(sampler: str) -> None:
    """Two chains one after the other, on two devices, and side by side in one program."""
    flags = f"--xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", CHAIN_METHODS, sampler]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["devices"] == 2
    for name in ("heat kernel", "uniform"):
        sequential = np.array(found["sequential"][name])
        assert sequential.shape == (2, 10, 2)
        assert not np.allclose(sequential[0], sequential[1])
        np.testing.assert_allclose(np.array(found["parallel"][name]), sequential, atol=1e-6)
        assert law(name).support(jnp.array(found["vectorized"][name])).all()


def test_no_chain_starts_on_an_unbounded_set() -> None:
    """Improper: NUTS would run to infinity without one divergence, so the law itself refuses."""
    with pytest.raises(ValueError, match="improper"):
        RiemannianUniform(EuclideanMetric(2), -jnp.inf, jnp.inf)
