"""Exact heat kernels of arrays."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import exact_kernels, heat_kernel
from pyro_riemann._formulas.calculus import Calculus
from pyro_riemann.numpyro import _calculus

Formulas = exact_kernels.ExactKernels


class ExactKernels(Formulas):
    """In the widest dtype that JAX is set to, as programs."""

    face: ClassVar[Calculus] = _calculus

    circle = jax.jit(Formulas.circle, static_argnums=0)
    _hyperbolic = jax.jit(Formulas._hyperbolic, static_argnums=(0, 3))

    @partial(jax.jit, static_argnums=(0, 4))
    def _sphere(self, s: Array, c: Array, time: Array, dim: int) -> Array:
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
