"""Registered divergences: closed forms, quadrature against grids, invariance, gradients."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.kl import kl_divergence

from pyro_riemann.numpyro import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    VampPrior,
    monte_carlo_kl,
)
from tests.numpyro.charts import warped_sphere
from tests.numpyro.distributions._shared import SPHERES, from_sphere, sphere_rule

KEY = jax.random.key(0)


def gaussian_family(loc: jax.Array, time: float, metric: ConstantMetric) -> list[dist.Distribution]:
    return [
        RiemannianHeatKernel(loc, time, metric, "van_vleck_curvature"),
        RiemannianWrappedNormal(loc, time, metric),
        RiemannianNormal(loc, math.sqrt(time), metric),
        dist.MultivariateNormal(loc, time * jnp.linalg.inv(metric.matrix)),
    ]


def test_constant_metrics_have_closed_forms() -> None:
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(2, 3, 3))
    first, second = (ConstantMetric(jnp.asarray(root @ root.T + np.eye(3))) for root in roots)
    one, two = jnp.asarray(generator.normal(size=(4, 3))), jnp.asarray(generator.normal(size=(5, 1, 3)))
    exact = kl_divergence(gaussian_family(one, 0.3, first)[-1], gaussian_family(two, 0.7, second)[-1])
    for p in gaussian_family(one, 0.3, first):
        for q in gaussian_family(two, 0.7, second):
            assert jnp.abs(kl_divergence(p, q) - exact).max() < 1e-10


def test_independent_and_expanded_normals_have_closed_forms() -> None:
    loc = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    normal, standard = dist.Normal(loc, 0.5).to_event(1), dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    prior = RiemannianHeatKernel(jnp.zeros(2), 1.0, EuclideanMetric(2))
    assert jnp.abs(kl_divergence(normal, prior) - kl_divergence(normal, standard)).max() < 1e-10
    assert jnp.abs(kl_divergence(prior, normal) - kl_divergence(standard, normal)).max() < 1e-10
    wide = dist.Normal(0.0, 1.0).expand((4, 2)).to_event(1)
    assert jnp.abs(kl_divergence(wide, prior.expand((4,)))).max() < 1e-10
    assert kl_divergence(prior.expand((4,)), prior.expand((4,))).shape == (4,)


def laws(metric: RiemannianMetric) -> dict[str, dist.Distribution]:
    one, two = (from_sphere(metric, jnp.array(x)) for x in ([0.2, -0.1], [0.4, 0.1]))
    return {
        "wrapped": RiemannianWrappedNormal(one, 0.05, metric),
        "normal": RiemannianNormal(one, 0.22, metric),
        "heat": RiemannianHeatKernel(two, 0.1, metric, "van_vleck_curvature"),
        "normal2": RiemannianNormal(two, 0.35, metric),
    }


def test_quadrature_in_the_tangent_space_against_a_grid_in_two_charts() -> None:
    for make in SPHERES.values():
        metric = make()
        family = laws(metric)
        z, weights = sphere_rule(metric)
        log_probs = {name: law.log_prob(z) for name, law in family.items()}
        for p in ("wrapped", "normal"):
            density = jnp.exp(log_probs[p] - 0.5 * metric.logdet(z))
            for q in ("heat", "normal2"):
                exact = (weights * density * jnp.where(density > 1e-30, log_probs[p] - log_probs[q], 0.0)).sum()
                assert abs(kl_divergence(family[p], family[q]) - exact) < 1e-6


def test_monte_carlo_is_within_its_error_and_signed() -> None:
    family = laws(Sphere(2))
    for p in ("wrapped", "normal"):
        estimate = monte_carlo_kl(family[p], family["heat"], KEY, 5000)
        assert abs(estimate.value - kl_divergence(family[p], family["heat"])) < 4 * estimate.standard_error
    # a mass below 1 makes the divergence to oneself the negative log mass, not its absolute value
    plain, honest = (
        RiemannianHeatKernel(jnp.zeros(2), 0.1, Sphere(2), normalize=n, num_steps=4) for n in (False, True)
    )
    assert abs(monte_carlo_kl(plain, honest, KEY, 10).value - math.log(0.96732391)) < 1e-6


def test_pairs_that_need_draws_ask_for_a_key() -> None:
    heat, normal = laws(warped_sphere(2))["heat"], dist.Normal(jnp.zeros((3, 2)), 0.3).to_event(1)
    for p, q in ((heat, normal), (normal, heat), (heat, heat), (VampPrior(heat.expand((2,))), heat)):
        with pytest.raises(NotImplementedError, match="monte_carlo_kl"):
            kl_divergence(p, q)
    assert monte_carlo_kl(normal, heat, KEY).value.shape == (3,)


def test_gradients_in_the_parameters_of_both() -> None:
    metric = Sphere(2)

    def divergence(x: jax.Array, y: jax.Array, t: jax.Array) -> jax.Array:
        return kl_divergence(RiemannianWrappedNormal(x, t, metric), RiemannianHeatKernel(y, 2 * t, metric))

    at = [jnp.array([0.2, -0.1]), jnp.array([0.4, 0.1]), jnp.asarray(0.05)]
    gradients = jax.grad(divergence, (0, 1, 2))(*at)
    for index, gradient in enumerate(gradients):
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(at)
            moved[index] = at[index] + step
            ends.append(divergence(*moved))
        assert abs((ends[0] - ends[1]) / 2e-5 - gradient.sum()) < 1e-6 * jnp.maximum(1, jnp.abs(gradient).sum())


def test_score_function_gradient_where_draws_are_not_reparametrised() -> None:
    metric, zero = EuclideanMetric(2), jnp.zeros(2)
    q = RiemannianNormal(zero, 1.0, metric)

    def estimate(scale: jax.Array, key: jax.Array) -> jax.Array:
        return monte_carlo_kl(RiemannianNormal(zero, scale, metric), q, key, 200).value

    exact = 2 * (0.5 - 1 / 0.5)  # d/ds of s^2 - 2 log s - 1
    draws = jax.jit(jax.vmap(jax.grad(estimate), (None, 0)))(0.5, jax.random.split(KEY, 50))
    assert abs(draws.mean() - exact) < 4 * draws.std() / 50**0.5


def test_uniforms_on_boxes() -> None:
    metric = Sphere(2)
    low, high = -0.5 * jnp.ones(2), 0.5 * jnp.ones(2)
    small, large = RiemannianUniform(metric, low, high), RiemannianUniform(metric, 2 * low, high)
    ratio = large.log_volume().value - small.log_volume().value
    assert abs(kl_divergence(small, large) - ratio) < 1e-12
    assert kl_divergence(large, small) == math.inf
    assert abs(monte_carlo_kl(small, large, KEY, 100).value - ratio) < 1e-4
    assert monte_carlo_kl(large, small, KEY, 100).value == math.inf
    heat = RiemannianHeatKernel(jnp.zeros(2), 0.1, metric)
    assert kl_divergence(heat, small) == math.inf
    assert kl_divergence(heat.expand((3,)), small).shape == (3,)


def test_a_flat_torus_is_not_mistaken_for_a_plane() -> None:
    torus, loc = FlatTorus(2), jnp.array([3.0, 0.0])
    p, q = RiemannianWrappedNormal(loc, 0.1, torus), RiemannianWrappedNormal(-loc, 0.1, torus)
    assert abs(kl_divergence(p, q) - (2 * math.pi - 6) ** 2 / 0.2) < 0.05


def test_points_and_mixtures() -> None:
    family = laws(Sphere(2))
    heat, point = family["heat"], jnp.array([0.1, 0.2])
    assert jnp.allclose(kl_divergence(dist.Delta(point, event_dim=1), heat), -heat.log_prob(point))
    wide = RiemannianHeatKernel(jnp.broadcast_to(heat.loc, (3, 2)), heat.time, heat.metric, heat.correction)
    value = kl_divergence(family["wrapped"], VampPrior(wide))
    assert abs(value - kl_divergence(family["wrapped"], heat)) < 1e-12


def test_bad_arguments_are_named() -> None:
    heat = RiemannianHeatKernel(jnp.zeros(2), 0.1, Sphere(2))
    with pytest.raises(ValueError, match="num_samples"):
        monte_carlo_kl(heat, heat, KEY, 1)
    with pytest.raises(ValueError, match="event shape"):
        kl_divergence(heat, dist.Normal(jnp.zeros(3), 1.0).to_event(1))
