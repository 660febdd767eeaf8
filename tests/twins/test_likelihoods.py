"""Likelihoods of both faces: the same densities, means, starts, features and refusals."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pyro_riemann.numpyro.vae as twins
from pyro_riemann.numpyro import to_numpyro
from tests.vae.test_likelihoods import CASES, OUTPUT, REFUSED, TOTAL_COUNT, D

RANDOM = np.random.default_rng(0)
DATA = {
    "gaussian": RANDOM.normal(size=(50, D)),
    "gaussian, sigmoid": RANDOM.uniform(size=(50, D)),
    "bernoulli": RANDOM.integers(0, 2, (50, D)),
    "categorical": RANDOM.integers(0, 3, (50, 2)),
    "poisson": RANDOM.poisson(2.0, (50, D)) + 1,
    "negative binomial": RANDOM.poisson(2.0, (50, D)),
}


def pair(name: str) -> tuple[Any, Any, Any, Any]:
    ours, output, x, _ = copy.deepcopy(CASES[name])
    return ours.double(), to_numpyro(ours.double()), output, x


@pytest.mark.parametrize("name", CASES)
def test_densities_means_and_checks_are_the_same(name: str) -> None:
    ours, twin, output, x = pair(name)
    there = jnp.asarray(output.numpy())
    datum = jnp.asarray(x.numpy().astype(int) if name == "categorical" else x.numpy())
    law = twin.distribution(there)
    assert law.batch_shape == (2,)
    expected = ours.distribution(output)
    np.testing.assert_allclose(law.log_prob(datum), expected.log_prob(x).detach(), rtol=1e-12)
    np.testing.assert_allclose(twin.mean(there), ours.mean(output).detach(), rtol=1e-12)
    np.testing.assert_allclose(twin.features()(datum), ours.features()(x), rtol=1e-12)
    assert twin.check("x", datum) is datum
    assert twin.num_outputs(5) == ours.num_outputs(5)


@pytest.mark.parametrize("name", DATA)
def test_they_start_at_the_same_marginal_law(name: str) -> None:
    ours, twin, _, _ = pair(name)
    start, unit = ours.standardize(torch.from_numpy(DATA[name]).double())
    begun, there, scale = twin.standardize(jnp.asarray(DATA[name]))
    np.testing.assert_allclose(there, start, rtol=1e-12)
    np.testing.assert_allclose(scale, unit, rtol=1e-12)
    np.testing.assert_allclose(begun.mean(there), ours.mean(start).detach(), rtol=1e-12)
    if name == "gaussian":
        np.testing.assert_allclose(begun.scale, ours.scale.detach(), rtol=1e-6)  # a parameter in float32


@pytest.mark.parametrize("make", [twins.PoissonLikelihood, twins.NegativeBinomialLikelihood])
def test_exposure_multiplies_the_mean_and_scales_nothing_else(make: Any) -> None:
    likelihood = make(exposure="total")
    x, output = jnp.asarray(CASES["poisson"][2].numpy()), jnp.asarray(OUTPUT.numpy())
    exposure = likelihood.exposure(x)
    np.testing.assert_array_equal(exposure, [[13.0], [3.0]])
    law = likelihood.distribution(output, exposure)
    np.testing.assert_allclose(law.mean, exposure * jnp.exp(output))
    np.testing.assert_allclose(law.log_prob(x), make().distribution(output + jnp.log(exposure)).log_prob(x))
    begun, _, _ = likelihood.standardize(x)
    np.testing.assert_allclose(begun.distribution(output).mean, 8 * jnp.exp(output))  # the mean of both


@pytest.mark.parametrize(("ours", "value", "match"), REFUSED)
def test_data_that_no_law_gives_are_refused_by_name(ours: Any, value: float, match: str) -> None:
    twin = to_numpyro(ours, dtype=jnp.float64)
    data = jnp.ones((10, D)).at[4].set(value)
    with pytest.raises(ValueError, match=rf"`data` has \d+ of \d+ values {match}"):
        twin.check("data", data)
    jax.jit(lambda x: twin.check("data", x))(data)  # where values are not known, nothing is said


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: twins.GaussianLikelihood(0.0), "scale"),
        (lambda: twins.GaussianLikelihood(link="tanh"), "link"),
        (lambda: twins.CategoricalLikelihood(1), "num_categories"),
        (lambda: twins.NegativeBinomialLikelihood(-1.0), "total_count"),
        (lambda: twins.PoissonLikelihood("size"), "exposure"),
    ],
)
def test_bad_arguments(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_what_is_not_learned_has_no_gradient() -> None:
    output, x = jnp.asarray(OUTPUT.numpy()), jnp.asarray(CASES["poisson"][2].numpy())

    def slope(likelihood: Any) -> Any:
        return jax.grad(lambda law: law.distribution(output).log_prob(x).sum())(likelihood)

    learned = slope(twins.NegativeBinomialLikelihood(jnp.asarray(TOTAL_COUNT.numpy())))
    assert (learned.log_total_count != 0).all()
    assert learned.reference == 0
    assert (slope(twins.NegativeBinomialLikelihood(3.0, learn_total_count=False)).log_total_count == 0).all()
    assert slope(twins.GaussianLikelihood(0.3)).log_scale != 0
    assert slope(twins.GaussianLikelihood(0.3, learn_scale=False)).log_scale == 0
