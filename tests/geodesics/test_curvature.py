"""Scalar curvature of known manifolds, in charts that are not conformal, by both routes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann import EuclideanMetric, PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann.geodesics import scalar_curvature
from pyro_riemann.geodesics._curvature import gauss_curvature, riemann_curvature
from tests import charts
from tests.explicit import HalfSpace, Hyperboloid


class Product(RiemannianMetric):
    """Riemannian product: block-diagonal metric, curvatures add."""

    def __init__(self, left: RiemannianMetric, right: RiemannianMetric) -> None:
        super().__init__()
        self.left, self.right, self.dim = left, right, left.dim + right.dim

    def metric(self, z: Tensor) -> Tensor:
        first, second = self.left.metric(z[..., : self.left.dim]), self.right.metric(z[..., self.left.dim :])
        upper = torch.nn.functional.pad(first, (0, self.right.dim))
        return torch.cat([upper, torch.nn.functional.pad(second, (self.left.dim, 0))], dim=-2)


def points(dim: int) -> Tensor:
    return 0.4 * torch.randn(2, 3, dim, dtype=torch.float64)


CASES: dict[str, tuple[RiemannianMetric, float]] = {
    "sphere2": (charts.warped_sphere(2), 2.0),
    "sphere3": (charts.warped_sphere(3), 6.0),
    "hyperbolic2": (Hyperboloid(), -2.0),
    "hyperbolic3": (HalfSpace(), -6.0),
    "warped hyperbolic2": (charts.warped_hyperbolic(2), -2.0),
    "torus": (charts.warped_torus(2), 0.0),
    "sphere2 x hyperbolic2": (Product(charts.warped_sphere(2), Hyperboloid()), 0.0),
    "sphere2 x line": (Product(charts.warped_sphere(2), EuclideanMetric(1)), 2.0),
}


@pytest.mark.parametrize("name", CASES)
def test_riemann_tensor_gives_the_known_curvature(name: str) -> None:
    metric, expected = CASES[name]
    value = riemann_curvature(charts.OnlyMetric(metric), points(metric.dim))
    assert value.shape == (2, 3)
    torch.testing.assert_close(value, torch.full_like(value, expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("metric", "expected"), [(charts.sphere_pullback(2), 2.0), (charts.cylinder(), 0.0)])
def test_gauss_equation_gives_the_known_curvature(metric: PullbackMetric, expected: float) -> None:
    value = scalar_curvature(metric, points(2))
    torch.testing.assert_close(value, torch.full_like(value, expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_both_routes_agree_on_a_network(dim: int) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(dim, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6), torch.nn.Softplus())
    metric = PullbackMetric(net.double(), dim, jitter=0.01)
    z = points(dim)
    gauss, riemann = gauss_curvature(metric, z), riemann_curvature(metric, z)
    torch.testing.assert_close(gauss, riemann, rtol=1e-8, atol=1e-8)
    if dim == 1:
        torch.testing.assert_close(gauss, torch.zeros_like(gauss), rtol=0, atol=1e-9)


def test_scaling_the_sphere_divides_the_curvature() -> None:
    radius = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    sphere = Sphere(2)
    metric = PullbackMetric(lambda z: radius * sphere.to_ambient(charts.shear(z)), 2, jitter=0.0)
    value = metric.scalar_curvature(points(2)).mean()
    torch.testing.assert_close(value, 2 / radius.square(), rtol=1e-10, atol=0)
    (slope,) = torch.autograd.grad(value, radius)
    torch.testing.assert_close(slope, -4 / radius.detach() ** 3, rtol=1e-8, atol=0)


def test_float32_and_bad_shapes() -> None:
    value = charts.sphere_pullback(2).scalar_curvature(points(2).float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, torch.full_like(value, 2.0), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="`z` must have shape"):
        scalar_curvature(charts.cylinder(), torch.zeros(3))
