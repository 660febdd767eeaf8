"""What the twin does by itself with distributions: broadcasting, fixed parameters under compilation, curves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as distributions
import pytest
from jax import Array

from pyro_riemann.numpyro import GeodesicSolver, PullbackMetric, Sphere, register_immersion

Z, Y = np.array([[0.3, -0.4], [-1.1, 0.2]]), np.array([[-0.9, 0.5], [0.7, -0.6]])


def test_the_hyperbolic_distance_of_normals() -> None:
    metric = PullbackMetric(lambda z: distributions.Normal(2 * z[:, :1], jnp.exp(z[:, 1:])), 2, jitter=0.0)
    assert metric.immersed() is None
    metric.solver = GeodesicSolver(on_failure="ignore")

    @jax.jit
    def measured(z: Array, y: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(lambda z: metric.dist(z, y), z)
        return value, pull(jnp.ones_like(value))[0]

    found, slope = measured(Z, Y)
    (m, n), (s, t) = 2 * np.stack([Z, Y])[..., 0], np.exp(np.stack([Z, Y])[..., 1])
    np.testing.assert_allclose(
        found, 2**0.5 * np.arccosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t)), rtol=1e-5
    )
    # the eikonal equation
    steep = jnp.einsum("ni,nij,nj->n", slope, jnp.linalg.inv(metric.metric(Z)), slope)
    np.testing.assert_allclose(steep, 1.0, rtol=1e-4)


def test_expanded_distributions_count_every_copy() -> None:
    def law(z: Array) -> Any:
        return distributions.Poisson(jnp.exp(z[:, :1])).expand((len(z), 3)).to_event(1)

    metric = PullbackMetric(law, 2)  # of one rate alone: singular but for its jitter
    np.testing.assert_allclose(metric.metric(Z)[:, 0, 0], 3 * np.exp(Z[:, 0]) + 1e-6)


def test_one_point_at_a_time() -> None:
    def law(z: Array) -> Any:
        assert z.shape == (2,)
        return distributions.Normal(z, 2.0)

    np.testing.assert_allclose(PullbackMetric(law, 2, jitter=0.0).metric(Z[:1]), np.eye(2)[None] / 4, rtol=1e-12)


def late(z: Array) -> Any:
    return distributions.Normal(z, 1 + jnp.square(jax.nn.relu(z[:, :1] - 1)))


def test_what_is_fixed_is_checked() -> None:
    metric, far = PullbackMetric(late, 2), jnp.array([3.0, 0.0])
    assert jnp.isfinite(metric.metric(Z)).all()
    for points in (far, jnp.stack([far, Z[0]])):
        with pytest.raises(ValueError, match=r"`scale` of Normal.*`ambient=\"fisher\"`"):
            metric.metric(points)
        assert jnp.isnan(jax.jit(metric.metric)(points)).all()
    own = PullbackMetric(late, 2, ambient="fisher")
    assert jnp.isfinite(own.metric(far)).all()
    np.testing.assert_allclose(own.metric(Z), metric.metric(Z), rtol=1e-12)


def test_a_pair_of_arrays_and_an_ambient_metric() -> None:
    def both(z: Array) -> tuple[Array, Array]:
        return jnp.sin(z), jnp.exp(0.3 * z)

    pair = PullbackMetric(both, 2, ambient="fisher")
    laws = PullbackMetric(lambda z: distributions.Normal(*both(z)), 2)
    np.testing.assert_allclose(pair.metric(Z), laws.metric(Z), rtol=1e-12)
    assert len(jax.tree.leaves(pair)) == 0
    sphere = PullbackMetric(lambda z: 0.3 * jnp.sin(z), 2, jitter=0.0, ambient=Sphere(2))
    jacobian = 0.3 * jax.vmap(jnp.diag)(jnp.cos(Z))
    np.testing.assert_allclose(sphere.metric(Z), jacobian @ Sphere(2).metric(0.3 * jnp.sin(Z)) @ jacobian, rtol=1e-12)
    with pytest.raises(ValueError, match=r"leave out `ambient`"):
        PullbackMetric(late, 2, ambient=Sphere(2))
    with pytest.raises(ValueError, match=r"`scale` is -.*log-variance"):
        PullbackMetric(lambda z: (z, z - 3), 2, ambient="fisher")


def test_a_metric_made_under_a_transformation_trusts_no_scale() -> None:
    def volume(weight: Array) -> Array:
        metric = PullbackMetric(
            jax.tree_util.Partial(lambda weight, z: distributions.Normal(z, jnp.exp(weight)), weight), 2, jitter=0.0
        )
        return metric.logdet(jnp.zeros(2))

    np.testing.assert_allclose(jax.jit(volume)(jnp.array([0.1, 0.4])), -1.0, rtol=1e-12)


def test_registered_immersions() -> None:
    class Scaled(distributions.HalfNormal):
        pass

    def law(z: Array) -> Any:
        return Scaled(jnp.exp(z))

    with pytest.raises(ValueError, match="register_immersion"):
        PullbackMetric(law, 2)
    register_immersion(Scaled, lambda law: 2**0.5 * jnp.log(law.scale))
    np.testing.assert_allclose(PullbackMetric(law, 2, jitter=0.0).metric(Z[0]), 2 * np.eye(2), atol=1e-12)
    with pytest.raises(TypeError, match="`family` must be"):
        register_immersion(Array, lambda x: x)  # type: ignore[type-var]
