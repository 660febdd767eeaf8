"""Scaled metrics, products, and spheres and hyperbolic spaces of any curvature: laws that follow from the parts'."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import (
    EuclideanMetric,
    FlatTorus,
    Hyperbolic,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
    brownian_motion,
)
from pyro_riemann.manifolds import SPD, HalfSpace, Hyperboloid, ProductMetric, ScaledMetric
from pyro_riemann.statistics import parallel_transport
from tests.charts import OnlyMetric, shear, unshear

F64 = torch.float64
LAWS: list[type] = [RiemannianNormal, RiemannianWrappedNormal, RiemannianHeatKernel]


def some_points(dim: int, batch: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    z, y, v = torch.rand(3, batch, dim, dtype=F64, generator=torch.Generator().manual_seed(dim)) - 0.5
    return z, y, v


# ---------------------------------------------------------------- curvature


@pytest.mark.parametrize("radius", [0.3, 2.0])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_sphere_of_any_radius_is_that_of_its_embedding(radius: float, dim: int) -> None:
    sphere, (z, y, _) = Sphere(dim, radius), some_points(dim)
    first, second = sphere.to_ambient(z), sphere.to_ambient(y)
    torch.testing.assert_close(first.norm(dim=-1), torch.full((5,), radius, dtype=F64))
    torch.testing.assert_close(sphere.dist(z, y), radius * ((first * second).sum(-1) / radius**2).acos())
    torch.testing.assert_close(sphere.from_ambient(first), z)
    jacobian = torch.func.vmap(torch.func.jacrev(sphere.to_ambient))(z)
    torch.testing.assert_close(sphere.metric(z), jacobian.mT @ jacobian)
    assert sphere.injectivity_radius(z).unique().item() == pytest.approx(math.pi * radius)


@pytest.mark.parametrize("chart", [Hyperbolic, Hyperboloid, HalfSpace])
@pytest.mark.parametrize("curvature", [-0.25, -3.0])
def test_hyperbolic_space_of_any_curvature_is_that_of_its_embedding(
    chart: type[Hyperbolic] | type[Hyperboloid] | type[HalfSpace], curvature: float
) -> None:
    metric, (z, y, _) = chart(3, curvature), some_points(3)
    form = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=F64)
    first, second = metric.to_ambient(z), metric.to_ambient(y)
    torch.testing.assert_close((form * first * first).sum(-1), torch.full((5,), 1 / curvature, dtype=F64))
    cosh = curvature * (form * first * second).sum(-1)
    torch.testing.assert_close(metric.dist(z, y), cosh.acosh() / (-curvature) ** 0.5)
    torch.testing.assert_close(metric.from_ambient(first), z)
    jacobian = torch.func.vmap(torch.func.jacrev(metric.to_ambient))(z)
    torch.testing.assert_close(metric.metric(z), jacobian.mT @ torch.diag(form) @ jacobian)
    with pytest.raises(ValueError, match="hyperboloid"):
        metric.from_ambient(2 * first)


@pytest.mark.parametrize("make", [lambda: Sphere(2, 0.0), lambda: Sphere(2, math.inf), lambda: Hyperbolic(2, 1.0)])
def test_curvature_of_the_wrong_kind_raises(make: Callable[[], RiemannianMetric]) -> None:
    with pytest.raises(ValueError, match=r"radius|curvature"):
        make()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "curved, unit, factor",
    [
        (Sphere(2, 1.5), Sphere(2), 2.25),
        (Sphere(1, 0.4), Sphere(1), 0.16),
        (Hyperbolic(3, -2.0), Hyperbolic(3), 0.5),
        (Hyperboloid(2, -0.5), Hyperboloid(2), 2.0),
    ],
    ids=repr,
)
def test_laws_scale_with_the_metric(law: type, curved: RiemannianMetric, unit: RiemannianMetric, factor: float) -> None:
    """The same points at c times the variance: densities in the chart do not change."""
    z, y, _ = some_points(unit.dim)
    spread = 0.3
    grown = spread * factor if law is not RiemannianNormal else spread * factor**0.5
    expected = law(z, spread, unit).log_prob(y)
    for metric in (curved, ScaledMetric(unit, factor)):
        torch.testing.assert_close(law(z, grown, metric).log_prob(y), expected)
    exact = unit.log_heat_kernel(z, y, 0.3) + 0.5 * unit.logdet(y)
    for metric in (curved, ScaledMetric(unit, factor)):
        torch.testing.assert_close(metric.log_heat_kernel(z, y, 0.3 * factor) + 0.5 * metric.logdet(y), exact)


def test_factor_of_a_scaled_metric_is_learned_with_its_laws() -> None:
    metric = ScaledMetric(WarpedMetric(Sphere(2), (shear, unshear)), nn.Parameter(torch.tensor(1.7, dtype=F64)))
    z, y, _ = some_points(2)

    def total(factor: Tensor) -> Tensor:
        values = [law(z, 0.4, ScaledMetric(metric.base, factor)).log_prob(y).sum() for law in LAWS]
        return torch.stack(values).sum()

    torch.autograd.gradcheck(total, (metric.factor.detach().clone().requires_grad_(),))
    assert [*dict(metric.named_parameters())] == ["factor"]
    assert metric.float().metric(z.float()).dtype == torch.float32


def test_scaling_a_numerical_metric_scales_its_geodesics() -> None:
    base = OnlyMetric(Hyperboloid(2))
    metric, (z, y, _) = ScaledMetric(base, 4.0), some_points(2, 2)
    torch.testing.assert_close(metric.dist(z, y), 2 * base.dist(z, y))
    curve, other = metric.geodesic(z, y), base.geodesic(z, y)
    torch.testing.assert_close(curve.length, 2 * other.length)
    torch.testing.assert_close(curve(0.3), other(0.3))
    torch.testing.assert_close(RiemannianNormal(z, 0.6, metric).log_prob(y), RiemannianNormal(z, 0.3, base).log_prob(y))


# ---------------------------------------------------------------- products


PARTS: list[RiemannianMetric] = [Sphere(2, 0.9), ScaledMetric(HalfSpace(1), 2.0), FlatTorus(1, 3.0), Hyperboloid(2)]


@pytest.mark.parametrize("law", LAWS)
def test_laws_on_a_product_are_products_of_laws(law: type) -> None:
    product = ProductMetric(PARTS)
    z, y, _ = some_points(product.dim)
    whole = law(z, 0.4, product)
    parts = [law(x, 0.4, metric) for metric, x in zip(PARTS, product.split(z), strict=True)]
    expected = [part.log_prob(x) for part, x in zip(parts, product.split(y), strict=True)]
    torch.testing.assert_close(whole.log_prob(y), torch.stack(expected).sum(0))
    if law is not RiemannianWrappedNormal:
        sums = torch.stack([part.log_normalizer().value for part in parts]).sum(0)
        torch.testing.assert_close(whole.log_normalizer().value, sums)
        torch.testing.assert_close(whole.mean, torch.cat([part.mean for part in parts], -1))
    exact = [metric.log_heat_kernel(a, b, 0.4) for metric, a, b in zip(PARTS, *map(product.split, (z, y)), strict=True)]
    torch.testing.assert_close(product.log_heat_kernel(z, y, 0.4), torch.stack(exact).sum(0))


def test_a_flat_product_is_the_textbook_gaussian() -> None:
    product = ProductMetric([EuclideanMetric(1), ScaledMetric(EuclideanMetric(2), 4.0)])
    z, y, _ = some_points(3)
    gaussian = torch.distributions.Normal(z, torch.tensor([0.6, 0.3, 0.3], dtype=F64)).log_prob(y).sum(-1)
    torch.testing.assert_close(RiemannianNormal(z, 0.6, product).log_prob(y), gaussian)
    torch.testing.assert_close(RiemannianWrappedNormal(z, 0.36, product).log_prob(y), gaussian)


def test_draws_on_a_product_are_those_of_the_factors() -> None:
    torch.manual_seed(0)
    product = ProductMetric([Sphere(2, 0.7), EuclideanMetric(2), HalfSpace(2, -0.5)])
    loc = torch.full((product.dim,), 0.2, dtype=F64)
    law = RiemannianNormal(loc, 0.5, product)
    draws = law.sample((20_000,))
    assert law.sampling_report == ("exact", 1.0)
    squares = []
    for metric, x, centre in zip(product.factors, product.split(draws), product.split(loc), strict=True):
        squared = metric.squared_dist(centre.expand_as(x), x)
        own = RiemannianNormal(centre, 0.5, metric).sample((20_000,))
        other = metric.squared_dist(centre.expand_as(own), own)
        error = ((squared.var() + other.var()) / 20_000).sqrt()
        assert abs(squared.mean() - other.mean()) < 4 * error
        squares.append(squared)
    correlation = torch.corrcoef(torch.stack(squares))
    assert (correlation - torch.eye(3, dtype=F64)).abs().max() < 4 / 20_000**0.5


def test_brownian_motion_on_a_product_moves_independently_in_its_factors() -> None:
    """S^2 x H^2 has scalar curvature 0, which says nothing of the steps that it takes; and matrices along a line."""
    torch.manual_seed(0)
    product, time, count = ProductMetric([Sphere(2), Hyperboloid(2)]), 1.5, 20_000
    start = torch.full((product.dim,), 0.2, dtype=F64).expand(count, -1)
    end = brownian_motion(product, start, time)
    first, second = (
        metric.dist(a, b)
        for metric, a, b in zip(product.factors, product.split(start), product.split(end), strict=True)
    )
    for value, exact in ((first.cos(), math.exp(-time)), (second.cosh(), math.exp(time))):
        assert abs(value.mean() - exact) < 4 * (value.var() / count).sqrt() + 0.01 * exact
    matrices = brownian_motion(SPD(2), torch.zeros(count, 3, dtype=F64), 0.5)
    along = math.sqrt(2) * matrices[:, 1:].sum(-1)  # the log determinant, as a length
    assert abs(along.var() / 0.5 - 1) < 4 * math.sqrt(2 / count) + 0.01


def test_mass_on_a_product_with_a_numerical_factor_and_in_other_coordinates() -> None:
    parts = [OnlyMetric(Hyperboloid(2)), Sphere(1)]
    loc = torch.full((1, 3), 0.2, dtype=F64)
    law = RiemannianNormal(loc, 0.4, ProductMetric(parts))
    exact = RiemannianNormal(loc, 0.4, ProductMetric([Hyperboloid(2), Sphere(1)]))
    assert abs(law.log_normalizer().value - exact.log_normalizer().value).item() < 1e-3
    assert law.sampling_report.method == "rejection"
    assert law.sample().shape == (1, 3)
    warped = WarpedMetric(ProductMetric([Hyperboloid(2), Sphere(1)]), (shear, unshear))
    there = RiemannianNormal(unshear(loc), 0.4, warped)
    torch.testing.assert_close(there.log_normalizer().value, exact.log_normalizer().value)
    torch.manual_seed(0)
    draws = there.sample((4000,)).squeeze(1)
    error = (draws.var(0) / len(draws)).sqrt()
    assert ((draws.mean(0) - there.mean.squeeze(0)).abs() < 4 * error).all()


@pytest.mark.parametrize("law", [RiemannianNormal, RiemannianHeatKernel])
def test_moments_on_a_product_follow_its_coordinates(law: type) -> None:
    """In the same coordinates in reverse order, by another rule."""
    product, loc = ProductMetric([Sphere(2), EuclideanMetric(1)]), torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    backward = WarpedMetric(product, (lambda z: z.flip(-1), lambda x: x.flip(-1)))
    spread = 0.3 if law is RiemannianNormal else 0.09
    own, other = law(loc, spread, product), law(loc.flip(-1), spread, backward)
    torch.testing.assert_close(other.mean, own.mean.flip(-1))
    torch.testing.assert_close(other.variance, own.variance.flip(-1), rtol=1e-3, atol=0)


def test_product_geodesics_bound_the_injectivity_radius() -> None:
    product = ProductMetric([Sphere(2, 0.5), FlatTorus(1, 2.0), SPD(2)])
    z, y, _ = some_points(product.dim)
    assert product.injectivity_radius(z).unique().item() == 1.0
    curve = product.geodesic(z, y, num_segments=200)
    steps, middle = curve.points.diff(dim=0), (curve.points[1:] + curve.points[:-1]) / 2
    torch.testing.assert_close(product.norm(middle, steps).sum(0), curve.length, atol=1e-6, rtol=1e-4)
    assert ProductMetric([Sphere(2), OnlyMetric(Sphere(2))]).injectivity_radius(some_points(4)[0]) is None


def test_transport_on_a_product_is_that_in_its_factors() -> None:
    product = ProductMetric([Sphere(2, 0.5), SPD(2)])
    z, y, u = some_points(product.dim)
    parts = zip(product.factors, *map(product.split, (z, y, u)), strict=True)
    expected = torch.cat([parallel_transport(metric, *args) for metric, *args in parts], -1)
    torch.testing.assert_close(parallel_transport(product, z, y, u), expected)


@pytest.mark.parametrize("metrics", [[], [Sphere(2), "sphere"]])
def test_product_of_no_metrics_raises(metrics: list[RiemannianMetric]) -> None:
    with pytest.raises((TypeError, ValueError), match="`metrics` must"):
        ProductMetric(metrics)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, torch.ones(2)])
def test_factor_that_is_not_one_positive_number_raises(factor: float | Tensor) -> None:
    with pytest.raises(ValueError, match="`factor`"):
        ScaledMetric(Sphere(2), factor)


# ---------------------------------------------------------------- ambient coordinates


@pytest.mark.parametrize(
    "metric, shape, hint",
    [
        (Sphere(2), (4, 3), "Sphere.from_ambient"),
        (Hyperbolic(2), (4, 3), "Hyperbolic.from_ambient"),
        (Hyperboloid(3), (4,), "Hyperboloid.from_ambient"),
        (ScaledMetric(Sphere(2), 2.0), (3,), "Sphere.from_ambient"),
        (SPD(2), (5, 2, 2), "SPD.from_matrix"),
        (ProductMetric([Sphere(2), EuclideanMetric(1)]), (4,), "Sphere\\(2\\), EuclideanMetric\\(1\\)"),
    ],
    ids=repr,
)
def test_points_in_ambient_coordinates_are_recognised(
    metric: RiemannianMetric, shape: tuple[int, ...], hint: str
) -> None:
    point = torch.rand(shape, dtype=F64)
    with pytest.raises(ValueError, match=hint):
        metric.squared_dist(point, point)
    with pytest.raises(ValueError, match=hint):
        RiemannianNormal(point, 1.0, metric)
