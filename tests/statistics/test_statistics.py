"""Statistics on manifolds against closed forms on symmetric and flat spaces, in other charts too, and differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    Hyperbolic,
    PullbackMetric,
    RiemannianMetric,
    Sphere,
)
from pyro_riemann.statistics import frechet_mean, kmeans, parallel_transport, tangent_pca
from tests.charts import OnlyMetric, shear, warped_hyperbolic, warped_sphere

F64 = torch.float64


def some(count: int, dim: int, size: float = 0.4, seed: int = 0) -> Tensor:
    return size * torch.randn(count, dim, dtype=F64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- means


def test_flat_means_are_weighted_averages() -> None:
    points, weights = some(7, 3), torch.rand(5, 7, dtype=F64)
    matrix = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]], dtype=F64)
    expected = weights @ points / weights.sum(1, keepdim=True)
    for metric in (EuclideanMetric(3), ConstantMetric(matrix)):
        torch.testing.assert_close(frechet_mean(metric, points, weights), expected)


@pytest.mark.parametrize("metric", [Sphere(2), Hyperbolic(3), warped_sphere(2), warped_hyperbolic(2)])
def test_mean_of_two_is_on_the_geodesic(metric: RiemannianMetric) -> None:
    """With weights 1 - s and s the mean of two points is the geodesic's point at time s."""
    z, y = some(2, metric.dim, 0.25)
    for share in (0.1, 0.5, 0.8):
        mean = frechet_mean(metric, torch.stack([z, y]), torch.tensor([1 - share, share], dtype=F64))
        torch.testing.assert_close(mean, metric.expmap(z, share * metric.logmap(z, y)), rtol=0, atol=1e-6)


def test_mean_does_not_depend_on_the_chart_or_the_start() -> None:
    points, warped = some(9, 2), warped_sphere(2)
    mean = frechet_mean(warped, points)
    torch.testing.assert_close(shear(mean), frechet_mean(Sphere(2), shear(points)), rtol=0, atol=1e-7)
    torch.testing.assert_close(frechet_mean(warped, points.flip(0)), mean, rtol=0, atol=1e-7)


def test_mean_around_a_torus_goes_the_short_way() -> None:
    angles = torch.tensor([[3.0], [-3.0], [3.1]], dtype=F64)
    mean = frechet_mean(FlatTorus(1, 2 * math.pi), angles)
    expected = (3.0 + (2 * math.pi - 3.0) + 3.1) / 3
    assert abs(math.remainder(float(mean) - expected, 2 * math.pi)) < 1e-9


def test_mean_with_a_solver_is_that_of_the_closed_form() -> None:
    points = some(6, 2, 0.3)
    with torch.no_grad():
        mean = frechet_mean(OnlyMetric(Sphere(2)), points)
    torch.testing.assert_close(mean, frechet_mean(Sphere(2), points), rtol=0, atol=1e-5)


def test_gradients_of_the_mean_against_differences() -> None:
    points, weights, metric = some(5, 2), torch.rand(5, dtype=F64) + 0.1, warped_hyperbolic(2)
    z, w = points.clone().requires_grad_(), weights.clone().requires_grad_()
    direction = some(1, 2, seed=3)[0]
    slopes = torch.autograd.grad(frechet_mean(metric, z, w) @ direction, (z, w))
    for index, (at, slope) in enumerate(zip((points, weights), slopes, strict=True)):
        step = 1e-5 * torch.randn_like(at)
        ends = []
        for sign in (1, -1):
            moved = [points, weights]
            moved[index] = at + sign * step
            ends.append(frechet_mean(metric, *moved) @ direction)
        torch.testing.assert_close(2 * (slope * step).sum(), ends[0] - ends[1], rtol=1e-5, atol=1e-12)


