"""Joint-distribution tests of NUTS on our laws, in Pyro and NumPyro: one transition and new data in turn."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from torch.distributions import biject_to

from tests.geweke.test_samplers import LEAST, smallest
from tests.infer import models
from tests.numpyro.infer import models as twin_models
from tests.precision import enable_x64

PROBLEMS, TURNS = 200, 6
NAMES = ("normal", "wrapped normal", "uniform")
FIXED = {"step_size": 0.25, "adapt_step_size": False, "adapt_mass_matrix": False}


def by_pyro(name: str, noise: float = models.NOISE) -> float:
    """Independent problems in a plate, each a point with a datum."""
    pyro.set_rng_seed(1)
    prior = models.law(name, models.kernel() if name == "uniform" else None)
    with torch.no_grad():
        z, reference = prior.sample((PROBLEMS,)), prior.sample((4000,))
    for _ in range(TURNS):
        data = z + noise * torch.randn_like(z)
        kernel = NUTS(partial(models.replications, name), max_tree_depth=5, **FIXED)
        start = {"z": biject_to(prior.support).inv(z)}
        mcmc = MCMC(kernel, num_samples=1, warmup_steps=0, initial_params=start, disable_progbar=True)
        mcmc.run(data)
        z = mcmc.get_samples()["z"][0]
    return smallest(z, reference)


def by_numpyro(name: str) -> float:
    prior = twin_models.law(name, twin_models.kernel() if name == "uniform" else None)
    first, second, third = jax.random.split(jax.random.key(1), 3)
    z, reference = prior.sample(first, (PROBLEMS,)), prior.sample(second, (4000,))
    to_chart = numpyro.distributions.transforms.biject_to(prior.support)
    kernel = numpyro.infer.NUTS(partial(twin_models.replications, name), max_tree_depth=5, **FIXED)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=0, num_samples=1, progress_bar=False)
    for key in jax.random.split(third, TURNS):
        noise, move = jax.random.split(key)
        data = z + twin_models.NOISE * jax.random.normal(noise, z.shape)
        mcmc.run(move, data, init_params={"z": to_chart.inv(z)})
        z = jnp.asarray(mcmc.get_samples()["z"][0])
    return smallest(np.asarray(z), np.asarray(reference))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nuts_of_pyro_keeps_the_joint_law(name: str) -> None:
    assert by_pyro(name) > LEAST


@pytest.mark.slow
def test_other_data_than_the_model_s_are_found_out() -> None:
    assert by_pyro("normal", noise=5 * models.NOISE) < LEAST


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nuts_of_numpyro_keeps_the_joint_law(name: str) -> None:
    with enable_x64(True):
        assert by_numpyro(name) > LEAST
    jax.clear_caches()
