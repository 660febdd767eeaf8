"""Registered divergences are closed forms; the others are estimated, with their error, here and by NumPyro itself."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions.kl import kl_divergence
from numpyro.infer import Trace_ELBO, TraceMeanField_ELBO

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


def test_errors_of_monte_carlo_are_its_errors() -> None:
    """Of 600 estimates of log 2 - 1/2 the scores have variance one."""
    p, q = (RiemannianWrappedNormal(jnp.zeros((600, 2)), time, EuclideanMetric(2)) for time in (0.1, 0.2))
    value, error = monte_carlo_kl(p, q, KEY, 200)
    scores = (value - math.log(2) + 0.5) / error
    assert float(jnp.square(scores).mean()) == pytest.approx(1, abs=4 * (2 / 600) ** 0.5)


@pytest.mark.filterwarnings("ignore:A RiemannianHeatKernel gives the density of its own draw:UserWarning")
def test_monte_carlo_is_within_its_error_and_signed() -> None:
    metric = SPHERES["warped"]()
    family, (z, weights) = laws(metric), sphere_rule(metric)
    log_q = family["heat"].log_prob(z)
    for p in ("wrapped", "normal"):
        log_p = family[p].log_prob(z)
        density = jnp.exp(log_p - 0.5 * metric.logdet(z))
        exact = (weights * density * jnp.where(density > 1e-30, log_p - log_q, 0.0)).sum()
        estimate = monte_carlo_kl(family[p], family["heat"], KEY, 5000)
        assert abs(estimate.value - exact) < 4 * estimate.standard_error
    # a mass below 1 makes the divergence to oneself the negative log mass, not its absolute value
    plain, honest = (
        RiemannianHeatKernel(jnp.zeros(2), 0.1, Sphere(2), normalize=n, num_steps=4) for n in (False, True)
    )
    assert abs(monte_carlo_kl(plain, honest, KEY, 10).value - math.log(0.96732391)) < 1e-6


def test_pairs_without_a_closed_form_are_not_registered() -> None:
    family, normal = laws(warped_sphere(2)), dist.Normal(jnp.zeros((3, 2)), 0.3).to_event(1)
    flat, mixture = RiemannianWrappedNormal(jnp.zeros(2), 0.3, EuclideanMetric(2)), VampPrior(normal)
    student = dist.StudentT(3.0, jnp.zeros(2), 0.3).to_event(1)
    curved = [(p, q) for p in family.values() for q in (*family.values(), normal, mixture)]
    for p, q in (*curved, (normal, family["heat"]), (flat, mixture), (flat, student), (mixture, flat)):
        with pytest.raises(NotImplementedError):
            kl_divergence(p, q)
    assert monte_carlo_kl(normal, family["heat"], KEY).value.shape == (3,)


def test_mean_field_elbo_is_the_elbo() -> None:
    """Where there is no closed form NumPyro takes draws by itself, here against a prior of narrow peaks."""
    peaks = VampPrior(dist.Normal(jnp.array([[-1.2, 0.3], [0.9, 0.9], [0.4, -1.5]]), 0.15).to_event(1))
    for prior, metric in ((peaks, EuclideanMetric(2)), (dist.Normal(jnp.zeros(2), 1.0).to_event(1), Sphere(2))):

        def model(prior: dist.Distribution = prior) -> None:
            numpyro.sample("z", prior)

        def guide(metric: RiemannianMetric = metric) -> None:
            numpyro.sample("z", RiemannianWrappedNormal(jnp.array([0.1, 0.2]), 0.3, metric))

        values = []
        for elbo in (Trace_ELBO, TraceMeanField_ELBO):
            loss = elbo(num_particles=4000).loss
            values.append(jnp.stack([loss(key, {}, model, guide) for key in jax.random.split(KEY, 5)]))
        spread = jnp.sqrt((values[0].var(ddof=1) + values[1].var(ddof=1)) / 5)
        assert abs(values[0].mean() - values[1].mean()) < 5 * spread + 1e-9


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
    with pytest.raises(NotImplementedError):
        kl_divergence(p, q)
    estimate = monte_carlo_kl(p, q, KEY, 5000)
    assert abs(estimate.value - (2 * math.pi - 6) ** 2 / 0.2) < 4 * estimate.standard_error


def test_points() -> None:
    heat, point = laws(Sphere(2))["heat"], jnp.array([0.1, 0.2])
    assert jnp.allclose(kl_divergence(dist.Delta(point, event_dim=1), heat), -heat.log_prob(point))


def test_bad_arguments_are_named() -> None:
    heat = RiemannianHeatKernel(jnp.zeros(2), 0.1, Sphere(2))
    with pytest.raises(ValueError, match="num_samples"):
        monte_carlo_kl(heat, heat, KEY, 1)
    with pytest.raises(ValueError, match="event shape"):
        kl_divergence(heat, dist.Normal(jnp.zeros(3), 1.0).to_event(1))