def test_gradient_of_the_mean_in_the_metrics_parameters() -> None:
    points, direction = some(5, 2), some(1, 2, seed=3)[0]

    def value(width: Tensor) -> Tensor:
        surface = PullbackMetric(lambda x: torch.cat([x, width * torch.sin(x[..., :1])], -1), 2, jitter=0.0)
        return frechet_mean(surface, points) @ direction

    width = torch.tensor(1.2, dtype=F64)
    leaf = width.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    torch.testing.assert_close(2e-4 * slope, value(width + 1e-4) - value(width - 1e-4), rtol=1e-3, atol=1e-10)


def test_value_is_the_same_with_and_without_gradient() -> None:
    points = some(5, 2).requires_grad_()
    with torch.no_grad():
        plain = frechet_mean(Sphere(2), points)
    assert torch.equal(plain, frechet_mean(Sphere(2), points).detach())


def test_means_of_batches_are_those_one_by_one() -> None:
    points = some(24, 3, 0.2).reshape(2, 3, 4, 3)
    both = frechet_mean(Hyperbolic(3), points)
    one_by_one = torch.stack([torch.stack([frechet_mean(Hyperbolic(3), p) for p in row]) for row in points])
    torch.testing.assert_close(both, one_by_one, rtol=0, atol=1e-9)


def test_far_points_of_hyperbolic_space() -> None:
    """Where curvature makes plain averages of logarithms overshoot: six units apart."""
    z = torch.tensor([[0.995, 0.0], [-0.995, 0.0], [0.0, 0.995]], dtype=F64)
    metric = Hyperbolic(2)
    mean = frechet_mean(metric, z)
    pull = metric.logmap(mean.expand_as(z), z).mean(0)
    assert metric.norm(mean, pull) < 1e-6
    assert abs(float(mean[0])) < 1e-9


def test_bad_means_are_refused() -> None:
    with pytest.raises(ValueError, match="weights"):
        frechet_mean(Sphere(2), some(3, 2), torch.tensor([1.0, -1.0, 1.0], dtype=F64))
    with pytest.raises(ValueError, match="broadcast"):
        frechet_mean(Sphere(2), some(3, 2), torch.ones(4, dtype=F64))
    with pytest.raises(ValueError, match=r"\(\*batch, n, 2\)"):
        frechet_mean(Sphere(2), some(3, 2)[0])
    with pytest.warns(UserWarning, match="1 of 1 means"):
        frechet_mean(Hyperbolic(2), some(5, 2, 0.2), max_iterations=1)


# ---------------------------------------------------------------- transport


