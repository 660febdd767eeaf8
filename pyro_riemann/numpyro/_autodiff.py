"""Forward-mode differentiation over the few latent axes.

A decoder maps d latent coordinates (2 to 64) to D outputs (often 784), so Jacobians
are cheap column by column and dear row by row.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def directional(function: Callable[[Array], Array], z: Array, v: Array) -> tuple[Array, Array]:
    """Value of ``function`` at ``z`` and its derivative in the direction ``v``."""
    value, slope = jax.jvp(function, (z,), (jnp.broadcast_to(v, z.shape).astype(z.dtype),))
    return value, slope


def second_directional(function: Callable[[Array], Array], z: Array, v: Array) -> tuple[Array, Array, Array]:
    """Value, first and second derivative of ``function`` at ``z`` along ``v``."""
    (value, slope), (_, curvature) = jax.jvp(
        lambda point: directional(function, point, v), (z,), (jnp.broadcast_to(v, z.shape).astype(z.dtype),)
    )
    return value, slope, curvature


def jacobian(function: Callable[[Array], Array], z: Array, dim: int) -> tuple[Array, Array]:
    """Value ``(*batch, *out)`` and Jacobian ``(*batch, *out, d)`` of a batched function.

    ``function`` maps ``(*batch, d)`` to ``(*batch, *out)``, each batch element for itself.
    One vmapped ``jvp`` over the d axes, which evaluates the primal once.
    """

    def column(axis: Array) -> tuple[Array, Array]:
        return directional(function, z, axis)

    value, columns = jax.vmap(column, out_axes=(None, -1))(jnp.eye(dim, dtype=z.dtype))
    return value, columns
