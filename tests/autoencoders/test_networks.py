"""The networks: sizes of C22's table 3, likelihood, batch normalisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyro_riemann.autoencoders import Autoencoder, image_networks, make_autoencoder


def test_convolutions_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):  # shapes without the 30 million weights
        encoder, decoder = image_networks((28, 28), 16, "conv")
        loc, _ = encoder(torch.rand(3, 784))
        image = decoder(torch.rand(3, 16))
    kernels = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(128, 1, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1024, 512, 4, 4)]
    assert encoder.loc.in_features == 4096
    linear = next(m for m in decoder.modules() if isinstance(m, nn.Linear))
    assert linear.out_features == 65536
    transposed = [tuple(m.weight.shape[:2]) for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert transposed == [(1024, 512), (512, 256), (256, 1)]
    assert loc.shape == (3, 16)
    assert image.shape == (3, 784)


def test_dense_layers_mirror_each_other() -> None:
    encoder, decoder = image_networks((28, 28), 16)
    assert [m.out_features for m in encoder.trunk.modules() if isinstance(m, nn.Linear)] == [1000, 500]
    assert [m.out_features for m in decoder.body.modules() if isinstance(m, nn.Linear)] == [500, 1000, 784]


def test_an_even_image_sits_in_the_middle_of_the_canvas() -> None:
    encoder, _ = image_networks((28, 28), 2, "conv", hidden=(2, 2, 2, 2))
    image = torch.zeros(1, 28, 28)
    image[0, 0, 27] = 1
    padded = encoder.trunk[1](encoder.trunk[0](image.flatten(1)))  # type: ignore[index]
    assert padded.shape == (1, 1, 32, 32)
    assert padded.nonzero()[0].tolist() == [0, 0, 2, 29]


def test_likelihood_has_its_constants_and_is_eq_3() -> None:
    _, decoder = image_networks((3, 3), 2, hidden=(8,))
    x, z = torch.rand(5, 9), torch.randn(5, 2)
    mean = decoder(z)
    torch.testing.assert_close(decoder.log_likelihood(x, z), decoder.observation(z).log_prob(x))
    squared = (x - mean).square().sum(-1)
    torch.testing.assert_close(-decoder.log_likelihood(x, z), squared + 4.5 * math.log(math.pi))


def test_generation_uses_the_statistics_of_training() -> None:
    """In training mode batch normalisation would make every image depend on the others of its batch."""
    model = make_autoencoder("ae", (8, 8), 2, "conv", hidden=(2, 2, 2, 2), seed=0)
    model.train()
    few, many = model.sample(3, seed=1), model.sample(3, seed=1)
    codes = torch.randn(6, 2)
    torch.testing.assert_close(model.decode(codes)[:2], model.decode(codes[:2]))
    torch.testing.assert_close(few, many)
    assert model.training, "the mode of the caller comes back"


def test_spectral_decoder_contracts() -> None:
    """Hidden layers have norm one after enough power iterations: the last one bounds the Lipschitz constant."""
    model = make_autoencoder("rae-sn", (6, 6), 3, hidden=(16, 8), seed=0).train()
    for _ in range(200):
        model.decoder(torch.zeros(1, 3))
    model.eval()
    layers = [m for m in model.decoder.modules() if isinstance(m, nn.Linear)]
    norms = torch.stack([torch.linalg.matrix_norm(layer.weight, 2) for layer in layers])
    torch.testing.assert_close(norms[:-1], torch.ones(2), atol=1e-3, rtol=0)
    a, b = torch.randn(200, 3), torch.randn(200, 3)
    ratio = (model.decode(a) - model.decode(b)).norm(dim=-1) / (a - b).norm(dim=-1)
    assert float(ratio.max()) <= 1.001 * float(norms[-1].detach()) / 4  # a quarter is the steepest slope of the sigmoid


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: image_networks((28, 28), 2, "resnet"), "architecture"),
        (lambda: image_networks((40, 40), 2, "conv"), "32 x 32"),
        (lambda: image_networks((8, 8), 0), "latent_dim"),
        (lambda: image_networks((8, 8), 2, hidden=(8,), scale=-1.0), "scale"),
        (lambda: Autoencoder(image_networks((8, 8), 2)[0], image_networks((8, 8), 3)[1]), "same spaces"),
        (lambda: make_autoencoder("gan", (8, 8), 2), "name"),
    ],
)
def test_bad_settings_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
