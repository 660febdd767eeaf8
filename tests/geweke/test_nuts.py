"""Joint-distribution tests of NUTS on our laws, in Pyro: one transition and new data in turn."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from torch.distributions import biject_to

from tests.geweke.test_samplers import LEAST, smallest
from tests.infer import models

PROBLEMS, TURNS = 200, 6
NAMES = ("normal", "wrapped normal", "uniform")
FIXED = {"step_size": 0.25, "adapt_step_size": False, "adapt_mass_matrix": False}


def by_pyro(name: str) -> float:
    """Independent problems in a plate, each a point with a datum."""
    pyro.set_rng_seed(1)
    prior = models.law(name, models.kernel() if name == "uniform" else None)
    with torch.no_grad():
        z, reference = prior.sample((PROBLEMS,)), prior.sample((4000,))
    for _ in range(TURNS):
        data = z + models.NOISE * torch.randn_like(z)
        kernel = NUTS(partial(models.replications, name), max_tree_depth=5, **FIXED)
        start = {"z": biject_to(prior.support).inv(z)}
        mcmc = MCMC(kernel, num_samples=1, warmup_steps=0, initial_params=start, disable_progbar=True)
        mcmc.run(data)
        z = mcmc.get_samples()["z"][0]
    return smallest(z, reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nuts_of_pyro_keeps_the_joint_law(name: str) -> None:
    assert by_pyro(name) > LEAST
