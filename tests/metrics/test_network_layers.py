"""Layers of every kind in a decoder: metric, acceleration and distance against differences of values, in both modes.

Some have no forward mode in their fused kernel, some no second derivative in torch, and of some it is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric

WIDTH = 24


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class First(nn.Module):
    """The first of what a recurrent layer returns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def tokens(layer: nn.Module) -> nn.Module:
    """The layer on three tokens of eight features."""
    return nn.Sequential(nn.Unflatten(-1, (3, 8)), layer, nn.Flatten(1))


def image(layer: nn.Module) -> nn.Module:
    """The layer on four channels of 2 x 3 pixels."""
    return nn.Sequential(nn.Unflatten(-1, (4, 2, 3)), layer, nn.Flatten(1))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardswish in place": lambda: nn.Hardswish(inplace=True),
    "GLU": nn.GLU,
    "LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "GroupNorm": lambda: nn.GroupNorm(4, WIDTH),
    "InstanceNorm": lambda: image(nn.InstanceNorm2d(4, affine=True)),
    "BatchNorm": lambda: nn.BatchNorm1d(WIDTH),
    "Conv": lambda: image(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ELU())),
    "ConvTranspose": lambda: image(nn.Sequential(nn.ConvTranspose2d(4, 2, 2, stride=2), nn.GroupNorm(1, 2), nn.SiLU())),
    "PixelShuffle": lambda: image(nn.Sequential(nn.Tanh(), nn.PixelShuffle(2))),
    "Attention": lambda: tokens(Attention()),
    "Transformer": lambda: tokens(nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)),
    "LSTM": lambda: tokens(First(nn.LSTM(8, 8, batch_first=True))),
    "GRU": lambda: tokens(First(nn.GRU(8, 8, batch_first=True))),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "a branch on data": lambda: Call(lambda x: x.tanh() if bool((x.detach() > -99).all()) else x),
}
Z = torch.tensor([[0.31, -0.42], [-0.93, 0.24]], dtype=torch.float64)
V = torch.tensor([[0.7, 0.2], [-0.4, 0.9]], dtype=torch.float64)


def decoder(name: str) -> PullbackMetric:
    """In float64, through random weights; the second linear layer lets every direction reach the outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = LAYERS[name]()
        with torch.no_grad():
            size = layer(torch.zeros(2, WIDTH)).shape[-1] if name != "BatchNorm" else WIDTH
        network = nn.Sequential(nn.Linear(2, WIDTH), nn.Sequential(layer), nn.Linear(size, 7))
    return PullbackMetric(network.double(), 2)


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_are_those_of_the_values(name: str) -> None:
    metric, step, second = decoder(name), 1e-6, 1e-4
    with torch.no_grad():
        axes = step * torch.eye(2, dtype=torch.float64)
        columns = torch.stack([(metric.embed(Z + e) - metric.embed(Z - e)) / (2 * step) for e in axes], -1)
        ends = metric.embed(Z + second * V), metric.embed(Z), metric.embed(Z - second * V)
        force = torch.einsum("nai,na->ni", columns, (ends[0] - 2 * ends[1] + ends[2]) / second**2)
        expected = columns.mT @ columns
        tensor, connection = metric.metric(Z), metric.christoffel(Z, V)
        length = metric.dist(Z[:1], Z[1:])
    torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((tensor @ connection[..., None])[..., 0], force, rtol=1e-4, atol=1e-5)
    for now, before in ((metric.metric(Z), tensor), (metric.christoffel(Z, V), connection)):
        assert now.requires_grad
        assert not before.requires_grad
        assert torch.equal(now, before)
    trained = metric.dist(Z[:1], Z[1:])
    torch.testing.assert_close(trained.detach(), length, rtol=1e-12, atol=0)
    # the gradient in all weights against a difference along it
    weights = [weight for weight in metric.parameters() if weight.requires_grad]
    slopes = torch.autograd.grad(trained.sum(), weights, materialize_grads=True)
    square = sum(float(slope.square().sum()) for slope in slopes)
    lengths = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight.add_(slope, alpha=sign * 1e-5 / square**0.5)
            lengths.append(float(metric.dist(Z[:1], Z[1:])))
            for weight, slope in zip(weights, slopes, strict=True):
                weight.add_(slope, alpha=-sign * 1e-5 / square**0.5)
    assert (lengths[0] - lengths[1]) / 2e-5 == pytest.approx(square**0.5, rel=2e-3)


@pytest.mark.parametrize("name", ["Hardsigmoid", "LayerNorm"])
def test_exponential_map_and_curvature(name: str) -> None:
    metric = decoder(name)
    with torch.no_grad():
        end = metric.expmap(Z[:1], 0.1 * V[:1])
        back = metric.dist(Z[:1], end)
        curvature = metric.scalar_curvature(Z[:1])
    torch.testing.assert_close(back, 0.1 * metric.norm(Z[:1], V[:1]).detach(), rtol=1e-4, atol=1e-6)
    assert bool(torch.isfinite(curvature).all())
