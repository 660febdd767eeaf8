"""The twin of an expected metric: the mean of its members, as a surface where they are surfaces, and a pytree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import ConstantMetric, EnsembleMetric, KernelMetric, PullbackMetric

RANDOM = np.random.default_rng(0)
Z, Y = np.array([[0.3, -0.4], [-1.1, 0.2]]), np.array([[-0.9, 0.5], [0.7, -0.6]])


def image(weight: Array, z: Array) -> Array:
    return jnp.tanh(z @ weight)


MEMBERS = [PullbackMetric(jax.tree_util.Partial(image, RANDOM.normal(size=(2, 5))), 2) for _ in range(3)]


def test_the_mean_of_its_members_and_the_stacked_immersion() -> None:
    metric = EnsembleMetric(MEMBERS)
    expected = jnp.stack([member.metric(Z) for member in MEMBERS]).mean(0)
    np.testing.assert_allclose(metric.metric(Z), expected, rtol=1e-12)
    images, jacobian = metric.embed_jacobian(Z)
    np.testing.assert_allclose(images, metric.embed(Z), rtol=1e-12)
    np.testing.assert_allclose(jacobian.mT @ jacobian, expected, rtol=1e-12)
    one = PullbackMetric(metric.embed, 2, jitter=0.0)
    np.testing.assert_allclose(metric.christoffel(Z, Y), one.christoffel(Z, Y), rtol=1e-8, atol=1e-10)
    value = jax.jit(lambda of: of.logdet(Z))(metric)
    np.testing.assert_allclose(value, jnp.linalg.slogdet(expected)[1], rtol=1e-10)
    assert len(jax.tree.leaves(metric)) == 3


def test_distances_and_their_samples() -> None:
    metric = EnsembleMetric([ConstantMetric(s * jnp.eye(2)) for s in (1.0, 3.0)])
    length = np.linalg.norm(Z - Y, axis=-1)
    np.testing.assert_allclose(metric.dist_samples(Z, Y), np.stack([length, 3**0.5 * length]), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(metric.dist)(Z, Y), 2**0.5 * length, rtol=1e-8)


def test_members_of_other_kinds_and_errors() -> None:
    kernel = KernelMetric(Z, np.ones_like(Z), 1.5, 0.5)
    mixed = EnsembleMetric([MEMBERS[0], kernel])
    assert mixed.immersed() is None
    np.testing.assert_allclose(mixed.metric(Z), (MEMBERS[0].metric(Z) + kernel.metric(Z)) / 2, rtol=1e-12)
    with pytest.raises(ValueError, match="no surface"):
        mixed.embed(Z)
    with pytest.raises(ValueError, match="empty"):
        EnsembleMetric([])
    with pytest.raises(ValueError, match=r"one dimension, got \[2, 3\]"):
        EnsembleMetric([kernel, ConstantMetric(jnp.eye(3))])
