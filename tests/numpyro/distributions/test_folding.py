"""Wrapped normals where geodesics meet again: mass one at every time, honest bounds, and what is folded elsewhere."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import Array

from pyro_riemann.numpyro import (
    EuclideanMetric,
    FlatTorus,
    RiemannianMetric,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
)
from tests.numpyro.charts import shear, unshear, warped_hyperbolic, warped_sphere, warped_torus

KEY = jax.random.key(0)
LOC = np.array([0.4, -0.7, 0.2])  # in double precision, whatever JAX is set to at import
TIMES = np.array([0.05, 1.0, 4.0, 20.0, 250.0])


def polar_rule(metric: RiemannianMetric, loc: Array, size: int = 64) -> tuple[Array, Array]:
    """Points of a sphere's chart, d = 2 or 3, and weights for dM, in polar coordinates about ``loc``."""
    dim, sphere = metric.dim, Sphere(metric.dim)
    base = metric.to_base(loc) if isinstance(metric, WarpedMetric) else loc
    nodes, weight = np.polynomial.legendre.leggauss(size)
    radius, weight = (nodes + 1) * math.pi / 2, weight * math.pi / 2
    angle = 2 * math.pi * np.arange(16) / 16
    circle, octahedron = np.stack([np.cos(angle), np.sin(angle)], -1), np.concatenate([np.eye(3), -np.eye(3)])
    units, area = (circle, 2 * math.pi) if dim == 2 else (octahedron, 4 * math.pi)
    v = jnp.asarray(units * radius[:, None, None]) * (1 + jnp.square(base).sum()) / 2
    points = sphere.expmap(jnp.broadcast_to(base, v.shape), v).reshape(-1, dim)
    weights = np.repeat(weight * np.sin(radius) ** (dim - 1) * area / len(units), len(units))
    return (metric.from_base(points) if isinstance(metric, WarpedMetric) else points), jnp.asarray(weights)


@pytest.mark.parametrize("make", [lambda: Sphere(3), lambda: warped_sphere(2)], ids=["S3", "warped S2"])
def test_mass_one_on_spheres(make) -> None:
    metric = make()
    loc = LOC[: metric.dim]
    z, weights = polar_rule(metric, loc)
    law = RiemannianWrappedNormal(loc, TIMES[:, None], metric)
    for log_prob in (law.log_prob, jax.jit(law.log_prob)):  # times known and times traced
        mass = (weights * jnp.exp(log_prob(z) - 0.5 * metric.logdet(z))).sum(-1)
        assert jnp.abs(mass - 1).max() < 1e-9


def test_mass_one_on_a_sheared_torus_and_on_a_cylinder() -> None:
    for periods in ([2.0, 3.0], [2.0, math.inf]):
        metric = WarpedMetric(FlatTorus(2, periods), (shear, unshear))
        reach = 9 * math.sqrt(4.0) if math.isinf(periods[1]) else periods[1] / 2
        axes = [np.arange(n) / n - 0.5 for n in (64, 300)]
        base = np.stack(np.meshgrid(axes[0] * periods[0] + 0.3, axes[1] * 2 * reach), -1).reshape(-1, 2)
        z = metric.from_base(jnp.asarray(base))
        for time in (0.2, 4.0):
            law = RiemannianWrappedNormal(metric.from_base(jnp.array([0.1, 0.2])), time, metric)
            density = jnp.exp(law.log_prob(z) - 0.5 * metric.logdet(z))
            assert abs(density.mean() * periods[0] * 2 * reach - 1) < 1e-9


def test_gradients_of_the_folded_density() -> None:
    metric = warped_sphere(2)

    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def log_prob(centre: Array, value: Array, t: Array) -> Array:
        return RiemannianWrappedNormal(centre, t, metric).log_prob(value)

    found = jax.jit(log_prob)
    for time in (0.3, 5.0, 300.0):
        at = [jnp.asarray(LOC[:2]), jnp.array([-0.3, 0.9]), jnp.asarray(time)]
        for index, gradient in enumerate(found(*at)[1]):
            ends = []
            for step in (1e-5, -1e-5):
                moved = list(at)
                moved[index] = at[index] + step
                ends.append(found(*moved)[0])
            assert abs((ends[0] - ends[1]) / 2e-5 - gradient.sum()) < 1e-7


