"""All models under one interface: they fit, resume, sample, encode and decode."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from pyro_riemann import KernelMetric
from pyro_riemann.autoencoders import (
    MODELS,
    FitConfig,
    GaussianMixtureSampler,
    NormalSampler,
    UniformSampler,
    make_autoencoder,
)
from pyro_riemann.datasets import load_dataset

CONFIG = FitConfig(epochs=3, batch_size=50, seed=5)


def digits(count: int = 300) -> torch.Tensor:
    return load_dataset("digits").train[:count]


def digits_model(name: str, seed: int = 0):
    return make_autoencoder(name, (8, 8), 3, hidden=(32, 16), seed=seed)


@pytest.mark.parametrize("name", MODELS)
def test_interface(name: str, tmp_path: Path) -> None:
    model, data = digits_model(name), digits()
    before = torch.get_rng_state()
    history = model.fit(data, data[:50], CONFIG, progress=False)
    assert torch.equal(before, torch.get_rng_state()), "training leaves the global generator alone"
    assert len(history) == 3
    assert history["loss"][-1] < history["loss"][0]
    assert not model.training
    images = model.sample(7, seed=1)
    assert images.shape == (7, 64)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    torch.testing.assert_close(model.sample(7, seed=1), images, rtol=0, atol=0)
    assert not torch.equal(model.sample(7, seed=2), images)
    codes = model.encode(data)
    assert codes.shape == (300, 3)
    torch.testing.assert_close(model.decode(codes), model.decoder(codes).detach())
    mixed = model.sample(5, GaussianMixtureSampler(codes, 3), seed=0)
    assert mixed.shape == (5, 64)
    if model.variational:
        loc, scale = model.posterior(data)
        torch.testing.assert_close(loc, codes)
        assert float(scale.min()) > 0
    else:
        with pytest.raises(TypeError, match="no posterior"):
            model.posterior(data)


@pytest.mark.parametrize("name", ["vae", "vamp", "rhvae", "rae-sn"])
def test_an_interrupted_training_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    data = digits(150)
    whole = digits_model(name)
    history = whole.fit(data, data[:30], FitConfig(epochs=4, batch_size=50), progress=False)

    stopped = digits_model(name)
    validated = 0

    def interrupt(rows: torch.Tensor) -> torch.Tensor:
        nonlocal validated
        if not stopped.training:
            validated += 1
            if validated > 2:
                raise KeyboardInterrupt
        return loss(rows)

    loss, stopped.loss = stopped.loss, interrupt
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(data, data[:30], FitConfig(epochs=4, batch_size=50), checkpoint=tmp_path, progress=False)

    resumed = digits_model(name, seed=99)  # other weights: everything must come from the checkpoint
    again = resumed.fit(data, data[:30], FitConfig(epochs=4, batch_size=50), checkpoint=tmp_path, progress=False)
    assert again["validation"] == history["validation"]
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=0, atol=0)


def test_best_weights_are_kept_and_the_rate_is_halved() -> None:
    model, data = digits_model("ae"), digits(100)
    config = FitConfig(epochs=8, batch_size=50, learning_rate=0.3, patience=1)
    history = model.fit(data, data[:40], config, progress=False)
    with torch.no_grad():
        assert float(model.loss(data[:40])) == pytest.approx(min(history["validation"]), rel=1e-5)
    best, rate = math.inf, 0.3
    for value, used in zip(history["validation"], history["learning_rate"], strict=True):
        assert used == rate
        rate, best = (rate, value) if value < best else (rate / 2, best)
    assert rate < 0.3


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = digits(60)
    digits_model("ae").fit(data, config=FitConfig(epochs=1), checkpoint=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"other settings \(epochs differ\)"):
        digits_model("ae").fit(data, config=FitConfig(epochs=2), checkpoint=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another model \(class, code_weight differ\)"):
        digits_model("rae").fit(data, config=FitConfig(epochs=1), checkpoint=tmp_path, progress=False)


def test_mixture_recovers_the_moments_of_the_codes() -> None:
    codes = torch.cat([torch.randn(4000, 2) * 0.3 + 2, torch.randn(2000, 2) - 2])
    draws = GaussianMixtureSampler(codes, num_components=2).sample(20_000)
    assert abs(float((draws[:, 0] > 0).double().mean()) - 2 / 3) < 0.02
    torch.testing.assert_close(draws.T.cov(), codes.T.cov(), atol=0.15, rtol=0)


def test_mixture_of_few_codes_in_many_dimensions() -> None:
    """Codes along a line: their covariance is singular but for the floor, and draws stay with the codes."""
    codes = 100 * torch.randn(70, 1) * torch.randn(1, 16) + 0.01 * torch.randn(70, 16)
    draws = GaussianMixtureSampler(codes, num_components=2).sample(2000)
    assert draws.dtype == codes.dtype
    assert bool(draws.isfinite().all())
    assert abs(float(draws.norm(dim=-1).mean() / codes.norm(dim=-1).mean()) - 1) < 0.15


def test_uniform_sampler_draws_by_the_global_generator() -> None:
    codes = torch.randn(200, 2)
    metric = KernelMetric.from_posterior(codes, torch.full_like(codes, 0.2), num_centroids=20)
    model = digits_model("vae")
    sampler = UniformSampler(metric)
    torch.manual_seed(0)
    first = sampler.sample(50)
    torch.manual_seed(0)
    torch.testing.assert_close(sampler.sample(50), first, rtol=0, atol=0)
    assert sampler.result is not None
    assert sampler.result.draws.shape == (50, 2)
    with pytest.raises(ValueError, match="shape"):
        model.sample(5, sampler)  # codes of another dimension


def test_prior_of_the_vampprior_is_its_mixture() -> None:
    model, data = digits_model("vamp"), digits(100)
    model.fit(data, config=FitConfig(epochs=1), progress=False)
    torch.manual_seed(0)
    draws = model.prior().sample(4000)
    law = model.pair.prior_distribution()
    error = (law.variance / 4000).sqrt()
    assert bool(((draws.mean(0) - law.mean).abs() < 4 * error).all())


def test_volume_of_rhvae_is_known_after_training() -> None:
    model, data = digits_model("rhvae"), digits(100)
    with pytest.raises(ValueError, match="after `fit`"):
        model.volume_sampler()
    model.fit(data, config=FitConfig(epochs=1), progress=False)
    assert model.sample(5, model.volume_sampler(), seed=0).shape == (5, 64)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, d: m.fit(d[:, :10], progress=False), "`data` must have shape"),
        (lambda m, d: m.fit(d, d[0], progress=False), "`validation` must have shape"),
        (lambda m, d: m.fit(d * math.nan, progress=False), "data"),
        (lambda m, d: m.encode(d[:, :3]), "`x` must have shape"),
        (lambda m, d: m.decode(d), "`z` must have shape"),
        (lambda m, d: m.sample(0), "num_samples"),
        (lambda m, d: FitConfig(epochs=0), "epochs"),
        (lambda m, d: FitConfig(learning_rate=0.0), "learning_rate"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(digits_model("ae"), digits(100))


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    config = FitConfig(epochs=2, batch_size=50, learning_rate=1e30)
    with pytest.raises(
        ValueError, match=r"loss of RegularizedAutoencoder became .* in epoch 1: lower the learning rate"
    ):
        digits_model("rae").fit(digits(100), config=config, progress=False)


def test_normal_sampler_has_the_latent_dimension() -> None:
    assert NormalSampler(4).sample(3).shape == (3, 4)
