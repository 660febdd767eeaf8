"""The Riemannian normal: its constant against closed forms, its draws against its own density."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_riemann import ConstantMetric, EuclideanMetric, FlatTorus, Hyperbolic, RiemannianNormal, Sphere
from tests.charts import (
    OnlyMetric,
    half_space_log_height,
    hyperboloid_chart,
    warped_hyperbolic,
    warped_sphere,
)
from tests.distributions._shared import (
    CENTRES,
    F64,
    SPHERES,
    derivative,
    from_sphere,
    hyperbolic_rule,
    paraboloid,
    sphere_rule,
    total_mass,
    twisted_sphere,
)


def hyperbolic_constant(dim: int, scale: float) -> float:
    if dim == 2:
        return 2 * math.pi * math.sqrt(math.pi / 2) * scale * math.exp(scale**2 / 2) * math.erf(scale / math.sqrt(2))
    return (2 * math.pi * scale**2) ** 1.5 * (math.exp(2 * scale**2) - 1) / (2 * scale**2)


def radial_constant(dim: int, scale: float, curvature: int) -> float:
    """C by one-dimensional quadrature over the radius."""
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2)
    sine, end = (math.sin, math.pi) if curvature > 0 else (math.sinh, 12 * scale + 4)
    return area * integrate.quad(lambda r: math.exp(-(r**2) / (2 * scale**2)) * sine(r) ** (dim - 1), 0, end)[0]


def test_constant_metric_gives_the_multivariate_normal() -> None:
    torch.manual_seed(0)
    root = torch.randn(3, 3, dtype=F64)
    metric = ConstantMetric(root @ root.mT + torch.eye(3, dtype=F64))
    loc, scale, z = torch.randn(4, 3, dtype=F64), torch.rand(5, 1, dtype=F64) + 0.1, torch.randn(7, 5, 4, 3, dtype=F64)
    normal = RiemannianNormal(loc, scale, metric)
    covariance = scale.square()[..., None, None] * torch.linalg.inv(metric.matrix)
    exact = MultivariateNormal(loc.expand(5, 4, 3), covariance)
    assert (normal.log_prob(z) - exact.log_prob(z)).abs().max() < 1e-10
    assert normal.sampling_report == ("exact", 1.0)
    draws = normal.sample((20000,))
    error = (draws - loc).unsqueeze(-1) * (draws - loc).unsqueeze(-2) - covariance
    assert (error.mean(0).abs() < 5 * error.std(0) / 20000**0.5).all()


# ---------------------------------------------------------------- the constant


@pytest.mark.parametrize(
    "metric, expected",
    [
        (Sphere(2), -0.08263),
        (warped_sphere(2), -0.08263),
        (warped_sphere(3), -0.23960),
        (hyperboloid_chart(2), 0.08402),
        (warped_hyperbolic(2), 0.08402),
        (half_space_log_height(3), 0.26040),
        (warped_hyperbolic(3), 0.26040),
    ],
)
def test_constant_at_a_scale_of_one_half(metric: Sphere, expected: float) -> None:
    loc = torch.tensor([0.3, -0.2, 0.1], dtype=F64)[: metric.dim]
    value, error = RiemannianNormal(loc, torch.tensor(0.5, dtype=F64), metric).log_normalizer()
    flat = metric.dim / 2 * math.log(2 * math.pi * 0.25)
    assert abs(value.item() - flat - expected) < 6e-6
    assert error < 1e-8


@pytest.mark.parametrize("dim, metric", [(2, warped_hyperbolic(2)), (3, half_space_log_height(3))])
@pytest.mark.parametrize("scale", (0.1, 0.3, 0.5))
def test_constant_on_hyperbolic_space_in_closed_form(dim: int, metric: Hyperbolic, scale: float) -> None:
    loc = torch.tensor([0.3, -0.2, 0.1], dtype=F64)[:dim]
    value = RiemannianNormal(loc, torch.tensor(scale, dtype=F64), metric).log_normalizer().value
    assert abs(value.item() - math.log(hyperbolic_constant(dim, scale))) < 1e-8


@pytest.mark.parametrize("scale", (1.0, 2.0))
def test_no_mass_beyond_the_cut_locus(scale: float) -> None:
    metric = Sphere(2)
    normal = RiemannianNormal(torch.zeros(2, dtype=F64), torch.tensor(scale, dtype=F64), metric)
    value, error = normal.log_normalizer()
    exact = math.log(radial_constant(2, scale, 1))
    assert abs(value.item() - exact) < 1e-12
    assert error < 1e-12
    assert (
        abs(total_mass(normal.log_prob, metric, *sphere_rule(metric)) - 1) < 1e-6
    )  # the distance has a kink at the antipode


@pytest.mark.parametrize("curvature, metric", [(1, warped_sphere(5)), (-1, warped_hyperbolic(5))])
def test_constant_above_three_dimensions(curvature: int, metric: Sphere) -> None:
    scale = 0.4
    normal = RiemannianNormal(0.2 * torch.ones(5, dtype=F64), torch.tensor(scale, dtype=F64), metric)
    value, error = normal.log_normalizer()
    assert error < 1e-12
    assert abs(value.item() - math.log(radial_constant(5, scale, curvature))) < 1e-10
    assert torch.equal(normal.log_normalizer().value, value)  # no random numbers
    state = torch.get_rng_state()
    RiemannianNormal(torch.zeros(5, dtype=F64), 0.123, metric).log_normalizer()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chart", SPHERES)
@pytest.mark.parametrize("centre", CENTRES)
def test_mass_one_on_the_sphere(chart: str, centre: list[float]) -> None:
    metric = SPHERES[chart]
    normal = RiemannianNormal(from_sphere(metric, torch.tensor(centre, dtype=F64)), 0.4, metric)
    assert abs(total_mass(normal.log_prob, metric, *sphere_rule(metric)) - 1) < 1e-7


def test_mass_one_on_the_hyperbolic_plane() -> None:
    metric, z, weights = hyperbolic_rule()
    normal = RiemannianNormal(torch.tensor([0.3, -0.2], dtype=F64), 0.5, metric)
    assert abs(total_mass(normal.log_prob, metric, z, weights) - 1) < 1e-7


def test_a_changed_metric_gets_a_new_constant() -> None:
    metric = paraboloid(0.2)
    metric.requires_grad_(False)
    normal = RiemannianNormal(torch.zeros(2, dtype=F64), 0.3, metric, num_directions=16)
    before = normal.log_normalizer().value
    assert torch.equal(
        RiemannianNormal(torch.zeros(2, dtype=F64), 0.3, metric, num_directions=16).log_normalizer().value, before
    )
    next(metric.parameters()).mul_(4)
    assert (normal.log_normalizer().value - before).abs() > 1e-3


def test_constant_without_closed_forms() -> None:
    """The ray rule against the closed form: in a curved chart, across the cut locus, far out in eight dimensions."""
    for metric, scale in ((Sphere(2), 1.2), (half_space_log_height(3), 1.0), (half_space_log_height(8), 0.7)):
        loc = 0.2 * torch.ones(metric.dim, dtype=F64)
        exact = RiemannianNormal(loc, scale, metric).log_normalizer().value
        value, error = RiemannianNormal(loc, scale, OnlyMetric(metric), num_directions=16).log_normalizer()
        assert abs(value - exact) < 3 * error
        assert error < 0.01


# ---------------------------------------------------------------- gradients


def test_gradients_of_density_and_constant() -> None:
    metric, strength = twisted_sphere(0.4)
    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    z = torch.tensor([0.5, 0.4], dtype=F64, requires_grad=True)
    scale = torch.tensor(0.4, dtype=F64, requires_grad=True)

    def log_prob(centre: Tensor, value: Tensor, s: Tensor, law: object = metric) -> Tensor:
        return RiemannianNormal(centre, s, law).log_prob(value)  # type: ignore[arg-type]

    gradients = torch.autograd.grad(log_prob(loc, z, scale), (loc, z, scale, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: log_prob(x, z, scale), loc), atol=1e-8)
    assert torch.allclose(gradients[1], derivative(lambda x: log_prob(loc, x, scale), z), atol=1e-8)
    assert torch.allclose(gradients[2], derivative(lambda x: log_prob(loc, z, x), scale), atol=1e-8)
    moved = derivative(lambda x: log_prob(loc, z, scale, twisted_sphere(x)[0]), strength)
    assert torch.allclose(gradients[3], moved, atol=1e-8)


def test_derivative_of_the_constant_is_the_mean_squared_radius() -> None:
    scale = torch.tensor(0.5, dtype=F64, requires_grad=True)
    normal = RiemannianNormal(torch.tensor([0.1, 0.2, 0.0], dtype=F64), scale, warped_hyperbolic(3))
    slope = torch.autograd.grad(normal.log_normalizer().value, scale)[0]
    s2 = 0.25
    exact = 3 / 0.5 + 4 * 0.5 * math.exp(2 * s2) / (math.exp(2 * s2) - 1) - 2 / 0.5
    assert abs(slope.item() - exact) < 1e-7


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(
    "metric, scale, curvature",
    [
        (warped_sphere(2), 0.5, 1),
        (Sphere(2), 1.5, 1),
        (warped_sphere(3), 0.5, 1),
        (warped_hyperbolic(2), 0.7, -1),
        (warped_hyperbolic(3), 0.7, -1),
        (warped_hyperbolic(6), 0.4, -1),
    ],
    ids=["S2", "S2-wide", "S3", "H2", "H3", "H6"],
)
def test_radius_of_the_draws(metric: Sphere, scale: float, curvature: int) -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.3, -0.2, 0.1, 0.0, 0.2, 0.1], dtype=F64)[: metric.dim]
    normal = RiemannianNormal(loc, torch.tensor(scale, dtype=F64), metric)
    z = normal.sample((1500,))
    radius = metric.dist(loc.expand_as(z), z).numpy()
    sine, end = (math.sin, math.pi) if curvature > 0 else (math.sinh, 12 * scale + 4)

    def density(r: float) -> float:
        return math.exp(-(r**2) / (2 * scale**2)) * sine(r) ** (metric.dim - 1)

    grid = torch.linspace(0, end, 2001, dtype=F64).numpy()
    cdf = integrate.cumulative_simpson([density(r) for r in grid], x=grid, initial=0)
    assert stats.kstest(radius, lambda r: np.interp(r, grid, cdf / cdf[-1])).pvalue > 1e-3
    assert normal.sampling_report == ("exact", 1.0)
    v = metric.logmap(loc.expand_as(z), z)  # no direction is preferred
    assert (v.mean(0).abs() < 4 * v.std(0) / len(z) ** 0.5).all()


def test_draws_on_a_pullback_without_closed_forms() -> None:
    torch.manual_seed(0)
    metric = paraboloid()
    normal = RiemannianNormal(torch.tensor([0.2, 0.1], dtype=F64), 0.3, metric, num_directions=16)
    with torch.no_grad():
        z = normal.sample((150,))
        radius = metric.dist(normal.loc.expand_as(z), z).square() / 0.09
        step = 1e-3
        moved = [
            RiemannianNormal(normal.loc, 0.3 + s, metric, num_directions=16).log_normalizer().value
            for s in (-step, step)
        ]
    expected = 0.3 * (moved[1] - moved[0]) / (2 * step)  # E l^2 / scale^2 = scale d log C / d scale
    assert abs(radius.mean() - expected) < 4 * radius.std() / 150**0.5


# ---------------------------------------------------------------- as a distribution


@pytest.mark.parametrize(
    "metric", [warped_sphere(2), Hyperbolic(2), FlatTorus(2)], ids=["sphere", "hyperbolic", "torus"]
)
def test_shapes_expand_copy_pickle_trace_and_single_precision(metric: Sphere) -> None:
    torch.manual_seed(0)
    loc, scale = torch.rand(3, 2, dtype=F64) / 2, torch.tensor([[0.3], [0.4]], dtype=F64)
    normal = RiemannianNormal(loc, scale, metric)
    assert not normal.has_rsample
    assert (normal.batch_shape, normal.event_shape) == ((2, 3), (2,))
    assert RiemannianNormal.infer_shapes(loc=(3, 2), scale=(2, 1)) == ((2, 3), (2,))
    wide = normal.expand((4, 2, 3))
    z = wide.sample()
    assert z.shape == (4, 2, 3, 2)
    assert torch.allclose(wide.log_prob(z), normal.log_prob(z), atol=1e-12)
    assert torch.equal(copy.deepcopy(pickle.loads(pickle.dumps(normal))).log_prob(z), normal.log_prob(z))

    def function(x: Tensor, centre: Tensor, s: Tensor) -> Tensor:
        return RiemannianNormal(centre, s, metric).log_prob(x)

    traced = torch.jit.trace(function, (z, loc, scale), check_trace=False)
    other, wider = normal.sample((4,)), scale + 0.05
    assert torch.allclose(traced(other, loc, wider), RiemannianNormal(loc, wider, metric).log_prob(other), atol=1e-12)
    small = RiemannianNormal(loc.float(), scale.float(), metric)
    assert small.sample().dtype == torch.float32
    assert torch.allclose(small.log_prob(z.float()).double(), normal.log_prob(z), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, torch.ones(3)])
def test_bad_scales_are_named(scale: float | Tensor) -> None:
    with pytest.raises(ValueError, match="scale"):
        RiemannianNormal(torch.zeros(2, 2), scale, EuclideanMetric(2), validate_args=True)
