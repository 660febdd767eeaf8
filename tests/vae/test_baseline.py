"""The plain VAE trains as well as a textbook one, and in any units."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric
from pyro_riemann._rescale import Rescale
from pyro_riemann.datasets import DATA_VARIABLE, load_dataset
from pyro_riemann.vae import VAE, GaussianDecoder, TrainingConfig, elbo_terms, make_vae, set_phase, train
from pyro_riemann.vae._phases import start_phase_one
from tests.vae._models import curve_data, small_vae


class Textbook(nn.Module):
    """Kingma & Welling (2014), appendix C.2: tanh, one trunk, sigmoid output, one learned standard deviation."""

    def __init__(self, data_dim: int, hidden: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(data_dim, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.loc, self.log_variance = nn.Linear(hidden, 2), nn.Linear(hidden, 2)
        body = (nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, data_dim))
        self.decoder = nn.Sequential(*body, nn.Sigmoid())
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def elbo(self, x: Tensor, draws: int = 1) -> Tensor:
        loc, log_variance = self.loc(h := self.trunk(x)), self.log_variance(h)
        z = loc + (0.5 * log_variance).exp() * torch.randn(draws, *loc.shape)
        error = ((x - self.decoder(z)) / self.log_scale.exp()).square()
        likelihood = (-0.5 * error - self.log_scale - 0.5 * math.log(2 * math.pi)).sum(-1).mean(0)
        return likelihood - 0.5 * (loc.square() + log_variance.exp() - log_variance - 1).sum(-1)


def textbook_elbo(data: Tensor, test: Tensor, epochs: int, hidden: int) -> float:
    """Test ELBO in nats per datum."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Textbook(data.shape[1], hidden)
        with torch.no_grad():  # a fair start: thousands of steps of Adam lead from 1 to a sharp likelihood
            model.log_scale.fill_(float((data - data.mean(0)).square().mean().sqrt().log()))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(data)).split(100):
                optimizer.zero_grad()
                (-model.elbo(data[rows]).mean()).backward()
                optimizer.step()
        with torch.no_grad():
            return float(model.elbo(test, 20).mean())


def trained(data: Tensor, epochs: int, hidden: int, **settings: str) -> VAE:
    """A plain VAE after phase 1, whose likelihood has one standard deviation as the textbook's."""
    vae = make_vae(data.shape[1], 2, "normal", "normal", hidden=(hidden, hidden), num_centers=5, seed=0, **settings).to(
        data.dtype
    )
    config = TrainingConfig(warm_up_epochs=epochs, epochs=0, batch_size=100, seed=0)
    train(vae, data, config=config, progress=False)
    vae.warm_up = True
    return vae


