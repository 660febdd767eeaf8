"""The densities against exact laws: flat space, mass on a grid, every chart alike, and their own draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpyro.distributions import MultivariateNormal
from scipy import integrate, stats

from pyro_riemann._formulas import ray_rule
from pyro_riemann.numpyro import (
    ConstantMetric,
    Hyperbolic,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianWrappedNormal,
    Sphere,
)
from pyro_riemann.numpyro.distributions._base import RiemannianDistribution
from pyro_riemann.numpyro.distributions._rejection import _along
from tests.numpyro.charts import OnlyMetric, half_space_log_height, warped_hyperbolic, warped_sphere
from tests.numpyro.distributions._shared import SPHERES, from_sphere, hyperbolic_rule, sphere_rule, total_mass

CORRECTIONS = ("none", "van_vleck", "van_vleck_curvature", "kalatzis2020")
MASS = {"none": 0.96732391, "van_vleck": 0.98338681, "van_vleck_curvature": 0.99991393}  # S^2 at time 0.1
KEY = jax.random.key(0)
CENTRES = ([0.0, 0.0], [0.7, -0.4], [1.5, 0.3])


# ---------------------------------------------------------------- flat space


def test_constant_metric_gives_the_multivariate_normal() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(3, 3))
    metric = ConstantMetric(jnp.asarray(root @ root.T + np.eye(3)))
    loc, time = jnp.asarray(generator.normal(size=(4, 3))), jnp.asarray(generator.uniform(0.1, 1.1, (5, 1)))
    z = jnp.asarray(generator.normal(size=(7, 5, 4, 3)))
    covariance = time[..., None, None] * jnp.linalg.inv(metric.matrix)
    exact = MultivariateNormal(loc, covariance).log_prob(z)

    @jax.jit
    def moments(law: RiemannianDistribution) -> tuple[Array, ...]:
        gap = law.sample(KEY, (5000,)) - loc
        error = gap[..., None] * gap[..., None, :] - covariance
        return error.mean(0), error.std(0)

    wrapped, normal = RiemannianWrappedNormal(loc, time, metric), RiemannianNormal(loc, jnp.sqrt(time), metric)
    kernels = [
        RiemannianHeatKernel(loc, time, metric, c, normalize=c == "kalatzis2020", num_steps=2) for c in CORRECTIONS
    ]
    for law in (*kernels, wrapped, normal):
        assert law.batch_shape == (5, 4)
        assert jnp.abs(law.log_prob(z) - exact).max() < 1e-10
        assert jnp.abs(law.mean - loc).max() < 1e-12
    for law in (kernels[0], wrapped, normal):  # no correction changes the draws
        error, spread = moments(law)
        assert (jnp.abs(error) < 5 * spread / 5000**0.5).all()


def test_entropy_in_flat_space_is_that_of_the_gaussian() -> None:
    tensor, time = np.array([[2.0, 0.3], [0.3, 0.5]]), np.array([0.2, 3.0])
    law = RiemannianWrappedNormal(jnp.zeros((2, 2)), jnp.asarray(time), ConstantMetric(tensor))
    np.testing.assert_allclose(law.entropy(), np.log(2 * math.pi * math.e * time) - 0.5 * np.linalg.slogdet(tensor)[1])
    factor = np.array([[0.9, 0.0], [-0.5, 0.3]])
    law = RiemannianWrappedNormal(jnp.zeros(2), None, ConstantMetric(tensor), scale_tril=jnp.asarray(factor))
    np.testing.assert_allclose(law.entropy(), stats.multivariate_normal(cov=factor @ factor.T).entropy())


def test_the_density_of_the_paper_has_its_own_mass() -> None:
    metric = ConstantMetric(jnp.diag(jnp.array([4.0, 9.0])))
    paper = RiemannianHeatKernel(jnp.zeros(2), 0.5, metric, "kalatzis2020")
    assert abs(paper.log_normalizer().value + 0.5 * math.log(36.0)) < 1e-12


# ---------------------------------------------------------------- mass


@pytest.mark.parametrize("chart", SPHERES)
def test_mass_on_the_sphere_at_every_centre_in_every_chart(chart: str) -> None:
    metric = SPHERES[chart]()
    points, weights = sphere_rule(metric)
    loc = from_sphere(metric, jnp.array(CENTRES))

    @jax.jit
    def mass(law: RiemannianDistribution) -> Array:
        density = jnp.exp(law.log_prob(points[:, None]) - 0.5 * metric.logdet(points)[:, None])
        return (weights[:, None] * density).sum(0)

    for name in MASS:
        law = RiemannianHeatKernel(loc, 0.1, metric, name)
        masses = mass(law)
        assert jnp.abs(masses - MASS[name]).max() < 1e-7
        estimate = law.log_normalizer()
        assert jnp.abs(jnp.exp(estimate.value) - masses).max() < 1e-7
        assert estimate.standard_error.max() < 1e-6
    for other in (RiemannianWrappedNormal(loc, 0.1, metric), RiemannianNormal(loc, 0.4, metric)):
        assert jnp.abs(mass(other) - 1).max() < 1e-7


def test_mass_one_on_the_hyperbolic_plane() -> None:
    metric, points, weights = hyperbolic_rule()
    loc = jnp.array([0.3, -0.2])
    for law in (RiemannianWrappedNormal(loc, 0.3, metric), RiemannianNormal(loc, 0.5, metric)):
        assert abs(total_mass(law.log_prob, metric, points, weights) - 1) < 1e-7


def test_density_in_dM_does_not_depend_on_the_chart() -> None:
    generator = np.random.default_rng(0)
    x = jnp.asarray(0.5 * generator.normal(size=(6, 2)))
    y = x + jnp.asarray(0.15 * generator.normal(size=(6, 2)))
    for build in (
        lambda loc, metric: RiemannianHeatKernel(loc, 0.1, metric, "van_vleck_curvature"),
        lambda loc, metric: RiemannianWrappedNormal(loc, 0.1, metric),
        lambda loc, metric: RiemannianNormal(loc, 0.3, metric),
    ):
        values = []
        for make in SPHERES.values():
            metric = make()

            @jax.jit
            def density(x: Array, y: Array, metric: RiemannianMetric = metric, build: Any = build) -> Array:
                z = from_sphere(metric, y)
                return build(from_sphere(metric, x), metric).log_prob(z) - 0.5 * metric.logdet(z)

            values.append(density(x, y))
        assert jnp.abs(values[0] - values[1]).max() < 1e-10


def test_exact_on_the_hyperbolic_space_of_three_dimensions() -> None:
    metric = half_space_log_height(3)
    loc, z = jnp.array([0.3, -0.2, 0.1]), jnp.array([[0.1, 0.2, 0.5], [0.6, -0.5, 0.3]])
    kernel = RiemannianHeatKernel(loc, 0.15, metric, "van_vleck_curvature")
    r = metric.dist(loc, z)
    exact = -1.5 * math.log(2 * math.pi * 0.15) + jnp.log(r / jnp.sinh(r)) - 0.075 - r**2 / 0.3
    assert jnp.abs(kernel.log_prob(z) - 0.5 * metric.logdet(z) - exact).max() < 1e-12


# ---------------------------------------------------------------- the constant of the Riemannian normal


@pytest.mark.parametrize(
    "metric, expected",
    [
        (lambda: warped_sphere(2), -0.08263),
        (lambda: warped_sphere(3), -0.23960),
        (lambda: warped_hyperbolic(2), 0.08402),
        (lambda: half_space_log_height(3), 0.26040),
    ],
    ids=["S2", "S3", "H2", "H3"],
)
def test_constant_of_the_riemannian_normal(metric, expected: float) -> None:
    metric = metric()
    loc = jnp.array([0.3, -0.2, 0.1])[: metric.dim]
    value, error = RiemannianNormal(loc, 0.5, metric).log_normalizer()
    assert abs(value - metric.dim / 2 * math.log(2 * math.pi * 0.25) - expected) < 6e-6
    assert error < 1e-8


def test_constant_on_hyperbolic_space_in_closed_form() -> None:
    scale = jnp.array([0.1, 0.3, 0.5])
    plane = RiemannianNormal(jnp.array([0.3, -0.2]), scale, warped_hyperbolic(2)).log_normalizer().value
    exact = 2 * jnp.pi * jnp.sqrt(jnp.pi / 2) * scale * jnp.exp(scale**2 / 2) * jax.lax.erf(scale / 2**0.5)
    assert jnp.abs(plane - jnp.log(exact)).max() < 1e-8
    space = RiemannianNormal(jnp.array([0.3, -0.2, 0.1]), scale, half_space_log_height(3)).log_normalizer().value
    exact = (2 * jnp.pi * scale**2) ** 1.5 * jnp.expm1(2 * scale**2) / (2 * scale**2)
    assert jnp.abs(space - jnp.log(exact)).max() < 1e-8


def test_derivative_of_the_constant_is_the_mean_squared_radius() -> None:
    def constant(scale: Array) -> Array:
        return RiemannianNormal(jnp.array([0.1, 0.2, 0.0]), scale, half_space_log_height(3)).log_normalizer().value

    growth = math.exp(0.5)
    assert abs(jax.grad(constant)(0.5) - (3 / 0.5 + 2 * growth / (growth - 1) - 2 / 0.5)) < 1e-7


# ---------------------------------------------------------------- draws


def radial_cdf(dim: int, curvature: int, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Distribution function of the radius of a Riemannian normal where the curvature is 1 or -1."""
    grid = np.linspace(0, math.pi if curvature > 0 else 12.0, 20_001)
    density = np.exp(-(grid**2) / (2 * scale**2)) * (np.sin(grid) if curvature > 0 else np.sinh(grid)) ** (dim - 1)
    cdf = integrate.cumulative_simpson(density, x=grid, initial=0)
    return lambda radius: np.interp(radius, grid, cdf / cdf[-1])


