"""Under ``jit``: the same numbers, nothing leaks out of a trace, and equal shapes compile once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.util import log_density
from numpyro.optim import Adam

from pyro_riemann.numpyro import PullbackMetric, RiemannianHeatKernel, RiemannianMetric
from tests.numpyro.infer.models import LAWS, NOISE, kernel, law, local_guide, local_model, model, observations

POINTS = np.array([[0.3, 0.1], [-0.2, 0.4], [0.2, -0.1]])


def paraboloid() -> RiemannianMetric:
    """A surface whose geodesics are solved for: the whole numerical machinery in one density."""
    return PullbackMetric(jax.tree_util.Partial(_paraboloid, jnp.array([0.5, 1.0])), dim=2)


def _paraboloid(bend: Array, z: Array) -> Array:
    return jnp.concat([z, (bend * z**2).sum(-1, keepdims=True)], axis=-1)


def laws() -> dict[str, Any]:
    loc = jnp.array([0.2, -0.1])
    return {
        "wrapped normal": law("wrapped normal"),
        "normal": law("normal"),
        "uniform on a kernel metric": law("uniform", kernel()),
        "heat kernel on a surface": RiemannianHeatKernel(loc, 0.3, paraboloid(), num_steps=4),
    }


@jax.jit
def log_prob_and_gradients(one: Any, z: Array) -> tuple[Array, Any]:
    return jax.value_and_grad(lambda *given: given[0].log_prob(given[1]).sum(), (0, 1), allow_int=True)(one, z)


@pytest.mark.parametrize("name", ["wrapped normal", "uniform on a kernel metric", "heat kernel on a surface"])
def test_compiled_density_is_the_density(name: str) -> None:
    """The law as an argument of the program: its arrays are traced, and have gradients."""
    one, z = laws()[name], jnp.asarray(POINTS)
    value, (in_law, in_point) = log_prob_and_gradients(one, z)
    np.testing.assert_allclose(value, one.log_prob(z).sum(), rtol=1e-9)
    step = 1e-5 * jnp.array([0.6, -0.8])
    difference = one.log_prob(z + step).sum() - one.log_prob(z - step).sum()
    np.testing.assert_allclose((in_point @ step).sum() * 2, difference, rtol=1e-5)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(in_law) if leaf.dtype == value.dtype)


def test_log_density_of_a_model_under_jit() -> None:
    data, z = observations(), jnp.asarray(POINTS[0])

    @jax.jit
    def joint(z: Array) -> Array:
        value: Array = log_density(model, (data,), {}, dict.fromkeys(LAWS, z))[0]
        return value

    likelihood = -0.5 * (((data - POINTS[0]) / NOISE) ** 2).sum() - len(data) * np.log(2 * np.pi * NOISE**2)
    np.testing.assert_allclose(joint(z), sum(law(name).log_prob(z) + likelihood for name in LAWS), rtol=1e-10)


def test_nothing_leaks_out_of_a_trace() -> None:
    with jax.check_tracer_leaks():
        for name in ("normal", "uniform on a kernel metric", "heat kernel on a surface"):
            one = laws()[name]

            @jax.jit
            def work(one: Any, key: Array, z: Array) -> Any:
                return jax.grad(lambda point: one.expand((3,)).log_prob(point).sum())(z), one.sample(key, (2,))

            assert jnp.isfinite(work(one, jax.random.PRNGKey(0), jnp.asarray(POINTS))[0]).all()
        svi = SVI(local_model, local_guide, Adam(0.01), Trace_ELBO())
        assert jnp.isfinite(svi.run(jax.random.PRNGKey(0), 2, observations(), 4, progress_bar=False).losses).all()


def test_equal_shapes_compile_once() -> None:
    """New arrays of the old shapes, and laws built anew, cause no trace and no compilation."""
    surface = paraboloid()

    def work(shift: float) -> None:
        z, key = jnp.asarray(POINTS + shift), jax.random.PRNGKey(int(100 * shift))
        loc = jnp.array([0.2, -0.1]) + shift
        for one in (RiemannianHeatKernel(loc, 0.3 + shift, surface, num_steps=4), *map(law, LAWS[:3])):
            one.log_prob(z)
            one.sample(key, (2,))
        law("uniform", spread=0.3).log_prob(z)
        surface.squared_dist(loc, z)
        surface.geodesic(loc, z, init="line")
        surface.expmap(z, 0.1 * z)
        surface.log_van_vleck(loc, z)

    work(0.0)
    events: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        work(0.01)
        again = list(events)
        jax.jit(lambda z: z + 1)(jnp.zeros(7))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert [event for event in again if "trace" in event or "compile" in event] == []
    assert any("trace" in event for event in events), "the counter would not see a trace"
