"""Pullbacks of immersions with a known metric, and the agreement of their two derivative routes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric
from tests.charts import OnlyMetric, cylinder, sphere_pullback, warped_sphere


class Saddle(nn.Module):
    """(x, y, x y): G = I + (y, x)(y, x)^T."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, z.prod(-1, keepdim=True)], dim=-1)


class Gaussian(nn.Module):
    """A decoder's pair of mean and standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))
        self.scale = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5), nn.Softplus())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(z), self.scale(z)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saddle(batch: tuple[int, ...], dtype: torch.dtype) -> None:
    metric = PullbackMetric(Saddle(), 2, jitter=0.0)
    z, v = torch.randn(2, *batch, 2, dtype=dtype)
    normal = z.flip(-1)
    expected = torch.eye(2, dtype=dtype) + normal.unsqueeze(-1) * normal.unsqueeze(-2)
    torch.testing.assert_close(metric.metric(z), expected)
    torch.testing.assert_close(metric.logdet(z), torch.log1p(z.square().sum(-1)))
    # Gamma(v, v) = G^{-1} J^T D^2 f[v, v] = 2 v_1 v_2 (y, x) / (1 + |z|^2)
    factor = 2 * v.prod(-1, keepdim=True) / (1 + z.square().sum(-1, keepdim=True))
    torch.testing.assert_close(metric.christoffel(z, v), factor * normal, rtol=1e-4, atol=1e-5)


def test_two_outputs_add_their_metrics() -> None:
    decoder = Gaussian().double()
    z = torch.randn(6, 2, dtype=torch.float64)
    both = PullbackMetric(decoder, 2, jitter=0.0).metric(z)
    mean, scale = (PullbackMetric(part, 2, jitter=0.0).metric(z) for part in (decoder.mean, decoder.scale))
    torch.testing.assert_close(both, mean + scale)


def test_jacobian_by_finite_differences() -> None:
    metric = PullbackMetric(Gaussian().double(), 2)
    z = torch.randn(5, 2, dtype=torch.float64)
    value, jacobian = metric.embed_jacobian(z)
    torch.testing.assert_close(value, metric.embed(z))
    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    expected = torch.stack([(metric.embed(z + e) - metric.embed(z - e)) / 2e-6 for e in steps], dim=-1)
    torch.testing.assert_close(jacobian, expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(metric.metric(z), jacobian.mT @ jacobian)


@pytest.mark.parametrize("metric", [PullbackMetric(Gaussian().double(), 2), sphere_pullback(2), cylinder()], ids=repr)
def test_christoffel_and_drift_by_the_generic_route(metric: PullbackMetric) -> None:
    z, v = 0.6 * torch.randn(2, 5, 2, dtype=torch.float64)
    generic = OnlyMetric(metric)
    torch.testing.assert_close(metric.christoffel(z, v), generic.christoffel(z, v), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(metric.drift(z), generic.drift(z), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 3])
def test_sphere_through_a_sheared_chart(dim: int) -> None:
    pullback, exact = sphere_pullback(dim), warped_sphere(dim)
    z, v = 0.5 * torch.randn(2, 6, dim, dtype=torch.float64)
    torch.testing.assert_close(pullback.metric(z), exact.metric(z))
    torch.testing.assert_close(pullback.logdet(z), exact.logdet(z))
    torch.testing.assert_close(pullback.christoffel(z, v), exact.christoffel(z, v))
    torch.testing.assert_close(pullback.drift(z), exact.drift(z))


def test_jitter_is_added_and_repairs_lost_rank() -> None:
    flat = PullbackMetric(lambda z: torch.stack([z[..., 0], z[..., 0] ** 2], -1), 2, jitter=1e-4)
    metric = flat.metric(torch.zeros(2))
    torch.testing.assert_close(metric, torch.diag(torch.tensor([1.0 + 1e-4, 1e-4])))
    assert bool(torch.isfinite(flat.logdet(torch.randn(7, 2))).all())


def test_gradients_reach_decoder_and_point() -> None:
    decoder = Gaussian().double()
    metric = PullbackMetric(decoder, 2)
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weight = next(decoder.parameters())
    assert torch.autograd.gradcheck(lambda p, _: metric.logdet(p), (z, weight))


def test_images_of_any_shape() -> None:
    metric = PullbackMetric(lambda z: (z.unsqueeze(-1) * torch.ones(4)).sin(), 2, jitter=0.0)
    assert metric.embed(torch.zeros(3, 5, 2)).shape == (3, 5, 8)
    torch.testing.assert_close(metric.metric(torch.zeros(2)), 4 * torch.eye(2))


def test_trace_pickle_state_and_dtype() -> None:
    metric = PullbackMetric(Gaussian().requires_grad_(False), 2)
    z = torch.randn(4, 2)
    traced = torch.jit.trace(lambda p: metric.metric(p), (z,))
    torch.testing.assert_close(traced(2 * z), metric.metric(2 * z))
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(twin.metric(z), metric.metric(z))
    other = PullbackMetric(Gaussian(), 2)
    other.load_state_dict(metric.state_dict())
    torch.testing.assert_close(other.metric(z), metric.metric(z))
    assert metric.double().metric(z.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("immersion", "match"),
    [
        (lambda z: torch.ones(*z.shape[:-1], 3), "does not depend on z"),
        (lambda z: z[..., :1], "outputs for a latent dimension of 2"),
        (lambda z: z.sum(0, keepdim=True), "batch shape"),
        (lambda z: torch.cat([z, z.log()], -1), "NaN"),
    ],
)
def test_bad_immersions(immersion, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PullbackMetric(immersion, 2)


def test_wrong_points() -> None:
    metric = PullbackMetric(Saddle(), 2)
    with pytest.raises(ValueError, match=r"`z` must have shape"):
        metric.embed(torch.zeros(3))
    with pytest.raises(TypeError, match="floating"):
        metric.metric(torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saturated_immersion_is_on_its_floor(dtype: torch.dtype) -> None:
    """``tanh`` has the slope ``cosh^-2``: the eigenvalues are known, and fall below ten jitters at |z| = 3.6.

    One dead direction, of two, is not enough: the walk goes where the other one lets it.
    """
    metric = PullbackMetric(lambda z: torch.cat([torch.tanh(z), 2 * torch.tanh(z[..., :1])], -1), 2, jitter=1e-6)
    z = torch.tensor([[0.0, 0.0], [9.0, 3.5], [9.0, 3.7], [9.0, 0.3], [0.0, 9.0], [9.0, 9.0]], dtype=dtype)
    largest = torch.stack([5 * z[:, 0].double().cosh() ** -4, z[:, 1].double().cosh() ** -4]).amax(0)
    expected = largest + 1e-6 < 1e-5
    assert metric.on_floor(z).tolist() == expected.tolist() == [False, False, True, False, False, True]
    dead = PullbackMetric(lambda z: torch.cat([z[..., :2].tanh(), z[..., :1]], -1), 3)
    assert not dead.on_floor(torch.randn(20, 3, dtype=dtype)).any()
    assert metric.on_floor(z[2]).shape == ()
    assert PullbackMetric(lambda z: torch.cat([z, z**2], -1), 2, jitter=0.0).on_floor(z) is None


class WithoutTensor(PullbackMetric):
    def metric(self, z: Tensor) -> Tensor:
        raise AssertionError("a product of two vectors needs no tensor")


@pytest.mark.parametrize("layers", [True, False])
def test_products_of_vectors_are_those_of_the_tensor_without_it(layers: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 30)).double()
    network.requires_grad_(False)
    immersion = network if layers else lambda z: network(z)
    whole, metric = PullbackMetric(immersion, 8, jitter=0.1), WithoutTensor(immersion, 8, jitter=0.1)
    z, u, v = torch.randn(3, 5, 4, 8, dtype=torch.float64).requires_grad_().unbind()
    tensor = whole.metric(z)
    expected = torch.einsum("...i,...ij,...j->...", u, tensor, v)
    found = metric.inner(z, u, v)
    torch.testing.assert_close(found, expected)
    fewer = torch.einsum("i,...ij,...j->...", u[0, 0], tensor, v[:1].expand_as(z))
    torch.testing.assert_close(metric.inner(z, u[0, 0], v[:1]), fewer)
    torch.testing.assert_close(metric.norm(z, u), torch.einsum("...i,...ij,...j->...", u, tensor, u).sqrt())
    weight = torch.randn(5, 4, dtype=torch.float64)
    pairs = (torch.autograd.grad((part * weight).sum(), (z, u, v)) for part in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)
    mapped = torch.vmap(metric.inner)(z, u, v)
    torch.testing.assert_close(mapped, expected)
    few = WithoutTensor(immersion, 8, jitter=0.1)
    few.max_memory = 3 * 8 * few.footprint(0)  # three points at a time
    with torch.no_grad():
        torch.testing.assert_close(few.norm(z, u), metric.norm(z, u))


def test_many_vectors_at_one_point_share_the_tensor() -> None:
    metric = PullbackMetric(Saddle(), dim=2)
    z, v = torch.randn(2), torch.randn(7, 2)
    torch.testing.assert_close(metric.norm(z, v), metric.norm(z.expand(7, 2), v))
    torch.testing.assert_close(metric.norm(z[None], v), metric.norm(z, v))