@pytest.mark.parametrize(
    "metric, scale, curvature",
    [(lambda: warped_sphere(2), 0.5, 1), (lambda: Sphere(2), 1.5, 1), (lambda: Hyperbolic(3), 0.7, -1)],
    ids=["S2", "S2 wide", "H3"],
)
def test_radius_of_the_draws_of_the_riemannian_normal(metric, scale: float, curvature: int) -> None:
    metric = metric()
    loc = jnp.array([0.3, -0.2, 0.1])[: metric.dim]
    normal = RiemannianNormal(loc, scale, metric)
    z = normal.sample(KEY, (3000,))
    radius, v = jax.jit(lambda z: (metric.dist(loc, z), metric.logmap(loc, z)))(z)
    assert stats.kstest(np.asarray(radius), radial_cdf(metric.dim, curvature, scale)).pvalue > 1e-3
    assert normal.sampling_report.method == "exact"
    assert (jnp.abs(v.mean(0)) < 4 * v.std(0) / len(z) ** 0.5).all()  # no direction is preferred


def test_a_point_on_a_ray_has_the_law_of_its_radius() -> None:
    """Between the nodes too: on straight rays in the plane, of panels of many widths, a Rayleigh law that ends at 4."""
    inner, weight, _ = ray_rule.panel()
    ends = np.array([0.0, 0.4, 1.5, 2.6, 4.0])
    radius = (ends[:-1, None] + np.diff(ends)[:, None] * inner).reshape(-1)
    width = (np.diff(ends)[:, None] * weight).reshape(-1)
    white = np.stack([np.cos(angles := np.linspace(0.0, 6.0, 4000)), np.sin(angles)], -1)[:, None]
    logs = np.broadcast_to((np.log(width * radius) - radius**2 / 2)[:, None, None], (len(radius), 4000, 1))
    point = radius[:, None, None, None] * white
    rule: Any = SimpleNamespace(point=jnp.asarray(point))
    z = np.asarray(_along(rule, jnp.asarray(logs), KEY))
    drawn = np.linalg.norm(z, axis=-1).ravel()
    assert np.allclose(z / drawn[:, None, None], white, atol=1e-5)
    assert stats.kstest(drawn, lambda r: stats.rayleigh.cdf(r) / stats.rayleigh.cdf(4.0)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("dim", "curvature"),
    [(3, 1), pytest.param(8, 1, marks=pytest.mark.slow), pytest.param(8, -1, marks=pytest.mark.slow)],
)
def test_radii_along_rays(dim: int, curvature: int) -> None:
    """Draws by rays where the metric is all that is known."""
    metric, scale = Sphere(dim) if curvature > 0 else half_space_log_height(dim), 0.7
    loc = 0.1 * jnp.ones(dim)
    normal = RiemannianNormal(loc, scale, OnlyMetric(metric), num_directions=16)
    z = normal.sample(KEY, (200,))
    radius = np.asarray(metric.dist(jnp.broadcast_to(loc, z.shape), z))
    assert stats.kstest(radius, radial_cdf(dim, curvature, scale)).pvalue > 1e-3
    report = normal.sampling_report  # all directions are alike
    assert report.method == "rejection"
    assert 0.95 < float(report.efficiency) <= 1


