"""The generic methods of a metric that implements nothing but ``metric(z)``."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_riemann import EuclideanMetric, RiemannianMetric
from tests.charts import OnlyMetric, warped_hyperbolic, warped_sphere


class Polar(RiemannianMetric):
    """The flat plane in polar coordinates (r, phi): every quantity in closed form."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        r = z[..., 0]
        return torch.diag_embed(torch.stack([torch.ones_like(r), r.square()], dim=-1))


def points(*batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*batch, 2, dtype=dtype) + torch.tensor([0.5, 0.0], dtype=dtype)


def central_difference(function, z: Tensor, step: float = 1e-5) -> Tensor:
    columns = [(function(z + e) - function(z - e)) / (2 * step) for e in step * torch.eye(z.shape[-1], dtype=z.dtype)]
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_polar_plane(batch: tuple[int, ...], dtype: torch.dtype) -> None:
    z, v = points(*batch, dtype=dtype), torch.randn(*batch, 2, dtype=dtype)
    r, metric = z[..., 0], Polar()
    torch.testing.assert_close(metric(z), metric.metric(z))
    torch.testing.assert_close(metric.logdet(z), 2 * r.log())
    torch.testing.assert_close(metric.inner(z, v, v), v[..., 0] ** 2 + (r * v[..., 1]) ** 2)
    torch.testing.assert_close(metric.norm(z, v), metric.inner(z, v, v).sqrt())
    # Gamma^r_pp = -r, Gamma^p_rp = 1 / r
    christoffel = torch.stack([-r * v[..., 1] ** 2, 2 * v[..., 0] * v[..., 1] / r], dim=-1)
    torch.testing.assert_close(metric.christoffel(z, v), christoffel)
    # Brownian motion in the plane: the radius drifts by (d - 1) / (2 r)
    torch.testing.assert_close(metric.drift(z), torch.stack([0.5 / r, torch.zeros_like(r)], dim=-1))
    torch.testing.assert_close(metric.logdet_gradient(z), torch.stack([2 / r, torch.zeros_like(r)], dim=-1))
    torch.testing.assert_close(metric.cholesky(z) @ metric.cholesky(z).mT, metric.metric(z))


def test_polar_plane_geodesics_are_straight_lines() -> None:
    z, y = points(20), points(20)
    cartesian = [torch.stack([p[:, 0] * p[:, 1].cos(), p[:, 0] * p[:, 1].sin()], -1) for p in (z, y)]
    torch.testing.assert_close(Polar().dist(z, y), (cartesian[0] - cartesian[1]).norm(dim=-1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("chart", [warped_sphere(2), warped_sphere(3), warped_hyperbolic(2)], ids=str)
def test_first_derivatives_match_finite_differences(chart: RiemannianMetric) -> None:
    metric = OnlyMetric(chart)
    z, v = 0.5 * torch.randn(2, 4, chart.dim, dtype=torch.float64)
    value, slope = metric.metric_jacobian(z)
    torch.testing.assert_close(value, chart.metric(z))
    expected = central_difference(chart.metric, z)
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-8)
    value, covector, along = metric.metric_derivatives(z, v)
    torch.testing.assert_close(value, chart.metric(z))
    torch.testing.assert_close(covector, torch.einsum("nijk,nj->nik", expected, v), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(along, torch.einsum("nijk,nk->nij", expected, v), rtol=1e-7, atol=1e-8)
    gradient = central_difference(lambda p: metric.logdet(p), z)
    torch.testing.assert_close(metric.logdet_gradient(z), gradient, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("chart", [warped_sphere(2), warped_sphere(3), warped_hyperbolic(2)], ids=str)
def test_drift_is_the_laplacian_of_the_coordinates(chart: RiemannianMetric) -> None:
    # b^i = 1/2 g^{-1/2} d_j (g^{1/2} g^{ij}): half the Laplace-Beltrami operator of z^i, by finite differences
    z = 0.5 * torch.randn(4, chart.dim, dtype=torch.float64)

    def flux(p: Tensor) -> Tensor:
        return (0.5 * chart.logdet(p)).exp()[..., None, None] * torch.linalg.inv(chart.metric(p))

    divergence = central_difference(flux, z).diagonal(dim1=-2, dim2=-1).sum(-1)
    expected = 0.5 * divergence / (0.5 * chart.logdet(z)).exp().unsqueeze(-1)
    torch.testing.assert_close(OnlyMetric(chart).drift(z), expected, rtol=1e-6, atol=1e-8)


def test_christoffel_annihilates_the_metric() -> None:
    # d/dt G(z)(v, v) = 0 along a geodesic: dG[v](v, v) = 2 G(Gamma(v, v), v)
    metric = OnlyMetric(warped_sphere(3))
    z, v = 0.5 * torch.randn(2, 5, 3, dtype=torch.float64)
    _, _, along = metric.metric_derivatives(z, v)
    rate = torch.einsum("ni,nij,nj->n", v, along, v)
    torch.testing.assert_close(rate, 2 * metric.inner(z, metric.christoffel(z, v), v))


def test_logdet_neither_underflows_nor_overflows_in_float32() -> None:
    class Scaled(RiemannianMetric):
        dim = 64

        def metric(self, z: Tensor) -> Tensor:
            return 1e-3 * torch.eye(64).expand(*z.shape, 64)

    assert Scaled().logdet(torch.zeros(64)).item() == pytest.approx(64 * math.log(1e-3), rel=1e-6)


def test_gradients_reach_point_and_parameters() -> None:
    class Stretched(RiemannianMetric):
        dim = 2

        def __init__(self) -> None:
            super().__init__()
            self.log_scale = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def metric(self, z: Tensor) -> Tensor:
            return torch.diag_embed(self.log_scale.exp() * (1 + z.square()))

    metric = Stretched()
    z = points(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, _: metric.logdet(p), (z, metric.log_scale))
    assert torch.autograd.gradcheck(lambda p, _: metric.drift(p), (z, metric.log_scale))
    assert "log_scale" in metric.state_dict()


def test_norm_of_zero_has_zero_gradient() -> None:
    v = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    Polar().norm(points(), v).backward()
    assert v.grad is not None
    assert v.grad.tolist() == [0.0, 0.0]


def test_indefinite_metric_is_named() -> None:
    with pytest.raises(ValueError, match=r"not positive definite.*z = \[0\.0"):
        Polar().logdet(torch.zeros(2, dtype=torch.float64))


def test_metric_must_be_implemented() -> None:
    with pytest.raises(NotImplementedError, match="metric"):
        RiemannianMetric().metric(torch.zeros(2))


def test_batches_broadcast() -> None:
    z, v = points(4, 1), torch.randn(3, 2, dtype=torch.float64)
    metric = Polar()
    assert metric.inner(z, v, v).shape == (4, 3)
    torch.testing.assert_close(metric.inner(z, v, v)[2, 1], metric.inner(z[2, 0], v[1], v[1]))
    assert EuclideanMetric(2).dist(z, v).shape == (4, 3)


@pytest.mark.parametrize("name", ["metric", "logdet", "drift", "logdet_gradient"])
def test_traces(name: str) -> None:
    metric = OnlyMetric(warped_sphere(2))
    z = 0.5 * torch.randn(3, 2, dtype=torch.float64)
    traced = torch.jit.trace(lambda p: getattr(metric, name)(p), (z,))
    torch.testing.assert_close(traced(0.7 * z), getattr(metric, name)(0.7 * z))
