"""Quasi-Newton iterations of the twin: the curves that they end at."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann.numpyro import PullbackMetric, Sphere
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._newton import polish
from pyro_riemann.numpyro.geodesics._path import search
from pyro_riemann.numpyro.geodesics._quasi_newton import quasi_newton


def bowl(z: Array) -> Array:
    """A sphere in the stereographic chart, in space."""
    square = jnp.square(z).sum(-1, keepdims=True)
    return jnp.concatenate([2 * z, square - 1], -1) / (square + 1)


def hill(z: Array) -> Array:
    return jnp.concatenate([z, 2 * jnp.exp(-2 * jnp.square(z).sum(-1, keepdims=True))], -1)


def test_distances_on_a_sphere() -> None:
    z, y = 0.3 * jax.random.normal(jax.random.key(0), (2, 20, 6))
    metric = PullbackMetric(bowl, 6, jitter=0.0)
    metric.solver = metric.solver.replace(num_knots=16, num_segments=64)
    control, converged = jax.jit(lambda z, y: search(metric.solver, metric, z, y, None))(z, y)
    assert bool((converged == 1).all())
    energy = metric.solver.energy(metric)
    length = jnp.sqrt(2 * energy.value(_spline.with_ends(control, z, y)))
    np.testing.assert_allclose(length, Sphere(6).dist(z, y), rtol=1e-5)


def test_curves_are_those_of_newtons_method() -> None:
    """From where it ends, one step with the full Hessian has nothing left to do; its Hessian is definite."""
    keys = jax.random.split(jax.random.key(1), 3)
    weights = jax.random.normal(keys[0], (8, 40)) / 8**0.5, jax.random.normal(keys[1], (40, 60)) / 40**0.5
    metric = PullbackMetric(lambda z: jnp.tanh(z @ weights[0]) @ weights[1], 8)
    energy = metric.solver.energy(metric)
    assert energy.frugal
    line = _spline.line(metric.solver.num_knots, *(2 * jax.random.normal(keys[2], (2, 10, 8))))

    @jax.jit
    def both(line: Array) -> tuple[Array, Array, Array]:
        ours = quasi_newton(energy, line, 70, 1e-12, 3)  # three at a time
        newton = polish(energy, ours.control, 1, 1e-12, 10)
        values = energy.value(ours.control), energy.value(newton.control)
        return ours.converged & newton.converged, *values

    converged, value, expected = both(line)
    assert bool(converged.all())
    np.testing.assert_allclose(value, expected, rtol=1e-11)


def test_a_straight_line_across_the_top_of_a_hill_is_left() -> None:
    """Where all is symmetric, the gradient has no part that leads off the saddle."""
    metric = PullbackMetric(hill, 6, jitter=0.0)
    z = jnp.zeros((3, 6)).at[:, 0].set(jnp.array([1.0, 1.3, 1.7]))
    found = metric.geodesic(z, -z)
    along = z + jnp.linspace(0, 1, 2001)[:, None, None] * (-2 * z)
    over = jnp.linalg.norm(jnp.diff(metric.embed(along), axis=0), axis=-1).sum(0)
    assert bool(found.converged.all())
    assert bool((found.length < 0.9 * over).all())