def test_one_batch_of_draws_has_the_law_of_each_entry() -> None:
    metric, scale = Hyperbolic(2), jnp.array([0.1, 0.9])
    normal = RiemannianNormal(jnp.zeros((2, 2)), scale, metric)
    z = normal.sample(KEY, (4000,))
    squared = metric.squared_dist(jnp.zeros_like(z), z) / scale**2

    def constant(s: Array) -> Array:
        return RiemannianNormal(jnp.zeros((2, 2)), s, metric).log_normalizer().value.sum()

    expected = scale * jax.grad(constant)(scale)  # E l^2 / scale^2 = d log C / d log scale
    assert (jnp.abs(squared.mean(0) - expected) < 4 * squared.std(0) / 4000**0.5).all()
    assert normal.sampling_report.efficiency.shape == (2,)


def test_squared_radius_of_the_wrapped_normal_is_chi_square() -> None:
    metric, loc = warped_sphere(2), jnp.array([0.6, -0.3])
    z = RiemannianWrappedNormal(loc, 0.1, metric).sample(KEY, (3000,))
    v = metric.logmap(jnp.broadcast_to(loc, z.shape), z)
    assert stats.kstest(np.asarray(metric.inner(loc, v, v) / 0.1), stats.chi2(2).cdf).pvalue > 1e-3
    white = np.asarray(v @ metric.cholesky(loc) / 0.1**0.5)
    for axis in white.T:
        assert stats.kstest(axis, stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "metric, function, rate",
    [(lambda: warped_sphere(2), jnp.cos, -1.0), (lambda: warped_hyperbolic(2), jnp.cosh, 1.0)],
    ids=["sphere", "hyperbolic plane"],
)
def test_draws_of_the_heat_kernel_have_the_law_of_brownian_motion(metric, function, rate: float) -> None:
    """E cos theta = exp(-d t / 2) on the sphere, E cosh r = exp(d t / 2) on hyperbolic space."""
    metric, loc = metric(), jnp.array([0.2, -0.1])
    z = RiemannianHeatKernel(loc, 0.25, metric, num_steps=32).sample(KEY, (8000,))
    value = function(metric.dist(jnp.broadcast_to(loc, z.shape), z))
    exact = math.exp(rate * 0.25)
    assert abs(value.mean() - exact) < 4e-3 * exact + 3 * value.std() / 8000**0.5


