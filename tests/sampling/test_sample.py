"""New items of a trained model: the law of the codes is that of the encoded data, whatever the model is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.utils.data import DataLoader

from pyro_riemann import EuclideanMetric
from pyro_riemann.autoencoders import RegularizedAutoencoder, VariationalAutoencoder, image_networks
from pyro_riemann.sampling import GaussianMixtureSampler, NormalSampler, PosteriorSampler, UniformSampler, sample
from pyro_riemann.vae import make_vae
from tests.vae._models import curve_data

SCALE = 0.6
MIX = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]], dtype=torch.float64)


class Linear(nn.Module):
    """Data N(0, I) of three numbers, of which two are encoded with noise: the codes are N(0, 0.64 I + 0.36 I)."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)  # tells training mode from evaluation mode

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc = self.dropout(0.8 * x[:, :2])
        return loc, torch.full_like(loc, SCALE)

    def decode(self, z: Tensor) -> Tensor:
        return self.dropout(z @ MIX)


def data(count: int = 4000, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moments_agree(draws: Tensor, loc: Tensor, covariance: Tensor, count: int) -> bool:
    """Within 4.5 standard errors of the draws and of a fit to so many data."""
    error = (covariance.diagonal() * (1 / len(draws) + 1 / count)).sqrt()
    spread = (covariance.diagonal().outer(covariance.diagonal()) + covariance**2).sqrt()
    close = (draws.mT.cov() - covariance).abs() < 4.5 * spread * (1 / len(draws) + 1 / count) ** 0.5
    return bool(((draws.mean(0) - loc).abs() < 4.5 * error).all() and close.all())


def test_codes_have_the_law_of_the_encoded_data() -> None:
    model, state = Linear(), torch.get_rng_state()
    found = sample(model, data(), 5000, num_components=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.dropout.training
    assert moments_agree(found.codes, torch.zeros(2), torch.eye(2, dtype=torch.float64), 4000)
    torch.testing.assert_close(found.items, found.codes @ MIX)
    assert found.train.shape == (4000, 2)
    again = sample(model, data(), 5000, num_components=1)
    assert torch.equal(found.items, again.items)
    assert not torch.equal(found.codes, sample(model, data(), 5000, num_components=1, seed=1).codes)


def test_the_default_finds_clusters() -> None:
    """Two far clusters: no code between them, and as many in each as there are data."""
    x = data(3000)
    x[:1000, 0] += 20.0
    found = sample(Linear(), x, 3000)
    shares = (found.codes[:, 0] > 8.0).double().mean()
    assert abs(float(shares) - 1 / 3) < 4.5 * (2 / 9 / 3000) ** 0.5
    assert not bool(((found.codes[:, 0] > 4.5) & (found.codes[:, 0] < 11.5)).any())


def of_distribution(x: Tensor) -> Independent:
    return Independent(Normal(0.8 * x[:, :2], SCALE), 1)


ENCODERS: dict[str, tuple[Any, float]] = {
    "distribution": (of_distribution, 1.0),
    "holds a distribution": (lambda x: SimpleNamespace(latent_dist=of_distribution(x)), 1.0),
    "mapping": (lambda x: {"mu": 0.8 * x[:, :2], "logvar": x.new_full((len(x), 2), SCALE**2).log()}, 1.0),
    "Cholesky factors": (lambda x: (0.8 * x[:, :2], SCALE * torch.eye(2).double().expand(len(x), 2, 2)), 1.0),
    "points": (lambda x: 0.8 * x[:, :2], 0.64),
    "holds points": (lambda x: SimpleNamespace(embedding=0.8 * x[:, :2]), 0.64),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_encoder(kind: str) -> None:
    encoder, variance = ENCODERS[kind]
    rows: Any = [{"image": row} for row in data()]
    loader: Any = DataLoader(rows, batch_size=500)
    found = sample(None, loader, 4000, encoder=encoder, decoder=lambda z: z @ MIX, select="image", num_components=1)
    assert moments_agree(found.codes, torch.zeros(2), variance * torch.eye(2, dtype=torch.float64), 4000)


def test_laws_of_codes_have_their_moments() -> None:
    """The standard normal law, and a mixture that is fitted to every third code, those of one of three clusters."""
    normal = NormalSampler(3).sample(4000)
    assert moments_agree(normal, torch.zeros(3), torch.eye(3), 4000)
    clusters = torch.tensor([[4.0, -4.0], [0.0, 0.0], [-4.0, 4.0]], dtype=torch.float64).repeat(500, 1)
    codes = clusters + 0.5 * data(1500)[:, :2]
    mixture = GaussianMixtureSampler(codes, num_components=1, max_codes=500)
    for draws, count in ((mixture.sample(4000), 500), (codes[::3], 500)):
        assert moments_agree(draws, clusters[0], 0.25 * torch.eye(2, dtype=torch.float64), count)


def test_items_of_a_law_of_pixels_are_its_means() -> None:
    """The mean of a Bernoulli pixel is its probability, the logistic function of the logit."""

    def pixels(z: Tensor) -> Independent:
        return Independent(Bernoulli(logits=z @ MIX), 1)

    found = sample(None, data(400), 50, encoder=of_distribution, decoder=pixels)
    torch.testing.assert_close(found.items, (found.codes @ MIX).sigmoid())


@pytest.mark.parametrize("kind", ["riemannian", "variational", "regularized"])
def test_our_own_models(kind: str) -> None:
    x = curve_data(60).float()
    if kind == "riemannian":
        model: Any = make_vae(6, 2, prior="heat_kernel", posterior="wrapped_normal", metric="fixed", num_centers=5)
    else:
        family = VariationalAutoencoder if kind == "variational" else RegularizedAutoencoder
        model = family(*image_networks((2, 3), 2, hidden=(8,), variational=kind == "variational"))
        x = x.sigmoid()
    found = sample(model, x, 7)
    assert found.items.shape == (7, 6)
    assert found.codes.shape == (7, 2)
    assert bool(torch.isfinite(found.items).all())


def test_copies_are_told_from_new_items() -> None:
    model, x, held_out = Linear(), data(800), data(600, seed=1)
    honest = sample(model, x, 600, num_components=1).novelty(held_out)
    assert honest.ratio == pytest.approx(1.0, abs=0.25)
    assert honest.coverage > 0.9
    train = sample(model, x, 1).train
    copies = sample(model, x, 600, PosteriorSampler(train, torch.full_like(train, 1e-4)))
    assert copies.novelty(held_out).ratio < 0.1
    assert copies.novelty(held_out, features=lambda item: item[:, :2]).ratio < 0.1


def test_novelty_measures_features() -> None:
    """Features a tenth as long lie a tenth as far apart, and their ratios are the same."""
    found, held_out = sample(Linear(), data(200), 100, num_components=1), data(60, seed=1)
    whole, tenth = found.novelty(held_out), found.novelty(held_out, features=lambda item: item / 10)
    assert (tenth.draws, tenth.held_out) == pytest.approx((whole.draws / 10, whole.held_out / 10))
    assert (tenth.ratio, tenth.coverage) == pytest.approx((whole.ratio, whole.coverage))
    assert whole.draws > 0


def test_a_decoder_by_itself_is_evaluated() -> None:
    """Without its dropout, whose mean is the identity, a decoder of one matrix gives its products."""
    decoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3, bias=False)).double()
    found = sample(None, data(200), 50, encoder=of_distribution, decoder=decoder)
    torch.testing.assert_close(found.items, found.codes @ decoder[1].weight.detach().mT)
    assert decoder[0].training


def test_other_laws_of_codes_have_their_moments() -> None:
    """A mixture of posteriors, one draw of each posterior, and draws of a metric's volume in a box."""
    loc = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    factor = torch.tensor([[[0.5, 0.0], [0.3, 0.4]], [[0.2, 0.0], [0.0, 0.6]]], dtype=torch.float64)
    posterior = PosteriorSampler(loc, factor)
    covariance = (factor @ factor.mT).mean(0) + loc.mT.cov(correction=0)
    assert moments_agree(posterior.sample(20_000), loc.mean(0), covariance, 10**9)
    each = torch.stack([posterior.sample_each() for _ in range(2000)])
    assert each.shape == (2000, 2, 2)
    for k in range(2):
        assert moments_agree(each[:, k], loc[k], factor[k] @ factor[k].mT, 10**9)
    law = UniformSampler(EuclideanMetric(2), -1.0, 2.0)
    draws = law.sample(5000)
    assert law.result is not None
    assert torch.equal(law.result.draws, draws)
    assert abs(draws.mean() - 0.5) < 4 * 0.87 / 100


def test_few_data_have_few_components() -> None:
    """One for twenty codes, and at least one; two codes are enough for a law."""
    for count, components in ((2, 1), (39, 1), (40, 2), (1000, 50)):
        law = sample(Linear(), data(count), 3).law
        assert isinstance(law, GaussianMixtureSampler)
        assert law.mixture.n_components == components


def test_bad_input() -> None:
    model, x = Linear(), data(50)
    with pytest.raises(TypeError, match="no `posterior`, `encode` or `encoder`"):
        sample(SimpleNamespace(decode=model.decode), x, 3)
    with pytest.raises(TypeError, match="no `decode` or `decoder`"):
        sample(SimpleNamespace(encode=model.encode), x, 3)
    with pytest.raises(ValueError, match="at least two"):
        sample(model, x[:1], 3)
    with pytest.raises(ValueError, match="finite"):
        sample(model, x.fill_(float("nan")), 3)
    with pytest.raises(ValueError, match="num_samples"):
        sample(model, data(50), 0)
    with pytest.raises(ValueError, match="batch of 50"):
        sample(None, data(50), 3, encoder=lambda rows: rows[:7, :2], decoder=model.decode)
    with pytest.raises(ValueError, match="no batch"):
        sample(model, [], 3)
