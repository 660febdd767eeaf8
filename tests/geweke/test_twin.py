"""The same of the twin: its samplers, and NUTS of NumPyro on its laws, one chain for each problem by ``vmap``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import torch
from jax import Array
from numpyro.distributions import biject_to
from numpyro.infer.hmc import hmc
from numpyro.infer.util import potential_energy
from torch import Tensor

from pyro_riemann.numpyro import RiemannianNormal, RiemannianWrappedNormal, Sphere, brownian_motion, to_numpyro
from pyro_riemann.numpyro.sampling import sample_uniform
from tests.geweke import test_uniform as uniform
from tests.geweke.test_samplers import LEAST, smallest
from tests.numpyro.infer import models
from tests.precision import enable_x64

CHAINS, TURNS = 4000, 4
NAMES = ("normal", "wrapped normal", "uniform")
Step = Callable[[Array, Array], Array]


@pytest.fixture(scope="module", autouse=True)
def double_precision() -> Iterator[None]:
    """float64 for this module."""
    with enable_x64(True):
        yield
    jax.clear_caches()


def alternated(step: Step, start: Array, reference: Array) -> float:
    """Points and centres, or points and data, in turn, all chains at a time."""
    turn, z = jax.jit(step), start
    for key in jax.random.split(jax.random.key(0), TURNS):
        z = turn(z, key)
    return smallest(z, reference)


# ---------------------------------------------------------------- NUTS


def nuts_turn(name: str, damage: float) -> tuple[Step, Any]:
    """New data of each point, then one transition with these; and the law.

    With ``damage`` NUTS is told of noise that is so much less.
    """
    law = models.law(name, models.kernel() if name == "uniform" else None)
    onto = biject_to(law.support)

    def model(x: Array) -> None:
        z = numpyro.sample("z", law)
        numpyro.sample("x", dist.Normal(z, models.NOISE * (1 - damage)).to_event(1), obs=x)

    def of_one(z: Array, key: Array) -> Array:
        first, second = jax.random.split(key)
        x = z + models.NOISE * jax.random.normal(first, z.shape)
        init, transition = hmc(partial(potential_energy, model, (x,), {}), algo="NUTS")
        fixed = {"step_size": 0.25, "adapt_step_size": False, "adapt_mass_matrix": False, "max_tree_depth": 5}
        state = init({"z": onto.inv(z)}, num_warmup=0, rng_key=second, **fixed)
        return onto(transition(state).z["z"])

    return lambda z, key: jax.vmap(of_one)(z, jax.random.split(key, len(z))), law


def nuts(name: str, damage: float = 0.0) -> float:
    step, law = nuts_turn(name, damage)
    first, second = jax.random.split(jax.random.key(1))
    return alternated(step, law.sample(first, (CHAINS,)), law.sample(second, (CHAINS,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nuts_of_numpyro_keeps_the_joint_law(name: str) -> None:
    assert nuts(name) > LEAST


@pytest.mark.slow
def test_a_wrong_likelihood_is_found_out() -> None:
    assert nuts("wrapped normal", damage=0.5) < LEAST


# ---------------------------------------------------------------- laws on the sphere, where both conditionals are one


def on_the_sphere(step: Step, chains: int = CHAINS) -> float:
    """In the coordinates of space; starts and reference are uniform."""
    sphere = Sphere(2)
    v = np.random.default_rng(0).normal(size=(2, chains, 3))
    start, reference = v / np.linalg.norm(v, axis=-1, keepdims=True)

    def turn(x: Array, key: Array) -> Array:
        return sphere.to_ambient(step(sphere.from_ambient(x), key))

    return alternated(turn, jnp.asarray(start), jnp.asarray(reference))


def test_the_sampler_of_the_normal_keeps_the_joint_law() -> None:
    """Every centre has a table of its own."""
    assert on_the_sphere(lambda z, key: RiemannianNormal(z, 0.6, Sphere(2)).sample(key), 1000) > LEAST


def test_the_sampler_of_the_wrapped_normal_keeps_the_joint_law() -> None:
    """Its density depends on the distance alone, so that it is symmetric as well."""
    assert on_the_sphere(lambda z, key: RiemannianWrappedNormal(z, 0.5, Sphere(2)).sample(key)) > LEAST


def test_brownian_motion_keeps_the_joint_law() -> None:
    assert on_the_sphere(lambda z, key: brownian_motion(Sphere(2), z, 0.3, 16, key=key)) > LEAST


def test_brownian_motion_without_its_drift_is_found_out() -> None:
    sphere = Sphere(2)
    assert on_the_sphere(lambda z, key: sphere.expmap(z, 0.5 * jax.random.normal(key, z.shape))) < LEAST


# ---------------------------------------------------------------- the uniform law


@pytest.mark.slow
@pytest.mark.parametrize("method", ["table", "importance", "tempered"])
def test_the_samplers_of_the_uniform_law_keep_the_joint_law(method: str) -> None:
    twins = [to_numpyro(metric) for metric in uniform.metrics()]

    def draws(k: int, count: int, seed: int) -> Tensor:
        key = jax.random.key(seed)
        found = sample_uniform(twins[k], count, uniform.LOW, uniform.HIGH, method=method, key=key)
        return torch.as_tensor(np.array(found.draws))

    assert uniform.alternated(draws) > LEAST
