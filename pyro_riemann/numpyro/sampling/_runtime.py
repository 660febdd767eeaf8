"""JAX at work for the samplers that both array libraries share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from pyro_riemann._formulas import Namespace
from pyro_riemann._formulas.runtime import State
from pyro_riemann.numpyro._checks import check_array, check_key, holds
from pyro_riemann.numpyro.metrics._mahalanobis import exact_products, squared_distances


class JaxRuntime:
    """Keys are those of ``jax.random``; loops are part of the compiled program."""

    xp: Namespace = jnp

    def fold(self, key: Array, number: Any) -> Array:
        """A key of its own."""
        return jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))

    def uniform(self, key: Array, shape: tuple[int, ...], like: Array) -> Array:
        """Of the dtype of ``like``; one after another, as rows of a few numbers take a second to compile."""
        return jax.random.uniform(key, (math.prod(shape),), like.dtype).reshape(shape)

    def kick(self, key: Array, like: Array) -> tuple[Array, Array]:
        """From one call of the generator: every call is compiled."""
        (count, dim), dtype = like.shape, like.dtype
        luck = self.uniform(key, (count, dim + 2), like)
        centred = jnp.maximum(2 * luck[:, :dim] - 1, jnp.nextafter(jnp.array(-1, dtype), jnp.array(0, dtype)))
        return 2**0.5 * jax.lax.erf_inv(centred), luck[:, dim:]

    def ndtri(self, uniform: Array) -> Array:
        """JAX's own."""
        return ndtri(uniform)

    def logsumexp(self, terms: Array, axis: int) -> Array:
        """JAX's own."""
        return jax.nn.logsumexp(terms, axis=axis)

    @exact_products
    def squared_distances(self, z: Array, loc: Array, precision: Array) -> Array:
        """With all digits also in float32."""
        centre = loc.mean(0)
        return squared_distances(z - centre, loc - centre, precision)

    def repeat(self, count: Any, step: Callable[[Any, State], State], state: State) -> State:
        """One step in one place of the program."""
        return jax.lax.fori_loop(0, count, step, state)

    def loop(self, unfinished: Callable[[State], Any], step: Callable[[State], State], state: State) -> State:
        """One step in one place of the program."""
        return jax.lax.while_loop(unfinished, step, state)

    def in_pieces(self, function: Callable[[Array], Any], rows: int, points: Array) -> Any:
        """Pieces of one size, the last one filled up."""
        count = len(points)
        if count <= rows:
            return function(points)
        pieces = -(-count // rows)
        filling = jnp.broadcast_to(points[:1], (pieces * rows - count, *points.shape[1:]))
        split = jnp.concatenate([points, filling]).reshape(pieces, rows, *points.shape[1:])
        value = jax.lax.map(function, split)
        return jax.tree.map(lambda out: out.reshape(-1, *out.shape[2:])[:count], value)

    def slopes(self, log_density: Callable[[Array], Array]) -> Callable[[Array], tuple[Array, Array]]:
        """By reverse mode."""

        def slopes(z: Array) -> tuple[Array, Array]:
            value, pull = jax.vjp(log_density, z)
            return value, pull(jnp.ones_like(value))[0]

        return slopes

    def check_key(self, key: Array) -> Array:
        """One key of ``jax.random``."""
        return check_key(key)

    def check_like(self, name: str, value: Array, like: Array) -> Array:
        """A floating array of the dtype of ``like``."""
        array = check_array(name, value)
        if array.dtype != jnp.asarray(like).dtype:
            raise TypeError(f"`{name}` has dtype {array.dtype}, the other arguments have {like.dtype}; convert one.")
        return array

    def holds(self, mask: Array) -> bool:
        """Where it can be read."""
        return holds(mask)


RUNTIME = JaxRuntime()
