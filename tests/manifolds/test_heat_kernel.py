"""Exact heat kernels: mass, semigroup, heat equation, small and large times, known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import FlatTorus, Hyperbolic, Sphere, WarpedMetric
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from tests.charts import shear, unshear, warped_hyperbolic, warped_sphere, warped_torus

DTYPE = torch.float64
Manifold = Sphere | Hyperbolic | Hyperboloid | HalfSpace | FlatTorus | WarpedMetric


def gauss_legendre(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(low + (high - low) * (nodes + 1) / 2), torch.from_numpy(weights * (high - low) / 2)


def radial(metric: Sphere | Hyperbolic, r: Tensor) -> Tensor:
    """Points at distance r from the origin."""
    half = (r / 2).tan() if metric.curvature > 0 else (r / 2).tanh()
    direction = torch.zeros(metric.dim, dtype=DTYPE)
    direction[0] = 1
    return half[:, None] * direction


@pytest.mark.parametrize("time", [0.01, 0.3, 0.999, 1.001, 3.0])
@pytest.mark.parametrize("dim", [2, 3, 4, 5])
@pytest.mark.parametrize("space", [Sphere, Hyperbolic])
def test_total_mass_is_one(space: type[Sphere] | type[Hyperbolic], dim: int, time: float) -> None:
    metric, origin = space(dim), torch.zeros(dim, dtype=DTYPE)
    end = 14 * time**0.5 + (dim - 1) * time / 2
    r, weights = gauss_legendre(0.0, min(end, math.pi if metric.curvature > 0 else 30.0), 200)
    density = metric.log_heat_kernel(origin, radial(metric, r), time).exp()
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * (r.sin() if metric.curvature > 0 else r.sinh()) ** (dim - 1)
    assert (density * area * weights).sum().item() == pytest.approx(1, abs=1e-7 if dim > 3 else 1e-10)


@pytest.mark.parametrize("time", [0.02, 1.5])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("radius", [0.4, 2.5])
@pytest.mark.parametrize("sign", [1, -1], ids=["sphere", "hyperbolic"])
def test_total_mass_is_one_at_every_radius(sign: int, radius: float, dim: int, time: float) -> None:
    """The area of a ball's edge is that of the unit space, times as many powers of the radius as it has dimensions."""
    metric = Sphere(dim, radius) if sign > 0 else Hyperbolic(dim, -(radius**-2.0))
    end = 14 * time**0.5 + (dim - 1) * time / (2 * radius)
    r, weights = gauss_legendre(0.0, min(end, (math.pi if sign > 0 else 30.0) * radius), 300)
    density = metric.log_heat_kernel(torch.zeros(dim, dtype=DTYPE), radial(metric, r / radius), time).exp()
    sine = (r / radius).sin() if sign > 0 else (r / radius).sinh()
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * (radius * sine) ** (dim - 1)
    assert (density * area * weights).sum().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("time", [0.05, 0.7, 6.0, 8.0])
