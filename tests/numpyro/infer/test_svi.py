"""Stochastic variational inference: autoguides, guides by hand, plates, subsamples, predictions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import Array
from numpyro.distributions import constraints
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoBNAFNormal, AutoLaplaceApproximation, AutoNormal
from numpyro.optim import Adam

from pyro_riemann.numpyro import Sphere
from tests.numpyro.infer.models import CENTRE, LAWS, NOISE, law, local_guide, local_model, model, observations

KEY = jax.random.PRNGKey(0)


def prior() -> None:
    for name in LAWS:
        numpyro.sample(name, law(name))


# one law on both sides: what is not normalised cancels
@pytest.mark.filterwarnings("ignore:A RiemannianHeatKernel gives the density of its own draw:UserWarning")
@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceMeanField_ELBO()], ids=lambda elbo: type(elbo).__name__)
def test_loss_is_zero_where_guide_and_model_agree(elbo: Any) -> None:
    """One law on both sides: every sample of the log ratio is 0, and so is the divergence of a law from itself."""
    assert abs(elbo.loss(KEY, {}, prior, prior)) < 1e-8


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, Any]:
    """Twelve data and the result of SVI on subsamples of four."""
    data = observations(12)
    return data, SVI(local_model, local_guide, Adam(0.05), Trace_ELBO()).run(KEY, 400, data, 4, progress_bar=False)


def test_loss_of_a_subsample_is_unbiased(fitted: tuple[np.ndarray, Any]) -> None:
    """Mean loss of subsamples against that of all data, within four standard errors; both far below the start."""
    data, found = fitted

    @partial(jax.jit, static_argnums=1)
    @partial(jax.vmap, in_axes=(0, None))
    def losses(key: Array, size: int | None) -> Array:
        loss: Array = Trace_ELBO().loss(key, found.params, local_model, local_guide, data, size)
        return loss

    whole = losses(jax.random.split(KEY, 400), None)
    part = losses(jax.random.split(jax.random.PRNGKey(1), 400), 4)
    assert abs(whole.mean() - part.mean()) < 4 * jnp.sqrt((whole.var() + part.var()) / 400)
    assert whole.mean() < found.losses[:5].mean() - 5


def test_predictive_draws_from_prior_and_posterior(fitted: tuple[np.ndarray, Any]) -> None:
    data, found = fitted
    drawn = Predictive(local_model, num_samples=300)(KEY, data)
    learned = Predictive(local_guide, params=found.params, num_samples=300)(KEY, data)
    for name in LAWS:
        assert drawn[name].shape == learned[name].shape == (300, 12, 2)
        assert law(name).support(drawn[name]).all()
        assert law(name).support(learned[name]).all()
        own = law(name).sample(jax.random.PRNGKey(1), (2000,))
        error = jnp.sqrt(drawn[name].var((0, 1)) / 3600 + own.var(0) / 2000)
        assert (abs(drawn[name].mean((0, 1)) - own.mean(0)) < 4 * error).all()
        # each centre has moved from the prior's towards its datum
        offset = data - CENTRE
        moved = ((learned[name].mean(0) - CENTRE) * offset).sum(-1) / (offset**2).sum(-1)
        assert 0.1 < np.median(moved) < 1


AUTOGUIDES: dict[str, Callable[[Any], Any]] = {
    "normal": AutoNormal,
    "Laplace": AutoLaplaceApproximation,
    "flow": partial(AutoBNAFNormal, num_flows=1),
}


@pytest.mark.parametrize(
    "autoguide", ["normal", *(pytest.param(x, marks=pytest.mark.slow) for x in ("Laplace", "flow"))]
)
def test_autoguide_finds_the_posterior(autoguide: str) -> None:
    """Its draws lie in the support and come to the mean of the data, which outweigh the prior."""
    data = observations(40)
    one = AUTOGUIDES[autoguide](model)
    found = SVI(model, one, Adam(0.02), Trace_ELBO()).run(KEY, 600, data, progress_bar=False)
    for name, draws in one.sample_posterior(KEY, found.params, sample_shape=(500,)).items():
        assert law(name).support(draws).all()
        np.testing.assert_allclose(draws.mean(0), data.mean(0), atol=0.12)
        np.testing.assert_allclose(draws.std(0), NOISE / np.sqrt(40), rtol=0.4)


def test_prior_time_is_learned() -> None:
    """Gradients flow to a law's parameters in the model: time goes to the mean squared distance / d."""
    points = jnp.array([[0.3, 0.0], [0.1, 0.3], [-0.2, -0.4]])

    def learned() -> None:
        time = numpyro.param("time", jnp.asarray(1.0), constraint=constraints.positive)
        with numpyro.plate("data", 3):
            numpyro.sample("z", law("heat kernel", spread=time), obs=points)

    found = SVI(learned, lambda: None, Adam(0.05), Trace_ELBO()).run(KEY, 400, progress_bar=False)
    squared = Sphere(2).squared_dist(jnp.asarray(CENTRE), points)
    np.testing.assert_allclose(found.params["time"], squared.mean() / 2, rtol=1e-2)
