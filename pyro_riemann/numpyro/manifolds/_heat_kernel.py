"""Exact heat kernels of arrays: sums and integrals run in the widest dtype that JAX is set to."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import heat_kernel
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import check_positive

# a new degree compiles anew, hence a few of them; without a known time, the one that serves times from 2e-3 on
_DEGREES = (16, 64, 256, 1024, 4096)
_DEGREE_WHILE_TRACING = 256


def as_time(time: Any, like: Array) -> Array:
    """``time`` as an array like ``like``; raise unless it is positive and finite, where that is known."""
    return check_positive("time", jnp.asarray(time, dtype=like.dtype))


@jax.jit
def circle(step: Array, time: Array, period: Any) -> Array:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself)."""
    return heat_kernel.circle(jnp, step, time, jnp.asarray(period, step.dtype))


def sphere(s: Array, c: Array, time: Array, dim: int) -> Array:
    """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``."""
    return _sphere(s, c, time, dim, _series_degree(time, dim) if dim > 3 else 12)


@partial(jax.jit, static_argnames=("dim", "degree"))
def _sphere(s: Array, c: Array, time: Array, dim: int, degree: int) -> Array:
    dtype, (s, c, time) = s.dtype, _widest(s, c, time)
    if dim > 3:
        return _sphere_series(s, time, dim, degree).astype(dtype)
    soon = jnp.clip(time, max=1.0)
    if dim == 2:
        end = jax.lax.stop_gradient(heat_kernel.sphere_two_end(jnp, s, c, soon))
        short = heat_kernel.sphere_two(jnp, s, c, soon, end)
    else:
        short = heat_kernel.sphere_three(jnp, s, c, soon)
    return jnp.where(time < 1, short, _sphere_series(s, jnp.clip(time, min=1.0), dim, degree)).astype(dtype)


def _sphere_series(s: Array, time: Array, dim: int, degree: int) -> Array:
    """Sum over spherical harmonics, by Gegenbauer polynomials in ``1 - 2 s``."""
    x = 1 - 2 * s

    def step(state: tuple[Array, Array, Array], n: Array) -> tuple[tuple[Array, Array, Array], None]:
        return heat_kernel.sphere_series_step(jnp, state, n, x, time, dim), None

    start = heat_kernel.sphere_series_start(jnp, x, time, dim)
    state, _ = jax.lax.scan(step, start, jnp.arange(1, degree + 1, dtype=x.dtype))
    return heat_kernel.sphere_series_end(jnp, state, dim)


def _series_degree(time: Array, dim: int) -> int:
    """Degree that suffices for the shortest time; a fixed one where the time is not known."""
    if isinstance(time, jax.core.Tracer):
        return _DEGREE_WHILE_TRACING
    needed = heat_kernel.sphere_series_degree(float(np.min(time)), dim)
    return next((degree for degree in _DEGREES if degree >= needed), _DEGREES[-1])


@partial(jax.jit, static_argnames=("dim",))
def hyperbolic(s: Array, time: Array, dim: int) -> Array:
    """Heat kernel of H^d at ``s = sinh(l/2)^2``."""
    dtype, (s, time) = s.dtype, _widest(s, time)
    if dim % 2 == 1:
        value = heat_kernel.hyperbolic_odd(jnp, s, time, dim, _autodiff.directional)
    else:
        end = jax.lax.stop_gradient(heat_kernel.hyperbolic_even_end(jnp, s, time))
        value = heat_kernel.hyperbolic_even(jnp, s, time, end, dim, _autodiff.directional)
    return value.astype(dtype)


def _widest(*values: Array) -> list[Array]:
    """All in the widest floating dtype, broadcast to one shape."""
    return jnp.broadcast_arrays(*(value.astype(jnp.result_type(float)) for value in values))