@pytest.mark.parametrize(
    "metric", [Sphere(2), Hyperbolic(3), warped_sphere(3), OnlyMetric(Sphere(2)), FlatTorus(2, 5.0)]
)
def test_transport_keeps_inner_products_and_the_velocity(metric: RiemannianMetric) -> None:
    z, y = some(4, metric.dim, 0.25, 1), some(4, metric.dim, 0.25, 2)
    u, v = some(4, metric.dim, 1.0, 3), some(4, metric.dim, 1.0, 4)
    with torch.no_grad():
        there = [parallel_transport(metric, z, y, w) for w in (u, v, metric.logmap(z, y))]
        torch.testing.assert_close(metric.inner(y, there[0], there[1]), metric.inner(z, u, v), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(there[2], -metric.logmap(y, z), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parallel_transport(metric, y, z, there[0]), u, rtol=1e-4, atol=1e-5)


def test_both_ways_to_transport_agree() -> None:
    z, y, u = some(3, 3, 0.3, 1), some(3, 3, 0.3, 2), some(3, 3, 1.0, 3)
    ladder = parallel_transport(Sphere(3), z, y, u)
    with torch.no_grad():
        integrated = parallel_transport(OnlyMetric(Sphere(3)), z, y, u)
    torch.testing.assert_close(integrated, ladder, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", [warped_hyperbolic(2), OnlyMetric(Sphere(2))])
def test_gradients_of_transport_against_differences(metric: RiemannianMetric) -> None:
    at = [some(1, 2, 0.3, seed)[0] for seed in (1, 2, 3)]
    direction = some(1, 2, seed=4)[0]

    def value(arguments: list[Tensor]) -> Tensor:
        z, y, u = arguments
        return parallel_transport(metric, z, y, u) @ direction

    leaves = [x.clone().requires_grad_() for x in at]
    slopes = torch.autograd.grad(value(leaves), leaves)
    for index, slope in enumerate(slopes):
        step = 1e-4 * torch.randn_like(at[index])
        ends = [value([x + sign * step if k == index else x for k, x in enumerate(at)]) for sign in (1, -1)]
        torch.testing.assert_close(2 * (slope * step).sum(), ends[0] - ends[1], rtol=1e-4, atol=1e-9)


def test_holonomy_of_a_triangle_is_its_excess() -> None:
    """Around a triangle with three right angles on the sphere a vector comes back turned by its area, pi / 2."""
    sphere = Sphere(2)
    corners = sphere.from_ambient(torch.eye(3, dtype=F64) * torch.tensor([1.0, 1.0, -1.0], dtype=F64).unsqueeze(-1))
    start = torch.tensor([1.0, 0.3], dtype=F64)
    vector = start
    for one, other in ((0, 1), (1, 2), (2, 0)):
        vector = parallel_transport(sphere, corners[one], corners[other], vector)
    size = sphere.norm(corners[0], start) * sphere.norm(corners[0], vector)
    assert abs(float(sphere.inner(corners[0], start, vector) / size)) < 1e-9


def test_a_vector_that_goes_nowhere_stays() -> None:
    z, u = some(2, 2, 0.3), some(2, 2)
    for metric in (Sphere(2), OnlyMetric(Sphere(2))):
        torch.testing.assert_close(parallel_transport(metric, z, z, u), u)
        torch.testing.assert_close(parallel_transport(metric, z, z + 0.1, 0 * u), 0 * u)


# ---------------------------------------------------------------- components and clusters


def test_components_of_flat_space_are_those_of_the_covariance() -> None:
    points = some(50, 3) @ torch.diag(torch.tensor([3.0, 1.0, 0.2], dtype=F64))
    found = tangent_pca(EuclideanMetric(3), points)
    centred = points - points.mean(0)
    values = torch.linalg.eigvalsh(centred.mT @ centred / 50).flip(0)
    torch.testing.assert_close(found.variance, values)
    torch.testing.assert_close(found.points(found.coordinates(points)), points)


def test_components_do_not_depend_on_the_chart() -> None:
    points, warped, sphere = some(20, 2, 0.3), warped_sphere(2), Sphere(2)
    one, other = tangent_pca(warped, points), tangent_pca(sphere, shear(points))
    torch.testing.assert_close(one.variance, other.variance, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        one.coordinates(points).abs(), other.coordinates(shear(points)).abs(), rtol=1e-5, atol=1e-6
    )
    frame = torch.einsum("ki,ij,lj->kl", one.directions, warped.metric(one.mean), one.directions)
    torch.testing.assert_close(frame, torch.eye(2, dtype=F64), rtol=0, atol=1e-9)


def test_clusters_on_both_sides_of_a_cut() -> None:
    """Two clusters on a circle, one of which lies across the seam of the chart."""
    angle = torch.cat([math.pi + some(15, 1, 0.2, 1), some(15, 1, 0.2, 2)])
    angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    found = kmeans(FlatTorus(1, 2 * math.pi), angle, 2, seed=0)
    assert found.converged
    assert found.labels[:15].unique().numel() == 1
    assert found.labels[15:].unique().numel() == 1
    distance = FlatTorus(1, 2 * math.pi).squared_dist(found.centers[found.labels], angle)
    torch.testing.assert_close(found.inertia, distance.mean())


def test_as_many_clusters_as_points() -> None:
    points = some(4, 2)
    found = kmeans(Sphere(2), points, 4, seed=1)
    torch.testing.assert_close(found.inertia, torch.tensor(0.0, dtype=F64), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="num_clusters"):
        kmeans(Sphere(2), points, 5)
