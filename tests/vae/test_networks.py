"""Encoder, decoder, precision network and the reduced immersion."""

from __future__ import annotations

import pytest
import torch

from pyro_riemann import PullbackMetric
from pyro_riemann.vae import Encoder, GaussianDecoder, RBFPrecision, mlp
from tests.vae._models import curve_data


def fitted(num_centers: int = 12, **settings: float) -> RBFPrecision:
    precision = RBFPrecision(2, 4, num_centers, **settings).double()
    codes = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    precision.fit(codes, torch.full((200, 4), 0.04, dtype=torch.float64))
    return precision


def test_precision_is_positive_and_falls_to_its_floor():
    precision = fitted()
    z = torch.linspace(-50, 50, 401, dtype=torch.float64)[:, None].expand(-1, 2)
    assert bool((precision.precision(z) >= precision.floor).all())
    far = torch.full((1, 2), 1e4, dtype=torch.float64)
    torch.testing.assert_close(precision.precision(far), torch.full((1, 4), 1e-2, dtype=torch.float64))
    # standard deviation: inverse root of the precision and the least one, in quadrature
    torch.testing.assert_close(precision(far), torch.full((1, 4), (100 + 1e-4) ** 0.5, dtype=torch.float64))


def test_precision_rises_monotonically_out_of_the_data():
    precision = fitted()
    radius = torch.linspace(4, 30, 50, dtype=torch.float64)
    path = torch.stack([radius, torch.zeros_like(radius)], -1)
    assert bool((precision(path).diff(dim=0) >= 0).all())


def test_weights_start_at_the_inverse_residual():
    precision = fitted()
    at_centers = precision.precision(precision.centers).detach()
    assert 0.7 < float((at_centers * 0.04).median()) < 1.4


def test_one_bandwidth_for_all_centres():
    precision = RBFPrecision(2, 4, 5)
    precision.fit(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), bandwidth=0.3)
    torch.testing.assert_close(precision.bandwidth, torch.full((5,), 0.3))


def test_min_scale_bounds_the_standard_deviation():
    precision = fitted(min_scale=0.05)
    with torch.no_grad():
        precision.log_weight.fill_(30.0)
    assert bool((precision(precision.centers) >= 0.05).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [(9, 9), (7,), ()])
def test_reduced_immersion_is_isometric(hidden: tuple[int, ...], dtype: torch.dtype):
    torch.manual_seed(0)
    decoder = GaussianDecoder(2, 30, hidden, num_centers=6).to(dtype)
    z, y = torch.randn(2, 20, 2, dtype=dtype)
    reduced = decoder.distance_immersion()
    full_metric, small_metric = PullbackMetric(decoder, 2), PullbackMetric(reduced, 2)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(full_metric.metric(z), small_metric.metric(z), rtol=tolerance, atol=tolerance)
    full_chord = (full_metric.embed(z) - full_metric.embed(y)).norm(dim=-1)
    small_chord = (small_metric.embed(z) - small_metric.embed(y)).norm(dim=-1)
    torch.testing.assert_close(full_chord, small_chord, rtol=tolerance, atol=tolerance)
    assert reduced(z)[0].shape == (20, hidden[-1] if hidden else 2)


def test_reduced_immersion_is_a_frozen_snapshot():
    decoder = GaussianDecoder(2, 30, (8,), num_centers=6).double()
    reduced = decoder.distance_immersion()
    z = torch.zeros(1, 2, dtype=torch.float64)
    before = reduced(z)[1]
    with torch.no_grad():
        decoder.std.log_weight.add_(1.0)
    torch.testing.assert_close(reduced(z)[1], before)
    reduced.load_decoder(decoder)
    torch.testing.assert_close(reduced(z)[1], decoder(z)[1])
    assert not any(value.requires_grad for value in reduced.parameters())


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_functions_that_are_far_off_are_left_out_without_a_loss(dtype: torch.dtype) -> None:
    """Values and both derivatives at many points in a place, or in none, are those that all functions give."""
    torch.manual_seed(0)
    network = RBFPrecision(2, 5, num_centers=80).to(dtype)
    network.fit(4 * torch.randn(2000, 2, dtype=dtype), bandwidth=0.3)
    network.log_weight.data += 3 * torch.randn_like(network.log_weight)
    for place, share in ((0.0, 0.5), (30.0, 0.0)):
        z = place + 0.2 * torch.randn(300, 2, dtype=dtype)
        v = torch.randn_like(z)
        with torch.no_grad():
            near, all_of_them = network.jet(z), network.jet(z.unsqueeze(0))
            assert len(network._near(z)[0]) <= share * 80
            pairs = (
                (near.value, all_of_them.value[0]),
                (near.tangents, all_of_them.tangents[:, 0]),
                (near.second(v), all_of_them.second(v.unsqueeze(0))[0]),
            )
            for found, exact in pairs:
                most = 100 * torch.finfo(dtype).eps * float(exact.abs().max())
                torch.testing.assert_close(found, exact, rtol=0, atol=most + 1e-12)
    assert len(network._near(z)[0]) == 80  # where a gradient is wanted


def test_encoder_shapes_and_floor():
    encoder = Encoder(6, 3, (5,), scale_dim=1, min_scale=0.01)
    loc, scale = encoder(torch.randn(4, 7, 6) * 100)
    assert loc.shape == (4, 7, 3)
    assert scale.shape == (4, 7, 1)
    assert bool((scale >= 0.01).all())


def test_fit_is_deterministic():
    codes = curve_data()[:, :2]
    centers = []
    for _ in range(2):
        torch.rand(3)  # the global generator plays no part
        precision = RBFPrecision(2, 4, 7)
        precision.fit(codes)
        centers.append(precision.centers.clone())
    assert torch.equal(*centers)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp([3]), "sizes"),
        (lambda: Encoder(6, 3, scale_dim=2), "scale_dim"),
        (lambda: RBFPrecision(2, 4, 0), "num_centers"),
        (lambda: RBFPrecision(2, 4, floor=0.0), "floor"),
        (lambda: RBFPrecision(2, 4, min_scale=20.0), "min_scale"),
        (lambda: RBFPrecision(2, 4, 5).fit(torch.zeros(10, 3)), "codes"),
        (lambda: RBFPrecision(2, 4, 5).fit(torch.zeros(10, 2)), "distinct"),
        (lambda: RBFPrecision(2, 4, 5).fit(torch.full((10, 2), float("nan"))), "codes"),
        (lambda: RBFPrecision(2, 4, 5).fit(torch.randn(10, 2), torch.zeros(3, 4)), "residuals"),
        (lambda: RBFPrecision(2, 4, 5).fit(torch.randn(10, 2), bandwidth=-1.0), "bandwidth"),
    ],
)
def test_bad_input(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
