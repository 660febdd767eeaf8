"""Parallel transport of tangent vectors along the shortest geodesic."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import check_finite, check_point, is_traced
from pyro_riemann.numpyro.metrics import RiemannianMetric

_RUNG = 0.1  # length to which vectors are scaled for a pole ladder
_MOST_STEPS = 1024
_TRACED = 4  # times `flow_steps`, where the result cannot tell how many it takes


def parallel_transport(metric: RiemannianMetric, z: Array, y: Array, u: Array) -> Array:
    r"""Carry tangent vectors ``u`` at ``z`` to ``y`` along the shortest geodesic, inner products unchanged.

    On symmetric spaces (flat, spherical and hyperbolic space, positive definite matrices, their products and scaled
    versions, in whatever coordinates) one rung of a pole ladder, which is exact there. On any other metric the equation
    :math:`\dot u^i = -\Gamma^i_{jk} \dot\gamma^j u^k` is integrated together with that of the geodesic, with steps that
    are halved until vectors move by less than 1e-6 of their length (1e-4 in single precision). Under a transformation
    of JAX, where values cannot be read, there are four times the metric's ``flow_steps``.

    Differentiable in all arguments and in the metric's arrays.

    Args:
        metric: the metric.
        z: start, ``(*batch, d)``.
        y: end, ``(*batch, d)``.
        u: vectors at ``z``, ``(*batch, d)``; batches broadcast.

    Returns:
        Vectors at ``y``, ``(*batch, d)``.

    Raises:
        TypeError: if an argument is not a floating array.
        ValueError: for wrong shapes, or values that are not finite.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 2; Guigui & Pennec (2022), *Numerical accuracy of ladder
    schemes for parallel transport on manifolds*.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> sphere, z, y = Sphere(2), jnp.array([0.0, 0.0]), jnp.array([0.3, 0.4])
        >>> v = parallel_transport(sphere, z, y, jnp.array([0.4, -0.3]))
        >>> round(sphere.norm(y, v).item(), 4)  # as long as before: 2 * 0.5 at the pole
        1.0
    """
    z, y, u = (check_finite(name, check_point(name, x, metric.dim)) for name, x in (("z", z), ("y", y), ("u", u)))
    z, y, u = jnp.broadcast_arrays(z, y, u)
    if metric.is_symmetric:
        return _ladder(metric, z, y, u)
    velocity = metric.logmap(z, y)
    if is_traced(metric, z, y, u):
        return _integrated(metric, z, velocity, u, _TRACED * metric.flow_steps)
    steps, tolerance = metric.flow_steps, 1e-6 if z.dtype == jnp.float64 else 1e-4
    coarse = _integrated(metric, z, velocity, u, steps)
    while True:
        fine = _integrated(metric, z, velocity, u, 2 * steps)
        change, size = metric.norm(y, fine - coarse), metric.norm(z, u)
        lost = ~(change <= tolerance * size)  # also for NaN
        if not bool(lost.any()):
            return fine
        if steps >= _MOST_STEPS:
            warn(
                f"parallel_transport: {int(lost.sum())} of {lost.size} vectors still move by up to "
                f"{float((change / size)[lost].max()):.1e} of their length when {steps} steps are halved: the metric "
                "is steep on their way."
            )
            return fine
        coarse, steps = fine, 2 * steps


def _unit(metric: RiemannianMetric, z: Array, u: Array, otherwise: Array) -> Array:
    """Lengths of ``u``, without derivatives, ``(*batch, 1)``; those of ``otherwise`` where it is 0."""
    size = jax.lax.stop_gradient(metric.norm(z, u))[..., None]
    return jnp.where(size > 0, size, otherwise)


@jax.jit
def _ladder(metric: RiemannianMetric, z: Array, y: Array, u: Array) -> Array:
    """Transport by the geodesic reflection in the middle of the way."""
    scale = _unit(metric, z, u, jnp.ones_like(u[..., :1]))
    middle = metric.expmap(z, 0.5 * metric.logmap(z, y))
    image = metric.expmap(middle, -metric.logmap(middle, metric.expmap(z, _RUNG / scale * u)))
    return -scale / _RUNG * metric.logmap(y, image)


@partial(jax.jit, static_argnames="num_steps")
def _integrated(metric: RiemannianMetric, z: Array, v: Array, u: Array, num_steps: int) -> Array:
    """The vectors after unit time along the geodesics with initial velocity ``v``, by the Runge-Kutta method."""
    one = jnp.ones_like(u[..., :1])
    speed = jax.lax.stop_gradient(metric.norm(z, v))[..., None]
    pace, scale = _unit(metric, z, v, one), _unit(metric, z, u, one)
    State = tuple[Array, Array, Array]

    def change(z: Array, v: Array, u: Array) -> State:
        # Gamma(v, u) by polarisation: all three in one batch
        bent = metric.christoffel(jnp.broadcast_to(z, (3, *z.shape)), jnp.stack([v, v + u, v - u]))
        return v, -bent[0], -0.25 * (bent[1] - bent[2])

    def add(state: State, slope: State, h: float) -> State:
        return state[0] + h * slope[0], state[1] + h * slope[1], state[2] + h * slope[2]

    def step(state: State, _: None) -> tuple[State, None]:
        h = 1 / num_steps
        first = change(*state)
        second = change(*add(state, first, 0.5 * h))
        third = change(*add(state, second, 0.5 * h))
        fourth = change(*add(state, third, h))
        for slope, weight in ((first, 1), (second, 2), (third, 2), (fourth, 1)):
            state = add(state, slope, h / 6 * weight)
        return state, None

    # a vector as long as the velocity keeps digits
    (_, _, end), _ = jax.lax.scan(step, (z, v, pace / scale * u), length=num_steps)
    return jnp.where(speed > 0, scale / pace * end, u)