def portraits(count: int = 700, seed: int = 0) -> Tensor:
    """Grey images of 20 x 14 pixels: one strong common image, and two things that vary."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 14), indexing="ij")
    turn, smile = generator.uniform(-1, 1, (2, count, 1, 1))
    across = x - 0.25 * turn
    image = 0.25 + 0.45 / (1 + np.exp(8 * (across**2 / 0.55 + y**2 / 0.9 - 1)))
    for side in (-0.32, 0.32):
        image = image - 0.3 * np.exp(-((across - side) ** 2 / 0.02 + (y + 0.25) ** 2 / 0.012))
    image = image - 0.3 * np.exp(-(across**2 / (0.06 + 0.03 * smile) + (y - 0.48 + 0.1 * smile) ** 2 / 0.02))
    pixels = np.clip(image + generator.normal(0, 0.04, image.shape), 0, 1)
    return torch.as_tensor(pixels.reshape(count, -1), dtype=torch.float32)


def digits() -> tuple[Tensor, Tensor]:
    data = load_dataset("digits")
    return data.train, data.test


def faces() -> tuple[Tensor, Tensor]:
    images = portraits()
    return images[:500], images[500:]


@pytest.mark.parametrize(("load", "epochs"), [(digits, 40), (faces, 60)])
def test_plain_vae_trains_as_well_as_a_textbook_one(load: Callable[[], tuple[Tensor, Tensor]], epochs: int) -> None:
    data, test = load()
    own = float(elbo_terms(trained(data, epochs, 64), test, 20).elbo.mean())
    assert own > textbook_elbo(data, test, epochs, 64) - 10


def many_faces() -> tuple[Tensor, Tensor]:
    images = portraits(2000)
    return images[:1600], images[1600:]


def garments() -> tuple[Tensor, Tensor]:
    if not os.environ.get(DATA_VARIABLE):
        pytest.skip(f"needs Fashion-MNIST in the folder that {DATA_VARIABLE} names")
    data = load_dataset("fashion-mnist")
    return data.train[:1600], data.test[:1000]


@pytest.mark.slow
@pytest.mark.parametrize("load", [digits, many_faces, garments])
def test_plain_vae_trains_as_well_as_a_textbook_one_in_full(load: Callable[[], tuple[Tensor, Tensor]]) -> None:
    data, test = load()
    own = float(elbo_terms(trained(data, 150, 300), test, 20).elbo.mean())
    assert own > textbook_elbo(data, test, 150, 300) - 10


# ------------------------------------------------------------------------------------ units


def test_training_does_not_depend_on_the_units_of_the_data() -> None:
    """x -> a x + b shifts the ELBO by -D log a: likelihood and posterior are the same function of the same weights."""
    data, test = curve_data(120), curve_data(40, seed=3)
    factor, shift = 37.0, torch.linspace(-500, 900, 6, dtype=torch.float64)
    plain, scaled = (trained(rows, 5, 12) for rows in (data, factor * data + shift))
    change = elbo_terms(scaled, factor * test + shift).elbo - elbo_terms(plain, test).elbo
    torch.testing.assert_close(change, torch.full_like(change, -6 * math.log(factor)), rtol=0, atol=1e-3)


def test_units_are_learned_once_and_saved() -> None:
    vae, data = small_vae(), 5 + 3 * curve_data()
    start_phase_one(vae, data)
    torch.testing.assert_close(vae.encoder.units.inverse(data).mean(0), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(vae.encoder.units.inverse(data).square().mean().item(), 1.0)
    before = vae.encode(data)
    start_phase_one(vae, 100 * data)  # later data do not change what the weights mean
    assert torch.equal(vae.encode(data), before)
    other = small_vae(seed=7)
    other.load_state_dict(vae.state_dict())
    assert torch.equal(other.encode(data), before)


def test_constant_data_have_no_scale() -> None:
    units = Rescale(3)
    units.fit(torch.full((5, 3), 2.0))
    assert torch.equal(units(torch.zeros(3)), torch.full((3,), 2.0))
    assert units.scale == 1


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_metric_is_that_of_the_mean_in_the_units_of_the_data(output: str) -> None:
    decoder = GaussianDecoder(2, 30, (9, 9), num_centers=6, output=output).double()
    generator = torch.Generator().manual_seed(0)
    decoder.standardize(torch.rand(50, 30, generator=generator, dtype=torch.float64))
    z = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    plain = PullbackMetric(lambda at: decoder(at), 2)
    for immersion in (decoder, decoder.distance_immersion()):
        metric = PullbackMetric(immersion, 2)
        assert metric.has_jets
        torch.testing.assert_close(metric.metric(z), plain.metric(z), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(metric.christoffel(z, z), plain.christoffel(z, z), rtol=1e-7, atol=1e-7)
    assert decoder.distance_immersion()(z)[0].shape[-1] == (30 if output == "sigmoid" else 9)
    assert output == "linear" or bool(((decoder(9 * z)[0] >= 0) & (decoder(9 * z)[0] <= 1)).all())


def test_snapshot_follows_the_units() -> None:
    vae = small_vae("heat_kernel", "normal")
    data = 7 * curve_data()
    start_phase_one(vae, data)
    vae.refresh_metric()
    set_phase(vae, 2)
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(vae.metric.metric(z), PullbackMetric(vae.decoder, 2).metric(z), rtol=1e-8, atol=1e-8)


def test_a_sigmoid_refuses_data_that_it_cannot_reach() -> None:
    vae = make_vae(6, 2, "normal", "normal", hidden=(8,), num_centers=5, output="sigmoid").double()
    with pytest.raises(ValueError, match=r"needs data in \[0, 1\], got values from -"):
        train(vae, curve_data(), config=TrainingConfig(1, 0), progress=False)
    with pytest.raises(ValueError, match="output"):
        make_vae(6, output="tanh")


def test_a_trained_sigmoid_stays_in_the_range() -> None:
    data = torch.rand(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vae = trained(data, 2, 8, output="sigmoid")
    mean = vae.decoder.mean(10 * torch.randn(50, 2, dtype=torch.float64))
    assert bool(((mean >= 0) & (mean <= 1)).all())


def test_training_says_that_its_table_is_wrong_at_the_codes() -> None:
    vae = small_vae("heat_kernel", "normal", "grid", grid_resolution=5)
    config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=60)
    with pytest.warns(UserWarning, match=r"at 90 % of the training codes .* Raise `grid_resolution` \(now 5\)"):
        train(vae, curve_data(), config=config, progress=False)
