"""The conformal metric (det G)^{-1} I of any metric."""

from __future__ import annotations

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pyro_riemann.numpyro import ConformalMetric, ConstantMetric, KernelMetric, RiemannianMetric


def kernel(dim: int = 2) -> KernelMetric:
    generator = np.random.default_rng(2)
    return KernelMetric(generator.normal(size=(9, dim)), 1 + generator.random((9, dim)), 0.9, 0.2)


class Tensor(RiemannianMetric):
    """The same tensor without closed forms."""

    pytree_data_fields = ("base",)

    def __init__(self, base: RiemannianMetric) -> None:
        self.dim, self.base = base.dim, base

    def metric(self, z: jax.Array) -> jax.Array:
        return self.base.metric(z)


def test_definition_and_derivatives() -> None:
    metric = kernel(3).conformal(1.5)
    assert isinstance(metric, ConformalMetric)
    z, v = jnp.asarray(0.6 * np.random.default_rng(0).normal(size=(2, 3, 3)))
    factor = np.exp(1.5) / np.linalg.det(kernel(3).metric(z))
    np.testing.assert_allclose(metric.metric(z), factor[:, None, None] * np.eye(3), rtol=1e-10)
    generic = Tensor(metric)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compilation is all that takes time
    def derivatives(of: RiemannianMetric, z: jax.Array, v: jax.Array) -> list[jax.Array]:
        values = [of.logdet(z), of.cholesky(z), of.inner(z, v, 2 * v), of.logdet_gradient(z)]
        return [*values, of.metric_jacobian(z)[1], of.christoffel(z, v), of.drift(z)]

    for ours, theirs in zip(derivatives(metric, z, v), derivatives(generic, z, v), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_drift_vanishes_on_surfaces() -> None:
    assert jnp.all(kernel().conformal().drift(jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))) == 0)


def test_float32_range() -> None:
    # det G = e^440 at d = 64: the factor leaves float32, log_scale brings it back; logdet never needs it
    base, z = ConstantMetric(1e3 * jnp.eye(64, dtype=jnp.float32)), jnp.zeros(64, jnp.float32)
    assert float(base.conformal().logdet(z)) == pytest.approx(-64 * 64 * 6.907755, rel=1e-5)
    value = base.conformal(base.logdet(z)).metric(z)
    assert value.dtype == jnp.float32
    assert float(value[0, 0]) == pytest.approx(1.0, rel=1e-4)


def test_pytree() -> None:
    metric, z = kernel().conformal(0.5), jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    assert len(jax.tree.leaves(metric)) == 5
    assert jnp.array_equal(pickle.loads(pickle.dumps(metric)).metric(z), metric.metric(z))
    assert jnp.array_equal(metric.landmarks, metric.base.landmarks)
    scales = jnp.array([0.0, 1.0])
    many = jax.vmap(lambda scale: kernel().conformal(scale).logdet(z))(scales)
    np.testing.assert_allclose(many[1] - many[0], 2.0 * np.ones(4), rtol=1e-12)  # d times the change of log_scale
    gradient = jax.grad(lambda of: of.logdet(z[0]))(metric)
    assert float(gradient.log_scale) == 2.0
    np.testing.assert_allclose(
        gradient.base.bandwidth, -2 * jax.grad(lambda of: of.logdet(z[0]))(metric.base).bandwidth, rtol=1e-12
    )
    with pytest.raises(ValueError, match="log_scale"):
        ConformalMetric(kernel(), float("inf"))