# ---------------------------------------------------------------- long times


def test_long_times_warn() -> None:
    kernel = RiemannianHeatKernel(jnp.zeros(2), 1.0, Sphere(2), "van_vleck_curvature")
    with pytest.warns(UserWarning, match="time R / 12"):
        kernel.log_prob(jnp.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RiemannianHeatKernel(jnp.zeros(2), 0.1, Sphere(2), "van_vleck_curvature").log_prob(jnp.ones(2))


def test_a_metric_that_has_only_its_tensor() -> None:
    """The generic route through the solver, the flow and rays against closed forms."""
    exact = half_space_log_height(2)
    loc, z = jnp.array([0.2, -0.1]), jnp.array([[0.3, 0.1], [0.0, -0.3]])
    for law in (RiemannianWrappedNormal, lambda *a: RiemannianNormal(*a, num_directions=16)):
        generic, closed = law(loc, 0.2, OnlyMetric(exact)).log_prob(z), law(loc, 0.2, exact).log_prob(z)
        assert jnp.abs(generic - closed).max() < 1e-4


def test_a_heat_kernel_as_a_guide_says_that_there_is_no_bound() -> None:
    """Its mass is not 1: compiled as in an ELBO, where no number is known, and by hand, where it is."""
    kernel = RiemannianHeatKernel(jnp.array([0.3, -0.2, 0.1]), 6.0, Sphere(3))
    mass = float(kernel.log_normalizer().value)
    z, mark = kernel.sample_with_intermediates(jax.random.key(0), (5,))
    with pytest.warns(UserWarning, match=f"its log mass: {mass:.3g}.*such an evidence lower bound is none"):
        assert kernel.log_prob(z, mark).shape == (5,)
    with pytest.warns(UserWarning, match="its log mass: not known"):
        jax.jit(lambda time: RiemannianHeatKernel(jnp.zeros(3), time, Sphere(3)).log_prob(z, mark))(6.0)
    kernel.log_prob(z)
    for law in (
        RiemannianHeatKernel(jnp.zeros(3), 6.0, Sphere(3), normalize=True),
        RiemannianHeatKernel(jnp.zeros(3), 1e-3, Sphere(3)),
        RiemannianHeatKernel(jnp.zeros(3), 6.0, ConstantMetric(jnp.eye(3))),
    ):
        z, mark = law.sample_with_intermediates(jax.random.key(0))
        law.log_prob(z, mark)


def test_derivative_of_a_constant_in_the_scale() -> None:
    """By rays on a metric of one's own, against the closed form."""

    def slope(metric: RiemannianMetric) -> float:
        def constant(scale: Array) -> Array:
            return RiemannianNormal(jnp.array([0.2, -0.1]), scale, metric, num_directions=16).log_normalizer()[0]

        return float(jax.grad(constant)(jnp.array(0.4)))

    assert slope(OnlyMetric(Hyperbolic(2))) == pytest.approx(slope(Hyperbolic(2)), rel=1e-2)
