"""Exact laws of the manifolds on the JAX side; their agreement with torch is tested in ``tests/twins``."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import Hyperbolic, RiemannianMetric, Sphere
from pyro_riemann.numpyro.manifolds import HalfSpace, Hyperboloid
from tests.numpyro.charts import OnlyMetric, unshear, warped_sphere


@jax.jit
def first_order(metric: RiemannianMetric, z: Array, v: Array) -> tuple[Array, ...]:
    return metric.logdet(z), metric.inner(z, v, v), metric.christoffel(z, v), metric.drift(z)


@pytest.mark.parametrize("metric", [warped_sphere(2), HalfSpace(3)], ids=["warped sphere", "half-space"])
def test_closed_forms_agree_with_the_generic_ones(metric: RiemannianMetric) -> None:
    z, v = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, metric.dim)))
    for value, expected in zip(first_order(metric, z, v), first_order(OnlyMetric(metric), z, v), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@jax.jit
def shoot(metric: RiemannianMetric, z: Array, v: Array) -> tuple[Array, ...]:
    y, log_van_vleck = metric.expmap_log_van_vleck(z, v)
    return metric.dist(z, y), metric.logmap(z, y), log_van_vleck, metric.log_van_vleck(z, y)


@pytest.mark.parametrize(
    "metric, length, expected",
    [(Sphere(2), 2.289, 1.11124), (Sphere(3), 1.930, 1.44743), (Hyperboloid(2), 2.116, -0.65886)]
    + [(HalfSpace(3), 2.144, -1.34838)],
    ids=["S2", "S3", "H2", "H3"],
)
def test_geodesics_arrive_with_the_published_van_vleck_determinant(
    metric: RiemannianMetric, length: float, expected: float
) -> None:
    """The lengths are rounded to 5e-4, hence the tolerance."""
    z, direction = jnp.full(metric.dim, 0.1), jnp.ones(metric.dim)
    v = length * direction / metric.norm(z, direction)
    reached, back, *log_van_vleck = shoot(metric, z, v)
    assert reached.item() == pytest.approx(length, rel=1e-12)
    np.testing.assert_allclose(back, v, rtol=1e-10)
    np.testing.assert_allclose(log_van_vleck, expected, atol=7e-4)
    assert log_van_vleck[0].item() == pytest.approx(log_van_vleck[1].item(), abs=1e-12)


@pytest.mark.parametrize("metric", [Sphere(2), Sphere(4), Hyperbolic(2), Hyperbolic(3)], ids=["S2", "S4", "H2", "H3"])
def test_heat_kernel_has_mass_one_and_the_right_eigenvalue(metric: Any) -> None:
    """Mass 1; cos(l) on the sphere decays as exp(-d t/2), cosh(l) in hyperbolic space grows as exp(d t/2)."""
    dim, curved = metric.dim, metric.curvature
    nodes, weights = np.polynomial.legendre.leggauss(200)
    end = math.pi if curved > 0 else 20.0
    r, weights = end * (nodes + 1) / 2, weights * end / 2
    z = np.zeros((200, dim))
    z[:, 0] = np.tan(r / 2) if curved > 0 else np.tanh(r / 2)
    times = np.array([[0.1], [0.7], [2.0]])
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * (np.sin(r) if curved > 0 else np.sinh(r)) ** (dim - 1)
    density = np.exp(metric.log_heat_kernel(jnp.zeros(dim), jnp.asarray(z), times)) * area * weights
    np.testing.assert_allclose(density.sum(-1), 1, atol=1e-9)
    mean = density @ (np.cos(r) if curved > 0 else np.cosh(r))
    np.testing.assert_allclose(mean, np.exp(-curved * dim * times[:, 0] / 2), rtol=1e-7)


def test_warped_sphere_has_the_heat_kernel_of_the_sphere() -> None:
    x, w = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 5, 2)))
    z, y = unshear(x), unshear(w)
    np.testing.assert_allclose(
        warped_sphere().log_heat_kernel(z, y, 0.3), Sphere(2).log_heat_kernel(x, w, 0.3), rtol=1e-10
    )