@pytest.mark.parametrize("metric", [Sphere(1), FlatTorus(1, 3.0)], ids=["circle", "torus"])
def test_mass_on_the_circle(metric: Manifold, time: float) -> None:
    period = 2 * math.pi if isinstance(metric, Sphere) else 3.0
    arc = torch.arange(400, dtype=DTYPE)[:, None] * period / 400 - period / 2 + 1e-3
    z = (arc / 2).tan() if isinstance(metric, Sphere) else arc
    density = metric.log_heat_kernel(torch.full((1,), 0.4, dtype=DTYPE), z, time).exp()
    assert density.mean().item() * period == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "metric",
    [warped_sphere(2), warped_torus(2, 3.0), Hyperboloid(2), HalfSpace(2), warped_hyperbolic(2)],
    ids=["warped sphere", "warped torus", "hyperboloid", "half-space", "warped hyperbolic"],
)
def test_mass_over_a_chart_that_is_not_conformal(metric: Manifold) -> None:
    """Quadrature of the density with respect to dz on a grid of the chart, centre off the origin."""
    axis = torch.linspace(-4.5, 4.5, 151, dtype=DTYPE)
    if isinstance(metric, WarpedMetric) and isinstance(
        metric.base, FlatTorus
    ):  # one period of the base, pulled into the chart
        axis = torch.linspace(-1.5, 1.5, 101, dtype=DTYPE)[:-1]
        grid = metric.from_base(torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
        jacobian = torch.func.vmap(torch.func.jacrev(shear))(grid)
        cell = (axis[1] - axis[0]) ** 2 / torch.linalg.det(jacobian)
    else:
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        cell = (axis[1] - axis[0]) ** 2
    loc = torch.tensor([0.3, -0.2], dtype=DTYPE)
    log_density = metric.log_heat_kernel(loc, grid, 0.1) + metric.logdet(grid) / 2
    assert (log_density.exp() * cell).sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("space, dim", [(Sphere, 2), (Sphere, 3), (Hyperbolic, 2), (Hyperbolic, 3), (Hyperbolic, 4)])
def test_chapman_kolmogorov(space: type[Sphere] | type[Hyperbolic], dim: int) -> None:
    """p_{s+t}(a, b) = int p_s(a, w) p_t(w, b) dM(w), in polar coordinates around a."""
    metric, s, t = space(dim), 0.2, 0.35
    r, radius_weights = gauss_legendre(0.0, math.pi if metric.curvature > 0 else 7.0, 80)
    angle, angle_weights = gauss_legendre(0.0, math.pi, 60)
    half = (r / 2).tan() if metric.curvature > 0 else (r / 2).tanh()
    w = torch.zeros(80, 60, dim, dtype=DTYPE)
    w[..., 0], w[..., 1] = half[:, None] * angle.cos(), half[:, None] * angle.sin()
    ring = 2 * math.pi ** ((dim - 1) / 2) / math.gamma((dim - 1) / 2) * angle.sin() ** (dim - 2)
    volume = (r.sin() if metric.curvature > 0 else r.sinh()) ** (dim - 1)
    a, b = torch.zeros(dim, dtype=DTYPE), torch.zeros(dim, dtype=DTYPE)
    b[0] = 0.45
    product = (metric.log_heat_kernel(a, w, s) + metric.log_heat_kernel(w, b, t)).exp()
    total = torch.einsum("ij,i,j->", product, volume * radius_weights, ring * angle_weights)
    assert total.item() == pytest.approx(metric.log_heat_kernel(a, b, s + t).exp().item(), rel=1e-9)


KERNELS: dict[str, Manifold] = {
    "S1": Sphere(1),
    "S2": Sphere(2),
    "S3": Sphere(3),
    "S4": Sphere(4),
    "warped S2": warped_sphere(2),
    "warped S3": warped_sphere(3),
    "H1": Hyperbolic(1),
    "H2": Hyperbolic(2),
    "H3": Hyperbolic(3),
    "H4": Hyperbolic(4),
    "H5": Hyperbolic(5),
    "hyperboloid2": Hyperboloid(2),
    "half-space3": HalfSpace(3),
    "torus": FlatTorus(2, [2.0, math.inf]),
    "warped torus": WarpedMetric(FlatTorus(2, 2.0), (shear, unshear)),
}


@pytest.mark.parametrize("time", [0.2, 2.0])
@pytest.mark.parametrize("metric", KERNELS.values(), ids=KERNELS.keys())
def test_heat_equation(metric: Manifold, time: float) -> None:
    """d/dt log p = drift . grad log p + (1/2) G^{-1} : (Hess log p + grad log p grad log p^T)."""
    z = torch.linspace(-0.3, 0.2, metric.dim, dtype=DTYPE)
    y = torch.linspace(0.4, -0.1, metric.dim, dtype=DTYPE)
    duration = torch.tensor(time, dtype=DTYPE)
    rate = torch.func.grad(lambda t: metric.log_heat_kernel(z, y, t))(duration)
    slope = torch.func.grad(lambda p: metric.log_heat_kernel(z, p, duration))(y)
    curvature = torch.autograd.functional.hessian(lambda p: metric.log_heat_kernel(z, p, duration), y)
    inverse = torch.linalg.inv(metric.metric(y))
    generator = metric.drift(y) @ slope + 0.5 * (inverse * (curvature + torch.outer(slope, slope))).sum()
    torch.testing.assert_close(rate, generator, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("metric", KERNELS.values(), ids=KERNELS.keys())
def test_symmetric_and_continuous_in_time(metric: Manifold) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.rand(2, 8, metric.dim, dtype=DTYPE, generator=generator) - 0.5
    torch.testing.assert_close(metric.log_heat_kernel(z, y, 0.3), metric.log_heat_kernel(y, z, 0.3))
    for switch in (1.0, 2 * math.pi / math.pi**2):  # S^2, S^3; the circle of length 2
        before, after = (metric.log_heat_kernel(z, y, switch * (1 + sign * 1e-9)) for sign in (-1, 1))
        torch.testing.assert_close(before, after, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("metric", KERNELS.values(), ids=KERNELS.keys())
def test_short_time_expansion(metric: Manifold) -> None:
    """log p = -(d/2) log(2 pi t) - l^2 / 2t + (1/2) log V + t R / 12 + O(t l^2) + O(t^2)."""
    z = torch.linspace(-0.3, 0.2, metric.dim, dtype=DTYPE)
    y = z + 0.05

    def remainder(time: float) -> float:
        flat = -metric.dim / 2 * math.log(2 * math.pi * time) - metric.squared_dist(z, y) / (2 * time)
        expansion = flat + metric.log_van_vleck(z, y) / 2 + time * metric.scalar_curvature(z) / 12
        return (metric.log_heat_kernel(z, y, time) - expansion).abs().item()

    assert remainder(0.02) < 4e-4
    assert remainder(0.002) < 4e-5


@pytest.mark.parametrize("metric", [Sphere(3), warped_sphere(3), Hyperbolic(3), HalfSpace(3)])
def test_expansion_with_both_corrections_is_exact_in_three_dimensions(metric: Manifold) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.rand(2, 8, 3, dtype=DTYPE, generator=generator) - 0.5
    time = 0.05  # images on S^3 are below 1e-60 here
    flat = -1.5 * math.log(2 * math.pi * time) - metric.squared_dist(z, y) / (2 * time)
    expansion = flat + metric.log_van_vleck(z, y) / 2 + time * metric.scalar_curvature(z) / 12
    torch.testing.assert_close(metric.log_heat_kernel(z, y, time), expansion, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_mean_cosine_on_the_sphere(dim: int) -> None:
    """cos(l) is an eigenfunction: E cos(l_t) = exp(-d t / 2)."""
    sphere = Sphere(dim)
    r, weights = gauss_legendre(1e-9, math.pi - 1e-9, 200)
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * r.sin() ** (dim - 1)
    for time in (0.3, 1.5):
        density = sphere.log_heat_kernel(torch.zeros(dim, dtype=DTYPE), radial(sphere, r), time).exp()
        mean = (density * area * weights * r.cos()).sum()
        assert mean.item() == pytest.approx(math.exp(-dim * time / 2), abs=1e-7)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_mean_hyperbolic_cosine(dim: int) -> None:
    """E cosh(l_t) = exp(d t / 2)."""
    ball, time = Hyperbolic(dim), 0.5
    r, weights = gauss_legendre(0.0, 14.0, 200)
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * r.sinh() ** (dim - 1)
    density = ball.log_heat_kernel(torch.zeros(dim, dtype=DTYPE), radial(ball, r), time).exp()
    assert (density * area * weights * r.cosh()).sum().item() == pytest.approx(math.exp(dim * time / 2), rel=1e-9)


def test_sphere_against_its_legendre_series() -> None:
    """A direct sum of spherical harmonics at a time when it has all its digits."""
    sphere, time = Sphere(2), 0.4
    r = torch.linspace(0.0, 2.5, 9, dtype=DTYPE)
    degrees = np.arange(40)
    coefficients = (2 * degrees + 1) / (4 * math.pi) * np.exp(-degrees * (degrees + 1) * time / 2)
    series = np.polynomial.legendre.legval(np.cos(r.numpy()), coefficients)
    kernel = sphere.log_heat_kernel(torch.zeros(2, dtype=DTYPE), radial(sphere, r), time)
    torch.testing.assert_close(kernel, torch.from_numpy(np.log(series)), atol=1e-10, rtol=1e-10)


def test_torus_is_a_product_of_wrapped_normals() -> None:
    torus, time = FlatTorus(2, [2.0, 5.0]), 0.8
    step = torch.tensor([0.7, -2.1], dtype=DTYPE)
    images = torch.arange(-30, 31, dtype=DTYPE)[:, None] * torch.tensor([2.0, 5.0], dtype=DTYPE)
    density = (torch.exp(-(step + images).square() / (2 * time)) / math.sqrt(2 * math.pi * time)).sum(0).prod()
    assert torus.log_heat_kernel(torch.zeros(2, dtype=DTYPE), step, time).item() == pytest.approx(density.log().item())


@pytest.mark.parametrize(
    "metric, volume", [(Sphere(2), 4 * math.pi), (Sphere(3), 2 * math.pi**2), (Sphere(4), 8 * math.pi**2 / 3)]
)
def test_uniform_after_a_long_time(metric: Sphere, volume: float) -> None:
    y = torch.randn(5, metric.dim, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    expected = torch.full((5,), -math.log(volume), dtype=DTYPE)
    torch.testing.assert_close(metric.log_heat_kernel(torch.zeros_like(y), y, 200.0), expected)


@pytest.mark.parametrize("metric", [Sphere(2), Sphere(3)], ids=["S2", "S3"])
@pytest.mark.parametrize("time", [0.05, 0.5, 2.0])
def test_finite_and_flat_at_the_antipode(metric: Sphere, time: float) -> None:
    z = torch.linspace(0.2, 0.6, metric.dim, dtype=DTYPE)
    y = (-z / z.square().sum()).requires_grad_()
    kernel = metric.log_heat_kernel(z, y, time)
    (slope,) = torch.autograd.grad(kernel, y)
    assert torch.isfinite(kernel)
    assert slope.abs().max() < 1e-9
    nearby = metric.log_heat_kernel(z, y.detach() * (1 + 1e-6), time)
    assert nearby.item() == pytest.approx(kernel.item(), abs=1e-6)


@pytest.mark.parametrize("metric", KERNELS.values(), ids=KERNELS.keys())
def test_time_broadcasts_and_float32_follows(metric: Manifold) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.rand(2, 4, metric.dim, dtype=DTYPE, generator=generator) - 0.5
    times = torch.tensor([[0.2], [1.0], [3.0]], dtype=DTYPE)
    kernel = metric.log_heat_kernel(z, y, times)
    assert kernel.shape == (3, 4)
    torch.testing.assert_close(kernel[2, 1], metric.log_heat_kernel(z[1], y[1], 3.0))
    single = metric.log_heat_kernel(z.float(), y.float(), times.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), kernel, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("metric", [Sphere(2), Hyperbolic(2), FlatTorus(2), warped_sphere()])
def test_time_must_be_positive(metric: Manifold, time: float) -> None:
    with pytest.raises(ValueError, match="time"):
        metric.log_heat_kernel(torch.zeros(2), torch.ones(2) / 2, time)
