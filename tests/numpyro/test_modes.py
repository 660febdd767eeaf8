"""The twin in other modes: half precision, two dtypes, vmap over laws, a device that is not the first."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import (
    ConstantMetric,
    EnsembleMetric,
    EuclideanMetric,
    GridMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    brownian_motion,
)
from pyro_riemann.numpyro.manifolds import ScaledMetric

POINTS, OTHERS = jnp.arange(6.0).reshape(3, 2) / 10, jnp.full((3, 2), 0.2)
LAWS: dict[str, Callable[[Array], Any]] = {
    "heat kernel": lambda loc: RiemannianHeatKernel(loc, 0.1, Sphere(2), num_steps=8),
    "flat heat kernel": lambda loc: RiemannianHeatKernel(loc, 0.1, EuclideanMetric(2), num_steps=8),
    "wrapped normal": lambda loc: RiemannianWrappedNormal(loc, 0.1, Sphere(2)),
    "normal": lambda loc: RiemannianNormal(loc, 0.3, Hyperbolic(2)),
    "uniform": lambda loc: RiemannianUniform(Sphere(2), loc - 1, loc + 1),
}


@pytest.mark.parametrize("name", LAWS)
def test_vmap_over_a_law_makes_a_batch(name: str) -> None:
    law = jax.vmap(LAWS[name])(POINTS)
    assert law.batch_shape == (3,)
    one_by_one = jnp.stack([LAWS[name](loc).log_prob(y) for loc, y in zip(POINTS, OTHERS, strict=True)])
    np.testing.assert_allclose(law.log_prob(OTHERS), one_by_one, rtol=1e-3, atol=1e-3)
    assert law.sample(jax.random.key(0), (4,)).shape == (4, 3, 2)
    assert bool(jnp.isfinite(law.log_prob(law.sample(jax.random.key(1)))).all())


@pytest.mark.parametrize("name", LAWS)
def test_vmap_over_its_methods(name: str) -> None:
    law = jax.vmap(LAWS[name])(POINTS)
    by_rows = jax.vmap(lambda one, y: one.log_prob(y))(law, OTHERS)
    np.testing.assert_allclose(by_rows, law.log_prob(OTHERS), rtol=1e-4, atol=1e-4)
    keys = jax.random.split(jax.random.key(0), 3)
    draws = jax.vmap(lambda one, key: one.sample(key))(law, keys)
    expected = jnp.stack([LAWS[name](loc).sample(key) for loc, key in zip(POINTS, keys, strict=True)])
    np.testing.assert_allclose(draws, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_refused(dtype: Any) -> None:
    low = POINTS.astype(dtype)
    for refused in (
        lambda: RiemannianWrappedNormal(low, 0.1, Sphere(2)),
        lambda: RiemannianHeatKernel(low, 0.1, Sphere(2)),
        lambda: RiemannianNormal(low, 0.1, Sphere(2)),
        lambda: RiemannianUniform(Sphere(2), low - 1, low + 1),
        lambda: Sphere(2).dist(low, low),
    ):
        with pytest.raises(TypeError, match="geometry in float32"):
            refused()


# ---------------------------------------------------------------- two dtypes

F32, F64 = np.float32, np.float64
Z, Y = 0.7 * np.random.default_rng(0).random((2, 3, 2)) - 0.35
WEIGHTS = [np.random.default_rng(1).normal(size=size) for size in ((2, 8), (8, 5))]


class Waves(RiemannianMetric):
    """A metric of one's own, whose constant has a dtype."""

    pytree_data_fields = ("height",)
    dim = 2

    def __init__(self, height: Array) -> None:
        self.height = height

    def metric(self, z: Array) -> Array:
        return (1 + self.height * jnp.sin(z).sum(-1) ** 2)[..., None, None] * jnp.eye(2)


def kernel(dtype: Any) -> KernelMetric:
    centroids, precisions = ([[0.0, 0.0], [0.6, 0.2]], [[4.0, 2.0], [2.0, 6.0]])
    return KernelMetric(jnp.asarray(centroids, dtype), jnp.asarray(precisions, dtype), 0.8, 0.1)