def test_the_poles_are_large_and_finite() -> None:
    sphere, loc = Sphere(3), jnp.array([0.5, 0.0, 0.0])
    antipode = -loc / jnp.square(loc).sum()
    for pole in (loc, antipode):
        for step in (0.0, 1e-12, 1e-6):
            value, gradients = jax.value_and_grad(
                lambda z, t: RiemannianWrappedNormal(loc, t, sphere).log_prob(z), (0, 1)
            )(pole + step, 2.0)
            assert jnp.isfinite(value)
            assert all(jnp.isfinite(x).all() for x in gradients)


@pytest.mark.parametrize(
    "make",
    [lambda: warped_sphere(2), lambda: warped_torus(2, 2.0), lambda: FlatTorus(2, [1.5, jnp.inf]), warped_hyperbolic],
    ids=["sphere", "torus", "cylinder", "hyperbolic"],
)
def test_a_bound_without_data_is_at_most_zero(make) -> None:
    """And the density of a draw with its intermediates is that of the point."""
    metric, prior = make(), dist.Normal(jnp.zeros(2), jnp.array([1.0, 0.7])).to_event(1)
    for time in (0.1, 1.0, 6.0):
        guide = RiemannianWrappedNormal(jnp.array([0.2, 0.1]), time, metric)
        z, along = guide.sample_with_intermediates(KEY, (4000,))
        gap = prior.log_prob(z) - guide.log_prob(z, along)
        assert gap.mean() < 4 * gap.std() / math.sqrt(len(gap))
        assert jnp.array_equal(guide.log_prob(z, along), guide.log_prob(z))


class RoundSphere(RiemannianMetric):
    """S^2 in the stereographic chart, as a user writes it."""

    dim = 2

    def metric(self, z: Array) -> Array:
        return 4 / (1 + (z * z).sum(-1))[..., None, None] ** 2 * jnp.eye(2)


class OwnTorus(EuclideanMetric):
    """A flat torus by another hand: distances in closed form, and nothing about the images."""

    def squared_dist(self, z: Array, y: Array) -> Array:
        return jnp.square(y - z - 2 * jnp.round((y - z) / 2)).sum(-1)


def test_folded_mass_where_distances_alone_are_closed_forms() -> None:
    """What is left of a Gaussian outside the square of half a period about its centre."""
    law = RiemannianWrappedNormal(jnp.zeros(2), 0.3, OwnTorus(2))
    with pytest.warns(UserWarning, match="past the cut locus"):
        mass = law.folded_mass(64)
    exact = 1 - math.erf(1 / math.sqrt(2 * 0.3)) ** 2
    assert abs(mass.value - exact) < 0.005
    assert 0.001 < mass.standard_error < 0.02


class OwnCylinder(EuclideanMetric):
    """A plane rolled up with period 2 along the first axis, by its distances alone."""

    def squared_dist(self, z: Array, y: Array) -> Array:
        way = y - z
        return jnp.square(way - 2 * jnp.round(way / 2) * jnp.array([1.0, 0.0])).sum(-1)


def test_folded_mass_of_a_covariance() -> None:
    """What is folded of N(0, L L^T) on a cylinder is the mass of the first axis outside half a turn."""
    factor = jnp.array([[0.5, 0.0], [0.6, 0.3]])
    law = RiemannianWrappedNormal(jnp.zeros(2), None, OwnCylinder(2), scale_tril=factor)
    with pytest.warns(UserWarning, match="past the cut locus"):
        mass = law.folded_mass(64)
    assert abs(mass.value - math.erfc(1 / math.sqrt(2 * 0.5**2))) < 0.005


def test_folded_mass_of_a_sphere_by_its_metric_alone() -> None:
    """P(|v| > pi) = exp(-pi^2 / 2t)."""
    loc = jnp.array([0.4, 0.1])
    small = RiemannianWrappedNormal(loc, 0.2, RoundSphere()).folded_mass()
    assert small.value < 1e-4
    with pytest.warns(UserWarning, match=r"% of a RiemannianWrappedNormal with time 1.5 .* past the cut locus"):
        mass = RiemannianWrappedNormal(loc, 1.5, RoundSphere()).folded_mass()
    assert abs(mass.value - math.exp(-(math.pi**2) / 3)) < 3 * mass.standard_error
    assert mass.standard_error < 0.03
    assert RiemannianWrappedNormal(loc, 1.5, Sphere(2)).folded_mass().value == 0.0  # all are counted
    assert RiemannianWrappedNormal(loc, 1.5, EuclideanMetric(2)).folded_mass().value == 0.0
    with pytest.raises(ValueError, match="num_directions"):
        RiemannianWrappedNormal(loc, 1.5, RoundSphere()).folded_mass(1)
