"""Exact heat kernels of arrays: sums and integrals run in the widest dtype that JAX is set to."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import heat_kernel, space_form
from pyro_riemann.numpyro._checks import check_positive, holds


def widest(value: Array) -> Array:
    """``value`` in float64, or in float32 where JAX is not set to 64 bits."""
    return value.astype(jnp.result_type(float))


def as_time(time: float | Array, like: Array) -> Array:
    """``time`` as an array like ``like``; raise unless it is positive and finite, where that is known."""
    return check_positive("time", jnp.asarray(time, dtype=like.dtype))


@jax.jit
def circle(step: Array, time: Array, period: float | Array) -> Array:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself)."""
    return heat_kernel.circle(jnp, step, time, jnp.asarray(period, step.dtype))


def sphere(s: Array, c: Array, time: float | Array, dim: int) -> Array:
    """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``, both :func:`widest`."""
    s, c, time = jnp.broadcast_arrays(s, c, as_time(time, s))
    _check_digits(space_form.squared_dist(jnp, s, c, 1), time, dim)
    return _sphere(s, c, time, dim)


@partial(jax.jit, static_argnames="dim")
def _sphere(s: Array, c: Array, time: Array, dim: int) -> Array:
    switch = heat_kernel.sphere_switch(dim)
    early = heat_kernel.sphere(jnp, s, c, jnp.clip(time, max=switch), dim)
    return jnp.where(time < switch, early, _sphere_series(s, jnp.clip(time, min=switch), dim))


def _sphere_series(s: Array, time: Array, dim: int) -> Array:
    """Sum over spherical harmonics, by Gegenbauer polynomials in ``1 - 2 s``."""
    x = 1 - 2 * s

    def step(state: tuple[Array, Array, Array], n: Array) -> tuple[tuple[Array, Array, Array], None]:
        return heat_kernel.sphere_series_step(jnp, state, n, x, time, dim), None

    start = heat_kernel.sphere_series_start(jnp, x, time, dim)
    degrees = jnp.arange(1, heat_kernel.sphere_series_degree(dim) + 1, dtype=x.dtype)
    state, _ = jax.lax.scan(step, start, degrees)
    return heat_kernel.sphere_series_end(jnp, state, dim)


def hyperbolic(s: Array, time: float | Array, dim: int) -> Array:
    """Heat kernel of H^d at ``s = sinh(l/2)^2``, :func:`widest`."""
    s, time = jnp.broadcast_arrays(s, as_time(time, s))
    if not holds(jnp.isfinite(s)):
        raise ValueError(heat_kernel.too_far(str(s.dtype)))
    _check_digits(space_form.squared_dist(jnp, s, 1 + s, -1), time, dim)
    return _hyperbolic(s, time, dim)


@partial(jax.jit, static_argnames="dim")
def _hyperbolic(s: Array, time: Array, dim: int) -> Array:
    if dim % 2 == 1:
        return heat_kernel.hyperbolic_odd(jnp, s, time, dim)
    end = jax.lax.stop_gradient(heat_kernel.hyperbolic_even_end(jnp, s, time, dim))
    return heat_kernel.hyperbolic_even(jnp, s, time, end, dim)


def _check_digits(squared: Array, time: Array, dim: int) -> None:
    exponent = squared / (2 * time)
    if not holds(exponent * jnp.finfo(exponent.dtype).eps < heat_kernel.LARGEST_ERROR):
        worst = int(np.argmax(exponent))
        values = float(np.ravel(time)[worst]), float(np.ravel(squared)[worst]) ** 0.5, float(np.ravel(exponent)[worst])
        raise ValueError(heat_kernel.no_digits(dim, *values, str(exponent.dtype)))
