"""The twin in other modes: half precision, vmap over laws, a device that is not the first."""

from __future__ import annotations

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
    EuclideanMetric,
    Hyperbolic,
    RiemannianHeatKernel,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)

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
