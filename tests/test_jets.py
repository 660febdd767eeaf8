"""Taylor propagation against nested forward mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric, _autodiff
from pyro_riemann._jets import Jet, is_sequential
from pyro_riemann.vae import GaussianDecoder

ACTIVATIONS = [nn.ELU(), nn.ELU(alpha=0.5), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.SiLU(), nn.GELU(), nn.Identity()]


def networks() -> dict[str, nn.Module]:
    nets: dict[str, nn.Module] = {
        repr(layer): nn.Sequential(nn.Linear(2, 6), layer, nn.Linear(6, 5), layer) for layer in ACTIVATIONS
    }
    nets["wide output"] = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 60))
    nets["one layer"] = nn.Sequential(nn.Linear(2, 3))
    decoder = GaussianDecoder(2, 30, hidden=(8, 8), num_centers=7)
    decoder.std.fit(torch.randn(40, 2))
    nets["decoder"], nets["reduced decoder"] = decoder, decoder.distance_immersion()
    return {name: net.double() for name, net in nets.items()}


@pytest.mark.parametrize("name", networks())
def test_jets_are_the_derivatives(name: str) -> None:
    net = networks()[name]
    fast, plain = PullbackMetric(net, 2), PullbackMetric(lambda z: net(z), 2)
    assert fast.has_jets
    assert not plain.has_jets
    z, v = torch.randn(50, 3, 2, dtype=torch.float64), torch.randn(50, 3, 2, dtype=torch.float64)
    jets = fast.jets(z)
    assert jets is not None
    for got, want in zip(fast.embed_jacobian(z), plain.embed_jacobian(z), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    second = torch.cat([jet.second(v) for jet in jets], -1)
    torch.testing.assert_close(second, _autodiff.second_directional(plain.embed, z, v)[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.metric(z), plain.metric(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fast.metric_and_force(z)[1](v), plain.metric_and_force(z)[1](v), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.christoffel(z[0, 0], v[0, 0]), plain.christoffel(z, v)[0, 0], rtol=1e-8, atol=1e-8)


def test_gradients_reach_the_weights() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 60)).double()
    z, v = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)
    slopes = []
    for immersion in (net, lambda x: net(x)):
        metric, force = PullbackMetric(immersion, 2).metric_and_force(z)
        slopes.append(torch.autograd.grad(metric.logdet().sum() + force(v).square().sum(), list(net.parameters())[:3]))
    for got, want in zip(*slopes, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_only_known_layers_are_propagated() -> None:
    hooked = nn.Sequential(nn.Linear(2, 3))
    hooked[0].register_forward_hook(lambda module, args, output: 2 * output)
    assert not is_sequential(hooked)
    assert not is_sequential(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    assert is_sequential(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))


class Wrong(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, z.square()], -1)

    def jet(self, z: Tensor) -> tuple[Jet, ...]:
        return (Jet(torch.cat([z, z], -1), torch.zeros(2, *z.shape[:-1], 4), None),)


def test_a_jet_of_another_function_is_refused() -> None:
    with pytest.raises(ValueError, match="has other values"):
        PullbackMetric(Wrong(), 2)
