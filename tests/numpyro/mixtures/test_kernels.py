"""Mixtures of exact heat kernels: those of the other face, their draws, and weights on held-out folds."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array

import pyro_riemann as here
from pyro_riemann.mixtures import HeatKernelMixture as TorchMixture
from pyro_riemann.numpyro import FlatTorus, Hyperbolic, KernelMetric, RiemannianMetric, Sphere, to_numpyro
from pyro_riemann.numpyro.mixtures import HeatKernelMixture, fit_kernels

SPHERE, KEY = Sphere(2), jax.random.key(0)
LOC = np.array([[0.0, 0.0], [1.0, 0.5], [-0.7, 0.6]])
TIME, WEIGHTS = np.array([[0.01], [0.05], [0.2]]), np.array([[0.5], [0.3], [0.2]])
PAIRS: list[tuple[RiemannianMetric, Any]] = [
    (SPHERE, here.Sphere(2)),
    (Hyperbolic(2), here.Hyperbolic(2)),
    (FlatTorus(2, 3.0), here.FlatTorus(2, 3.0)),
]


def truth() -> HeatKernelMixture:
    return HeatKernelMixture(jnp.asarray(LOC), jnp.asarray(TIME), jnp.log(jnp.asarray(WEIGHTS)), SPHERE)


@pytest.mark.parametrize(("metric", "other"), PAIRS, ids=["sphere", "hyperbolic", "torus"])
def test_density_is_that_of_the_other_face(metric: RiemannianMetric, other: Any) -> None:
    random = np.random.default_rng(0)
    loc, time = 0.4 * random.uniform(size=(30, 2)), np.logspace(-3, 1, 60).reshape(30, 2)
    logits = random.normal(size=(30, 2))
    logits[3, 1] = -np.inf
    z = 0.4 * random.uniform(size=(5, 4, 2))
    law = HeatKernelMixture(jnp.asarray(loc), jnp.asarray(time), jnp.asarray(logits), metric)
    here_too = torch.from_numpy(loc), torch.from_numpy(time), torch.from_numpy(logits)
    expected = TorchMixture(*here_too, other, cutoff=math.inf)
    np.testing.assert_array_equal(to_numpyro(expected).logits, law.logits)
    np.testing.assert_allclose(law.log_prob(jnp.asarray(z)), expected.log_prob(torch.from_numpy(z)), rtol=1e-8)


def test_draws_have_the_law() -> None:
    """Of a mixture of one kernel E cos l = exp(-t)."""
    law = HeatKernelMixture(jnp.asarray(LOC[1:2]), jnp.array([[0.3]]), jnp.zeros((1, 1)), SPHERE)
    draws = law.expand((3,)).sample(KEY, (1000,))
    assert draws.shape == (1000, 3, 2)
    cosine = jnp.cos(SPHERE.dist(draws, jnp.broadcast_to(jnp.asarray(LOC[1]), draws.shape)))
    assert abs(float(cosine.mean()) - math.exp(-0.3)) < 4 * float(cosine.std()) / 3000**0.5 + 0.01 * 0.3


def test_gradients_are_slopes() -> None:
    z = truth().sample(KEY, (20,))

    @jax.jit
    def value(step: Array) -> Array:
        law = truth()
        moved = HeatKernelMixture(
            law.loc + step, law.time * (1 + step), law.logits + jnp.arange(3.0)[:, None] * step, SPHERE
        )
        return moved.log_prob(z).mean()

    slope = (value(jnp.array(1e-5)) - value(jnp.array(-1e-5))) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(jnp.array(0.0)), slope, rtol=1e-6)


def test_kernels_on_points_predict() -> None:
    z, fresh = (truth().sample(key, (90,)) for key in jax.random.split(KEY))
    times, own = jnp.array([0.01, 0.05]), jnp.array([1.0])
    law = fit_kernels(z, SPHERE, times, KEY, background=40.0, num_groups=2, multiples=own, num_folds=3)
    assert law.time.shape == (90, 4)
    np.testing.assert_allclose(jnp.exp(law.log_weights).sum(), 1.0)
    exact, fitted = truth().log_prob(fresh).mean(), law.log_prob(fresh).mean()
    uniform = SPHERE.logdet(fresh).mean() / 2 - math.log(4 * math.pi)
    assert exact > fitted > exact - 0.6 > uniform


def test_equal_points_pull_the_weight_to_the_smallest_time() -> None:
    times = jnp.array([1e-6, 1e-2])
    z = truth().sample(KEY, (60,))
    law = fit_kernels(jnp.tile(z[:15], (4, 1)), SPHERE, times, KEY, num_groups=1, num_folds=4)
    assert jnp.exp(law.log_weights).sum(0)[0] > 0.8
    law = fit_kernels(z, SPHERE, times, KEY, num_groups=1, num_folds=4)
    assert jnp.exp(law.log_weights).sum(0)[0] < 1e-2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"metric": KernelMetric(jnp.ones((1, 2)), jnp.ones((1, 2)), 1.0)}, "exact heat kernel"),
        ({"metric": 2}, "metric"),
        ({"loc": LOC[0]}, "loc"),
        ({"time": TIME[:2]}, "time"),
        ({"time": -TIME}, "time"),
        ({"logits": WEIGHTS[:2]}, "logits"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], name: str) -> None:
    arguments: dict[str, Any] = {"loc": LOC, "time": TIME, "logits": WEIGHTS, "metric": SPHERE, **change}
    with pytest.raises((TypeError, ValueError), match=name):
        HeatKernelMixture(**arguments)


def test_bad_settings_of_the_fit_are_named() -> None:
    z, times = jnp.zeros((50, 2)), jnp.ones(2)
    with pytest.raises(ValueError, match="num_folds"):
        fit_kernels(z, SPHERE, times, KEY, num_folds=1)
    with pytest.raises(ValueError, match="points"):
        fit_kernels(z[:3], SPHERE, times, KEY)
    with pytest.raises(TypeError, match="key"):
        fit_kernels(z, SPHERE, times, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="under a transformation"):
        jax.jit(lambda z: fit_kernels(z, SPHERE, times, KEY).loc)(z)
