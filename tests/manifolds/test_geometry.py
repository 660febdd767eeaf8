"""Closed forms against independent routes to the same numbers, in every chart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from pyro_riemann import FlatTorus, Hyperbolic, RiemannianMetric, Sphere, WarpedMetric
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from tests.charts import OnlyMetric, all_charts, cylinder, shear, sphere_pullback, warped_hyperbolic, warped_sphere

CHARTS = all_charts()
charts = pytest.mark.parametrize("metric", CHARTS.values(), ids=CHARTS.keys())


def some_points(dim: int, batch: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two batches of points with |z| < 1 and one of vectors."""
    generator = torch.Generator().manual_seed(seed)
    z, y, v = torch.rand(3, batch, dim, dtype=torch.float64, generator=generator) - 0.5
    return z, y, v


# ---------------------------------------------------------------- the metric tensor


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_sphere_metric_is_the_pullback_of_its_embedding(dim: int) -> None:
    sphere, (z, _, _) = Sphere(dim), some_points(dim)
    jacobian = torch.func.vmap(torch.func.jacrev(sphere.to_ambient))(z)
    torch.testing.assert_close(sphere.metric(z), jacobian.mT @ jacobian)
    assert torch.allclose(sphere.to_ambient(z).norm(dim=-1), torch.ones(6, dtype=z.dtype))
    torch.testing.assert_close(sphere.from_ambient(sphere.to_ambient(z)), z)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_hyperboloid_metric_is_the_pullback_of_the_minkowski_form(dim: int) -> None:
    def embed(x: Tensor) -> Tensor:
        return torch.cat([x, (1 + x.square().sum(-1, keepdim=True)).sqrt()], dim=-1)

    form = torch.diag(torch.tensor([1.0] * dim + [-1.0], dtype=torch.float64))
    x, y, _ = some_points(dim)
    jacobian = torch.func.vmap(torch.func.jacrev(embed))(x)
    torch.testing.assert_close(Hyperboloid(dim).metric(x), jacobian.mT @ form @ jacobian)
    minkowski = -torch.einsum("...i,ij,...j->...", embed(x), form, embed(y))
    torch.testing.assert_close(Hyperboloid(dim).dist(x, y).cosh(), minkowski)


@pytest.mark.parametrize("dim", [2, 3])
def test_half_space_metric_is_the_textbook_one(dim: int) -> None:
    z, y, _ = some_points(dim)
    scale = torch.exp(-2 * z[..., -1:]).expand_as(z).clone()
    scale[..., -1] = 1
    torch.testing.assert_close(HalfSpace(dim).metric(z), torch.diag_embed(scale))
    # cosh of the distance in the upper half-space
    high, low = z[..., -1].exp(), y[..., -1].exp()
    gap = (z - y)[..., :-1].square().sum(-1) + (high - low).square()
    torch.testing.assert_close(HalfSpace(dim).dist(z, y).cosh(), 1 + gap / (2 * high * low))


@charts
def test_pointwise_algebra_agrees_with_the_tensor(metric: RiemannianMetric) -> None:
    z, u, v = some_points(metric.dim)
    tensor, generic = metric.metric(z), OnlyMetric(metric)
    torch.testing.assert_close(metric.logdet(z), torch.logdet(tensor))
    torch.testing.assert_close(metric.cholesky(z), torch.linalg.cholesky(tensor))
    torch.testing.assert_close(metric.inner(z, u, v), torch.einsum("...i,...ij,...j->...", u, tensor, v))
    torch.testing.assert_close(metric.norm(z, v), generic.norm(z, v))


@charts
def test_derivatives_agree_with_the_generic_ones(metric: RiemannianMetric) -> None:
    z, _, v = some_points(metric.dim)
    generic = OnlyMetric(metric)
    torch.testing.assert_close(metric.metric_jacobian(z), generic.metric_jacobian(z))
    torch.testing.assert_close(metric.christoffel(z, v), generic.christoffel(z, v))
    torch.testing.assert_close(metric.drift(z), generic.drift(z))
    torch.testing.assert_close(metric.scalar_curvature(z), generic.scalar_curvature(z), atol=1e-9, rtol=1e-9)


@charts
def test_drift_is_half_the_laplacian_of_the_coordinates(metric: RiemannianMetric) -> None:
    """b^i = (1/2) g^{-1/2} d_j (g^{1/2} g^{ij}), straight from the definition."""
    z, _, _ = some_points(metric.dim, batch=3)

    def weighted(point: Tensor) -> Tensor:
        return torch.exp(metric.logdet(point) / 2) * torch.linalg.inv(metric.metric(point))

    expected = []
    for point in z:
        jacobian = torch.autograd.functional.jacobian(weighted, point)
        expected.append(torch.einsum("ijj->i", jacobian) / 2 / torch.exp(metric.logdet(point) / 2))
    torch.testing.assert_close(metric.drift(z), torch.stack(expected))


