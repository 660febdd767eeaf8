"""Quadrature on known surfaces, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann.numpyro import RiemannianMetric, Sphere, WarpedMetric
from tests.numpyro.charts import warped_hyperbolic, warped_sphere

SPHERES: dict[str, Callable[[], RiemannianMetric]] = {"stereographic": lambda: Sphere(2), "warped": warped_sphere}


def from_sphere(metric: RiemannianMetric, z: Array) -> Array:
    """Points of the stereographic chart in the chart of ``metric``, which is ``Sphere`` or warped."""
    return metric.from_base(z) if isinstance(metric, WarpedMetric) else z


def sphere_rule(metric: RiemannianMetric, size: int = 96) -> tuple[Array, Array]:
    """Points of ``metric``'s chart and weights that integrate over S^2 with respect to dM."""
    nodes, weight = np.polynomial.legendre.leggauss(size)
    cosine, phi = np.meshgrid(nodes, (np.arange(size) + 0.5) * 2 * np.pi / size, indexing="ij")
    sine = np.sqrt(1 - cosine**2)
    ambient = jnp.asarray(np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], -1).reshape(-1, 3))
    weights = np.repeat(weight[:, None], size, 1) * 2 * np.pi / size
    return from_sphere(metric, Sphere(2).from_ambient(ambient)), jnp.asarray(weights.reshape(-1))


def hyperbolic_rule(radius: float = 7.0, size: int = 200) -> tuple[WarpedMetric, Array, Array]:
    """A warped chart of H^2, its points and weights for dM on a disc around the origin of the hyperboloid."""
    metric = warped_hyperbolic(2)
    nodes, weight = np.polynomial.legendre.leggauss(size)
    r, phi = (nodes + 1) / 2 * radius, (np.arange(size) + 0.5) * 2 * np.pi / size
    point = np.sinh(r)[:, None, None] * np.stack([np.cos(phi), np.sin(phi)], -1)
    weights = np.repeat((weight * radius / 2 * np.sinh(r))[:, None], size, 1) * 2 * np.pi / size
    return metric, metric.from_base(jnp.asarray(point.reshape(-1, 2))), jnp.asarray(weights.reshape(-1))


def total_mass(log_prob: Callable[[Array], Array], metric: RiemannianMetric, points: Array, weights: Array) -> float:
    """Mass with respect to dz of a density, from a rule for dM."""
    return float((weights * jnp.exp(log_prob(points) - 0.5 * metric.logdet(points))).sum())
