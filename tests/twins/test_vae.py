"""VAEs of both faces: with the same weights and noise the same evidence bound, gradients and metric."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.optim import Adam
from pyro import poutine
from torch import Tensor

import pyro_riemann.vae as ours
from pyro_riemann import PullbackMetric
from pyro_riemann.numpyro import PullbackMetric as TwinMetric
from pyro_riemann.numpyro import to_numpyro
from pyro_riemann.vae._phases import start_phase_one

N, D = 7, 5
RANDOM = np.random.default_rng(0)
REAL, COUNTS = RANDOM.normal(size=(N, D)), RANDOM.poisson(3.0, (N, D)) + 1.0
CASES: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "gaussian": ({"likelihood": "gaussian"}, REAL),
    "precision network": ({}, REAL),
    "sigmoid": ({"output": "sigmoid"}, 1 / (1 + np.exp(-REAL))),
    "bernoulli": ({"likelihood": "bernoulli"}, (REAL > 0) * 1.0),
    "categorical": ({"likelihood": ours.CategoricalLikelihood(3)}, (REAL > -0.3) + (REAL > 0.4) * 1.0),
    "poisson": ({"likelihood": ours.PoissonLikelihood("total")}, COUNTS),
    "negative binomial": ({"likelihood": "negative_binomial"}, COUNTS),
    "vamp": ({"likelihood": "gaussian", "prior": "vamp", "pseudo_inputs": torch.from_numpy(REAL[:3])}, REAL),
    "heat kernel": ({"prior": "heat_kernel"}, REAL),
}


def make(settings: dict[str, Any], data: Tensor) -> ours.VAE:
    given = {"prior": "normal", "hidden": (6,), "num_centers": 4, "seed": 0} | settings
    vae = ours.make_vae(D, 2, posterior="normal", **given).double()
    start_phase_one(vae, data)
    if isinstance(vae.decoder, ours.GaussianDecoder):
        generator = torch.Generator().manual_seed(0)
        vae.decoder.std.fit(torch.randn(30, 2, generator=generator, dtype=torch.float64))
    vae.refresh_metric()
    return vae


STAGES = [*((name, False) for name in CASES), ("precision network", True), ("heat kernel", True)]


@pytest.mark.parametrize(("name", "warm_up"), STAGES)
def test_the_same_bound_and_gradient_with_the_same_noise(name: str, warm_up: bool) -> None:
    settings, rows = CASES[name]
    data, weight, size = torch.from_numpy(rows), 0.3, 3 * N
    vae = make(settings, data)
    vae.warm_up = warm_up
    twin = to_numpyro(vae)
    assert twin.warm_up == warm_up
    z = vae.posterior(data).rsample()

    def bound(model: Any, z: Any) -> Any:
        log_joint = handlers.trace(handlers.substitute(model.model, {"z": z})).get_trace(x, size, weight)
        log_guide = handlers.trace(handlers.substitute(model.guide, {"z": z})).get_trace(x, size, weight)
        terms = [
            sign * site["scale"] * site["fn"].log_prob(site["value"])
            for sign, trace in ((1, log_joint), (-1, log_guide))
            for site in trace.values()
            if site["type"] == "sample"
        ]
        return sum(term.sum() for term in terms)

    x = jnp.asarray(rows)
    value, slope = jax.value_and_grad(bound)(twin, jnp.asarray(z.detach().numpy()))
    z = z.detach()
    model, guide = (
        poutine.trace(poutine.condition(part, data={"z": z})).get_trace(data, size, weight)
        for part in (vae.model, vae.guide)
    )
    expected = model.log_prob_sum() - guide.log_prob_sum()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-8)

    expected.backward()
    weights = slope.encoder.loc.layers[0].weight, slope.encoder.spread.layers[0].weight
    for mine, theirs in zip(weights, (vae.encoder.loc[0].weight, vae.encoder.spread[0].weight), strict=True):
        np.testing.assert_allclose(mine, theirs.grad, rtol=1e-6, atol=1e-8)
    network = vae.decoder.mean if isinstance(vae.decoder, ours.GaussianDecoder) else vae.decoder.network
    here = slope.decoder.mean if isinstance(vae.decoder, ours.GaussianDecoder) else slope.decoder.network
    np.testing.assert_allclose(here.layers[0].weight, network[0].weight.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["sigmoid", "precision network", "categorical", "negative binomial"])
def test_codes_and_metrics_are_the_same(name: str) -> None:
    settings, rows = CASES[name]
    data = torch.from_numpy(rows)
    vae = make(settings, data)
    twin = to_numpyro(vae)
    x = jnp.asarray(rows)
    codes = vae.encode(data)
    np.testing.assert_allclose(twin.encode(x), codes.detach(), rtol=1e-10)
    z = jnp.asarray(codes.detach().numpy())
    expected = PullbackMetric(vae.decoder, 2).metric(codes).detach()
    np.testing.assert_allclose(TwinMetric(twin.decoder, 2).metric(z), expected, rtol=1e-7)
    np.testing.assert_allclose(twin.metric.metric(z), expected, rtol=1e-7)


def test_the_pair_is_one_for_svi() -> None:
    """A bound by SVI, in the mean over its noise, is that of the other face; the parameter is the model."""
    settings, rows = CASES["gaussian"]
    vae = make(settings, torch.from_numpy(rows))
    twin = to_numpyro(vae)
    svi = SVI(twin.model, twin.guide, Adam(1e-3), Trace_ELBO())
    state = svi.init(jax.random.key(0), jnp.asarray(rows))
    assert jax.tree.structure(svi.get_params(state)["vae"]) == jax.tree.structure(twin)

    def loss(key: Any) -> Any:
        return svi.evaluate(state._replace(rng_key=key), jnp.asarray(rows))

    losses = np.asarray(jax.jit(jax.vmap(loss))(jax.random.split(jax.random.key(1), 1000)))
    terms = ours.elbo_terms(vae, torch.from_numpy(rows), num_samples=1000).elbo
    assert abs(losses.mean() + float(terms.sum())) < 5 * (2 / 1000) ** 0.5 * losses.std()  # standard errors of both


def test_what_has_no_twin_is_refused() -> None:
    vae = ours.make_vae(D, 2, hidden=(4,), num_centers=3)
    with pytest.raises(TypeError, match=r"NormalPosterior, got one with .*WrappedNormalPosterior"):
        to_numpyro(vae)
    given = ours.make_vae(D, 2, posterior="normal", metric=PullbackMetric(vae.decoder, 2), hidden=(4,), num_centers=3)
    with pytest.raises(TypeError, match=r"metric of the decoder, got .*GivenMetric"):
        to_numpyro(given)