def test_drift_vanishes_in_conformal_charts_of_surfaces_only() -> None:
    z = some_points(2)[0]
    assert Sphere(2).drift(z).abs().max() == 0
    assert Hyperbolic(2).drift(z).abs().max() == 0
    for metric in (warped_sphere(), Hyperboloid(2), HalfSpace(2), warped_hyperbolic()):
        assert metric.drift(z).norm(dim=-1).max() > 0.1
    torch.testing.assert_close(HalfSpace(3).drift(some_points(3)[0])[:, 2], torch.full((6,), -1.0, dtype=z.dtype))


# ---------------------------------------------------------------- geodesics


@charts
def test_expmap_inverts_logmap(metric: RiemannianMetric) -> None:
    z, y, _ = some_points(metric.dim)
    velocity = metric.logmap(z, y)
    torch.testing.assert_close(metric.expmap(z, velocity), y, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(metric.norm(z, velocity), metric.dist(z, y))


@charts
def test_logmap_inverts_expmap(metric: RiemannianMetric) -> None:
    z, _, v = some_points(metric.dim)
    torch.testing.assert_close(metric.logmap(z, metric.expmap(z, v)), v, atol=1e-12, rtol=1e-12)


@charts
def test_distance_is_a_symmetric_metric(metric: RiemannianMetric) -> None:
    z, y, w = some_points(metric.dim, batch=20)
    torch.testing.assert_close(metric.dist(z, y), metric.dist(y, z))
    assert (metric.dist(z, y) <= metric.dist(z, w) + metric.dist(w, y) + 1e-14).all()
    assert (metric.dist(z, z) == 0).all()


@charts
def test_geodesic_has_the_length_of_its_chords(metric: RiemannianMetric) -> None:
    z, y, _ = some_points(metric.dim)
    curve = metric.geodesic(z, y, num_segments=400)
    steps, middle = curve.points.diff(dim=0), (curve.points[1:] + curve.points[:-1]) / 2
    torch.testing.assert_close(metric.norm(middle, steps).sum(0), curve.length, atol=1e-6, rtol=3e-5)
    torch.testing.assert_close(curve.length, metric.dist(z, y))
    torch.testing.assert_close(curve.energy, metric.squared_dist(z, y) / 2)
    torch.testing.assert_close(curve.points[-1], y, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(curve(0.5), curve.points[200])
    assert curve.converged.all()


def directional(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], torch.func.jvp(function, (t,), (torch.ones_like(t),)))


@charts
def test_geodesics_solve_the_geodesic_equation(metric: RiemannianMetric) -> None:
    """z'' = -Gamma(z', z'), both sides along the closed-form curve."""
    z, _, v = some_points(metric.dim)

    def curve(t: Tensor) -> Tensor:
        return metric.expmap(z, t * v)

    def velocity(t: Tensor) -> Tensor:
        return directional(curve, t)[1]

    time = torch.tensor(0.7, dtype=z.dtype)
    speed, acceleration = directional(velocity, time)
    torch.testing.assert_close(acceleration, -metric.christoffel(curve(time), speed), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
def test_sphere_distance_is_the_angle_of_the_embedded_points(dim: int) -> None:
    z, y, _ = some_points(dim)
    for metric, to_chart in ((Sphere(dim), lambda x: x), (warped_sphere(dim), shear)):
        first, second = Sphere(dim).to_ambient(to_chart(3 * z)), Sphere(dim).to_ambient(to_chart(3 * y))
        torch.testing.assert_close(metric.dist(3 * z, 3 * y), (first * second).sum(-1).acos())


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("chart", [Hyperboloid, HalfSpace])
def test_charts_of_hyperbolic_space_agree(chart: type[Hyperboloid] | type[HalfSpace], dim: int) -> None:
    """The charts that are all of R^d have formulas of their own; the ball in their coordinates must agree."""
    metric = chart(dim)
    warped = WarpedMetric(Hyperbolic(dim), (metric.to_ball, metric.from_ball))
    z, y, v = (2 * value for value in some_points(dim))
    for name in ("metric", "logdet", "drift", "scalar_curvature"):
        torch.testing.assert_close(getattr(metric, name)(z), getattr(warped, name)(z))
    for name in ("dist", "logmap", "log_van_vleck"):
        torch.testing.assert_close(getattr(metric, name)(z, y), getattr(warped, name)(z, y))
    for name in ("expmap", "christoffel", "expmap_log_van_vleck"):
        torch.testing.assert_close(getattr(metric, name)(z, v), getattr(warped, name)(z, v))
    torch.testing.assert_close(metric.log_heat_kernel(z, y, 0.4), warped.log_heat_kernel(z, y, 0.4))


@pytest.mark.parametrize("up", [-3.0, 0.49, 0.51, 3.0, 30.0])
def test_half_space_geodesics_run_steeply_up_and_down(up: float) -> None:
    metric, z = HalfSpace(2), torch.tensor([0.3, 0.5], dtype=torch.float64)
    straight = metric.expmap(z, torch.tensor([0.0, up], dtype=torch.float64))
    torch.testing.assert_close(straight, torch.tensor([0.3, 0.5 + up], dtype=torch.float64))
    v = torch.tensor([1e-3, up], dtype=torch.float64)
    torch.testing.assert_close(metric.dist(z, metric.expmap(z, v)), metric.norm(z, v))


def test_the_pullback_of_the_embedded_sphere_has_the_same_tensor_and_drift() -> None:
    z = some_points(2)[0]
    pullback, exact = sphere_pullback(), warped_sphere()
    torch.testing.assert_close(pullback.metric(z), exact.metric(z))
    torch.testing.assert_close(pullback.drift(z), exact.drift(z))


# ---------------------------------------------------------------- Van Vleck-Morette determinant


@charts
def test_log_van_vleck_is_the_jacobian_of_the_exponential_map(metric: RiemannianMetric) -> None:
    z, _, v = some_points(metric.dim)
    y, log_van_vleck = metric.expmap_log_van_vleck(z, v)
    torch.testing.assert_close(y, metric.expmap(z, v))
    torch.testing.assert_close(log_van_vleck, metric.log_van_vleck(z, y), atol=1e-12, rtol=1e-12)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda u, p=p: metric.expmap(p, u), w) for p, w in zip(z, v, strict=True)]
    )
    expected = (metric.logdet(z) - metric.logdet(y)) / 2 - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_van_vleck, expected, atol=1e-12, rtol=1e-12)