def decoder(dtype: Any) -> PullbackMetric:
    def network(first: Array, second: Array, z: Array) -> Array:
        return jnp.tanh(z @ first) @ second

    return PullbackMetric(jax.tree_util.Partial(network, *(jnp.asarray(weight, dtype) for weight in WEIGHTS)), 2)


METRICS: dict[str, Callable[[Any], RiemannianMetric]] = {
    "decoder": decoder,
    "ensemble": lambda dtype: EnsembleMetric([decoder(dtype), decoder(dtype)]),
    "kernel": kernel,
    "grid": lambda dtype: GridMetric(kernel(dtype), -1.0, 1.0, 12),
    "conformal": lambda dtype: kernel(dtype).conformal(),
    "constant": lambda dtype: ConstantMetric(jnp.asarray([[2.0, 0.3], [0.3, 1.0]], dtype)),
    "scaled": lambda dtype: ScaledMetric(Sphere(2), jnp.asarray(2.0, dtype)),
    "user's own": lambda dtype: Waves(jnp.asarray(0.5, dtype)),
    "sphere": lambda dtype: Sphere(2),
}
AT_A_POINT: dict[str, Callable[..., Array]] = {
    "metric": lambda metric, z, y: metric.metric(z),
    "logdet": lambda metric, z, y: metric.logdet(z),
    "drift": lambda metric, z, y: metric.drift(z),
    "christoffel": lambda metric, z, y: metric.christoffel(z, y),
    "norm": lambda metric, z, y: metric.norm(z, y),
    "inner": lambda metric, z, y: metric.inner(z, y, z),
}
FURTHER: dict[str, Callable[..., Array]] = {
    "distance": lambda metric, z, y: metric.dist(z, y),
    "logarithm": lambda metric, z, y: metric.logmap(z, y),
    "exponential": lambda metric, z, y: metric.expmap(z, 0.1 * y),
    "curve": lambda metric, z, y: metric.geodesic(z, y, init="line")(0.5),
    "paths": lambda metric, z, y: brownian_motion(metric, z, 0.05, 3, key=jax.random.key(0)),
    "wrapped normal": lambda metric, z, y: RiemannianWrappedNormal(z, 0.002, metric).log_prob(y),
    "heat kernel": lambda metric, z, y: RiemannianHeatKernel(z, 0.002, metric, num_steps=3).log_prob(y),
    "draws": lambda metric, z, y: RiemannianHeatKernel(z, 0.002, metric, num_steps=3).sample(jax.random.key(0)),
    "normal": lambda metric, z, y: RiemannianNormal(z, 0.05, metric).log_prob(y),
}


@pytest.mark.parametrize("points, weights", [(F64, F32), (F32, F64)])
@pytest.mark.parametrize("name", METRICS)
def test_points_of_another_dtype_than_the_metric_give_their_own(name: str, points: Any, weights: Any) -> None:
    """The values at a point; of what takes a loop, the types of a trace: JAX refuses loops that change them."""
    metric, exact = METRICS[name](weights), METRICS[name](F64)
    given = jnp.asarray(Z, points), jnp.asarray(Y, points)
    for routine, function in AT_A_POINT.items():
        value = function(metric, *given)
        assert value.dtype == points, routine
        np.testing.assert_allclose(value, function(exact, jnp.asarray(Z), jnp.asarray(Y)), rtol=1e-4, atol=1e-5)
    for routine, function in FURTHER.items():
        assert jax.eval_shape(functools.partial(function, metric), *given).dtype == points, routine


