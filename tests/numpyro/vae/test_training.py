"""Training in NumPyro: as good as a textbook's VAE, in phases that leave alone what they do not train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array
from jax.tree_util import register_dataclass
from numpyro import distributions as dist
from numpyro.infer import Predictive, Trace_ELBO
from sklearn.datasets import load_digits

from pyro_riemann.numpyro import PullbackMetric
from pyro_riemann.numpyro.vae import (
    VAE,
    DecoderProtocol,
    EncoderProtocol,
    GaussianLikelihood,
    NormalPrior,
    RBFPrecision,
    TrainingConfig,
    make_vae,
)
from pyro_riemann.numpyro.vae import train as train_aloud
from pyro_riemann.numpyro.vae._training import _adam
from tests.vae.test_baseline import textbook_elbo

KEY = jax.random.key(0)
train = partial(train_aloud, progress=False)


@pytest.fixture(scope="module")
def arc() -> Array:
    """Points on a curve in four dimensions."""
    random = np.random.default_rng(0)
    t = 4 * random.uniform(size=200) - 2
    curve = np.stack([t, np.sin(t), np.cos(t), 0.3 * t**2], -1)
    return jnp.asarray(curve + 0.05 * random.normal(size=(200, 4)))


def test_as_good_as_a_textbook(optimised: None) -> None:
    digits = np.random.default_rng(0).permutation(load_digits().data / 16).astype(np.float32)
    data, test = digits[:1400], digits[1400:]
    expected = textbook_elbo(torch.from_numpy(data), torch.from_numpy(test), epochs=20, hidden=64)
    law = GaussianLikelihood(link="sigmoid")
    vae = make_vae(64, 2, likelihood=law, hidden=(64, 64), key=KEY)
    trained, history = train(vae, jnp.asarray(data), config=TrainingConfig(20, 0), key=KEY)
    loss = Trace_ELBO(20).loss(KEY, {}, trained.model, trained.guide, jnp.asarray(test))
    assert -float(loss) / len(test) > expected - 0.5
    assert history["elbo"][-1] > history["elbo"][12] > history["elbo"][0]
    z = trained.encode(jnp.asarray(test[:5]))
    jacobian = jax.vmap(jax.jacfwd(trained.decoder.mean))(z)
    fisher = jacobian.mT @ jacobian / trained.decoder.likelihood.scale**2
    np.testing.assert_allclose(PullbackMetric(trained.decoder, 2, jitter=0.0).metric(z), fisher, rtol=1e-6)


def test_steps_are_those_of_torch_adam() -> None:
    start, rates = np.array([1.0, -2.0]), {"a": 0.1, "b": 0.02}
    values = {name: torch.tensor(start, requires_grad=True) for name in rates}
    theirs = torch.optim.Adam([{"params": [values[name]], "lr": rate} for name, rate in rates.items()])
    ours = _adam(rates)
    state = ours.init_fn({name: jnp.asarray(start) for name in rates})
    for count in range(20):
        theirs.zero_grad()
        sum((value**4).sum() for value in values.values()).backward()  # type: ignore[union-attr]
        theirs.step()
        gradient = jax.tree.map(lambda value: 4 * value**3, ours.params_fn(state))
        state = ours.update_fn(count, gradient, state)
    for name, value in ours.params_fn(state).items():
        np.testing.assert_allclose(value, values[name].detach(), rtol=1e-10)


def test_phases_train_what_is_theirs(arc: Array) -> None:
    vae = make_vae(4, 1, "heat_kernel", hidden=(8,), num_centers=5, key=KEY)
    seen: list[Any] = []
    first, _ = train(vae, arc, config=TrainingConfig(3, 0, batch_size=64), key=KEY)
    config = TrainingConfig(3, 2, batch_size=64)
    both, history = train(vae, arc, config=config, key=KEY, callbacks=[seen.append])
    assert history["phase"] == [1, 1, 1, 2, 2]
    assert [record["epoch"] for record in seen] == [1, 2, 3, 1, 2]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first.encoder, both.encoder))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.decoder, both.decoder)
    assert jax.tree.all(same.mean)
    assert same.std.centers
    assert not same.std.log_weight
    assert not any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first.prior, both.prior)))
    # the prior begins at a code; its time is the mean squared distance to others, on a line an integral
    codes = first.encode(arc)
    assert bool((first.prior.loc == codes).all(-1).any())
    grid = jnp.linspace(codes.min(), codes.max(), 4001)
    speed = jnp.sqrt(first.metric.metric(grid[:, None])[:, 0, 0])
    length = jnp.append(0.0, jnp.cumsum((speed[1:] + speed[:-1]) / 2 * jnp.diff(grid)))
    place, at = (jnp.interp(z[..., 0], grid, length) for z in (first.prior.loc, codes[::3][:64]))
    np.testing.assert_allclose(first.prior.time, ((at - place) ** 2).mean(), rtol=0.1)  # by the solver of trainings
    assert (both.warm_up, both.frozen) == (False, ())
    assert vae.encoder.units.fitted is False


def test_frozen_groups_have_no_gradient(arc: Array) -> None:
    vae, _ = train(
        make_vae(4, 1, "vamp", likelihood="gaussian", hidden=(8,), key=KEY), arc, config=TrainingConfig(1, 0), key=KEY
    )
    vae.frozen = ("posterior", "decoder")
    slope = jax.grad(lambda model: Trace_ELBO().loss(KEY, {}, model.model, model.guide, arc))(vae)
    sizes = jax.tree.map(lambda value: float(jnp.abs(value).max()), slope)
    assert max(jax.tree.leaves((sizes.encoder.spread, sizes.encoder.units, sizes.decoder))) == 0
    assert min(jax.tree.leaves((sizes.encoder.loc, sizes.prior))) > 0


def test_the_precision_is_that_of_the_residuals() -> None:
    random = np.random.default_rng(1)
    codes = jnp.asarray(np.repeat([[-3.0, 0.0], [3.0, 0.0]], 500, 0) + 0.1 * random.normal(size=(1000, 2)))
    variance = np.repeat([[0.5, 2.0], [3.0, 0.2]], 500, 0)
    residuals = jnp.asarray(variance * random.chisquare(1, size=(1000, 2)))
    start = RBFPrecision(jnp.zeros((2, 2)), jnp.ones(2), jnp.zeros((2, 2)), min_scale=0.0)
    fitted = start.fit(codes, residuals, key=KEY)
    assert bool((jnp.abs(jnp.abs(fitted.centers) - jnp.array([3.0, 0.0])) < 0.05).all())
    radius = jnp.linalg.norm(codes[:500] - fitted.centers[fitted.centers[:, 0].argmin()], axis=-1).mean()
    np.testing.assert_allclose(fitted.bandwidth, 1.5 * radius, rtol=0.1)
    for place, group in ((-3.0, slice(500)), (3.0, slice(500, None))):
        centre = fitted.centers[jnp.abs(fitted.centers[:, 0] - place).argmin()]
        np.testing.assert_allclose(1 / (fitted.precision(centre) - 0.01), residuals[group].mean(0), rtol=0.05)
    assert (fitted.fit(codes, bandwidth=0.7, key=KEY).bandwidth == 0.7).all()


def test_early_stopping_and_the_best_weights(arc: Array) -> None:
    vae = make_vae(4, 1, likelihood="gaussian", hidden=(16,), key=KEY)
    config = TrainingConfig(60, batch_size=40, learning_rate=0.05, kl_ramp=0.0, patience=3)
    trained, history = train(vae, arc[:150], arc[150:], config, key=KEY)
    validation = history["validation"]
    best = int(np.argmax(validation))
    assert len(history) == best + 4 < 60
    shorter_config = dataclasses.replace(config, warm_up_epochs=best + 1)
    again, shorter = train(vae, arc[:150], arc[150:], shorter_config, key=KEY)
    assert shorter["validation"] == validation[: best + 1]
    np.testing.assert_array_equal(trained.encode(arc), again.encode(arc))


def test_draws_of_the_model_are_of_the_prior_and_the_likelihood(arc: Array) -> None:
    vae, _ = train(make_vae(4, 1, likelihood="gaussian", hidden=(8,), key=KEY), arc, config=TrainingConfig(2), key=KEY)
    drawn = Predictive(vae.model, num_samples=1)(KEY, None, size=2000)
    z, x = drawn["z"][0], drawn["x"][0]
    assert z.shape == (2000, 1)
    assert abs(float(z.var()) - 1) < 5 * (2 / 2000) ** 0.5
    rest = (x - vae.decoder.mean(z)) / vae.decoder.likelihood.scale
    assert abs(float(rest.var()) - 1) < 5 * (2 / 8000) ** 0.5


@register_dataclass
@dataclasses.dataclass
class OwnEncoder(EncoderProtocol):
    weight: Array
    data_dim, latent_dim = 4, 1

    def __call__(self, x: Array) -> tuple[Array, Array]:
        loc, log_scale = jnp.split(x @ self.weight, 2, -1)
        return loc, jnp.exp(log_scale)


@register_dataclass
@dataclasses.dataclass
class OwnDecoder(DecoderProtocol):
    weight: Array
    data_dim, latent_dim = 4, 1

    def __call__(self, z: Array) -> Array:
        return z @ self.weight

    def observation(self, z: Array, warm_up: bool = False, exposure: Array | None = None) -> dist.Distribution:
        return dist.Laplace(self(z), 0.5).to_event(1)


def test_parts_of_ones_own(arc: Array, capsys: pytest.CaptureFixture[str]) -> None:
    vae = VAE(OwnEncoder(jnp.full((4, 2), 0.1)), OwnDecoder(jnp.full((1, 4), 0.1)), name="own")
    trained, history = train_aloud(vae, arc.reshape(200, 2, 2), config=TrainingConfig(20, learning_rate=0.02), key=KEY)
    assert "20/20" in capsys.readouterr().err  # the progress bar
    assert history["elbo"][-1] > history["elbo"][10]
    weight = trained.decoder.weight
    np.testing.assert_allclose(trained.metric.metric(jnp.zeros(1)), weight @ weight.T, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda vae, arc: train(vae, arc[:, :3], key=KEY), ValueError, r"`data` must have shape \(n, 4\)"),
        (lambda vae, arc: train(vae, arc[:0], key=KEY), ValueError, "`data` must have shape"),
        (lambda vae, arc: train(vae, arc.tolist(), key=KEY), TypeError, "`data` must be a JAX or NumPy array"),
        (lambda vae, arc: train(vae, arc, arc.at[0, 0].set(jnp.nan), key=KEY), ValueError, "`validation` has 1 NaN"),
        (lambda vae, arc: train(vae, arc, key=0), TypeError, "`key`"),
        (lambda vae, arc: train(vae, arc, config=TrainingConfig(2, learning_rate=1e30), key=KEY), ValueError, "lower"),
        (lambda vae, arc: vae.model(None), ValueError, "size="),
        (lambda vae, arc: vae.guide(arc, size=10), ValueError, "at least the 200 rows"),
        (lambda vae, arc: VAE(vae.decoder, vae.decoder), TypeError, "`encoder` must be"),
        (lambda vae, arc: VAE(vae.encoder, vae.decoder, "normal"), TypeError, "`prior` must be"),
        (lambda vae, arc: VAE(vae.encoder, OwnDecoder(jnp.ones((1, 4)))), ValueError, "of the same spaces"),
        (lambda vae, arc: make_vae(4, likelihood="laplace", key=KEY), ValueError, "`likelihood`"),
        (lambda vae, arc: make_vae(4, prior="uniform", key=KEY), ValueError, "`prior`"),
        (lambda vae, arc: make_vae(4, num_centers=0, key=KEY), ValueError, "`num_centers`"),
        (lambda vae, arc: TrainingConfig(phase_two=("all",)), ValueError, "unknown groups"),
        (lambda vae, arc: TrainingConfig(num_particles=0), ValueError, "num_particles"),
    ],
)
def test_bad_arguments(arc: Array, call: Callable[..., Any], error: type[Exception], match: str) -> None:
    vae = make_vae(4, 2, NormalPrior(2), likelihood="gaussian", hidden=(4,), key=KEY)
    with pytest.raises(error, match=match):
        call(vae, arc)