@charts
def test_log_van_vleck_is_the_mixed_hessian_of_the_squared_distance(metric: RiemannianMetric) -> None:
    z, y, _ = some_points(metric.dim, batch=3)
    for first, second in zip(z, y, strict=True):
        mixed = torch.autograd.functional.hessian(lambda a, b: metric.squared_dist(a, b) / 2, (first, second))[0][1]
        expected = torch.linalg.slogdet(mixed).logabsdet - (metric.logdet(first) + metric.logdet(second)) / 2
        torch.testing.assert_close(metric.log_van_vleck(first, second), expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(
    "metric, length, expected",
    [
        (Sphere(2), 2.289, 1.11124),
        (warped_sphere(2), 2.289, 1.11124),
        (Sphere(3), 1.930, 1.44743),
        (warped_sphere(3), 1.930, 1.44743),
        (Hyperbolic(2), 2.116, -0.65886),
        (Hyperboloid(2), 2.116, -0.65886),
        (Hyperbolic(3), 2.144, -1.34838),
        (HalfSpace(3), 2.144, -1.34838),
        (FlatTorus(2, [2 * math.pi, math.inf]), 2.0, 0.0),
    ],
)
def test_log_van_vleck_has_the_published_values(metric: RiemannianMetric, length: float, expected: float) -> None:
    """The lengths are rounded to 5e-4, hence the tolerance."""
    z, direction = torch.full((metric.dim,), 0.1, dtype=torch.float64), torch.ones(metric.dim, dtype=torch.float64)
    velocity = length * direction / metric.norm(z, direction)
    y, log_van_vleck = metric.expmap_log_van_vleck(z, velocity)
    assert log_van_vleck.item() == pytest.approx(expected, abs=7e-4)
    assert metric.log_van_vleck(z, y).item() == pytest.approx(log_van_vleck.item(), abs=1e-12)


def test_the_cylinder_pullback_is_flat() -> None:
    z = some_points(2)[0]
    pullback, flat = cylinder(), FlatTorus(2, [2 * math.pi, math.inf])
    torch.testing.assert_close(pullback.metric(z), flat.metric(z))
    torch.testing.assert_close(pullback.scalar_curvature(z), flat.scalar_curvature(z), atol=1e-12, rtol=0)