@pytest.mark.parametrize("name", METRICS)
def test_points_and_vectors_of_two_dtypes_meet_in_the_wider(name: str) -> None:
    metric, wide, single = METRICS[name](F32), jnp.asarray(Z), jnp.asarray(Y, F32)
    for routine in ("christoffel", "norm", "inner"):
        function = functools.partial(AT_A_POINT[routine], metric)
        for mixed in ((wide, single), (single, wide)):
            np.testing.assert_array_equal(function(*mixed), function(*(part.astype(F64) for part in mixed)), routine)
    for routine in ("distance", "logarithm", "exponential", "curve"):
        for mixed in ((wide, single), (single, wide)):
            assert jax.eval_shape(functools.partial(FURTHER[routine], metric), *mixed).dtype == F64, routine


@pytest.mark.parametrize("name", LAWS)
def test_values_and_parameters_of_laws_meet_in_the_wider(name: str) -> None:
    """By JAX's own promotion, as those of NumPyro's laws do; draws have the dtype of the parameters."""
    exact = LAWS[name](POINTS.astype(F64)).log_prob(OTHERS.astype(F64))
    for parameters, values in ((F32, F64), (F64, F32)):
        law = LAWS[name](POINTS.astype(parameters))
        found = law.log_prob(OTHERS.astype(values))
        assert found.dtype == np.promote_types(parameters, values)
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
        assert law.sample(jax.random.key(0)).dtype == parameters


def test_an_immersion_that_converts_its_argument_is_believed() -> None:
    narrow = decoder(F32)
    metric = PullbackMetric(lambda z: narrow.immersion(z.astype(F32)), 2)
    found = metric.metric(jnp.asarray(Z))
    assert found.dtype == F64
    np.testing.assert_allclose(found, narrow.metric(jnp.asarray(Z, F32)), rtol=1e-5)


def test_a_search_for_nan_stops_at_none_of_ours() -> None:
    """With ``jax_debug_nans``, by which users look for theirs, JAX stops at the fill of an index out of range."""
    with jax.debug_nans(True):
        law = RiemannianNormal(jnp.asarray(Z[0]), 0.05, Waves(jnp.asarray(0.5)), num_directions=16)
        assert np.isfinite(law.log_prob(jnp.asarray(Y[0])))


# ---------------------------------------------------------------- devices

ON_THE_SECOND = """
    import jax, jax.numpy as jnp
    from pyro_riemann.numpyro import *

    first, second = jax.devices()
    here = lambda x: jax.device_put(x, second)
    z, y, time = here(jnp.array([[0.1, -0.2], [0.2, 0.1]])), here(jnp.array([[-0.1, 0.2], [0.3, 0.0]])), here(0.05)
    kernel = KernelMetric(here(jnp.array([[0.0, 0.0], [0.6, 0.2]])), here(jnp.full((2, 2), 3.0)), 0.8, 0.1)
    key = here(jax.random.key(0))
    for metric in (Sphere(2), FlatTorus(2), kernel):
        results = {
            "metric": metric.metric(z), "logdet": metric.logdet(z), "drift": metric.drift(z),
            "dist": metric.dist(z, y), "expmap": metric.expmap(z, 0.1 * y),
            "paths": brownian_motion(metric, z, 0.05, 3, key=key),
        }
        laws = RiemannianWrappedNormal(z, time, metric), RiemannianHeatKernel(z, time, metric, num_steps=3)
        for law in () if metric is kernel else laws:
            results[type(law).__name__] = law.log_prob(y)
            results["draws of " + type(law).__name__] = law.sample(key)
        if metric is not kernel:
            uniform = RiemannianUniform(metric, here(jnp.full(2, -0.4)), here(jnp.full(2, 0.4)))
            results |= {"uniform": uniform.log_prob(z), "draws of the uniform": uniform.sample(key, (3,))}
        for name, value in results.items():
            # what depends on no argument, such as a flat metric, may be anywhere, as long as it goes along
            assert value.devices() == {second} or not value.committed, (type(metric).__name__, name, value.devices())
            assert bool(jnp.isfinite(value).all()), (type(metric).__name__, name)
    print("stayed", len(results))
"""


def test_results_stay_on_the_second_device() -> None:
    """Of two that are made of one processor; JAX refuses arguments that are committed to different ones."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-c", textwrap.dedent(ON_THE_SECOND)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("stayed")
