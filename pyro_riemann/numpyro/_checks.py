"""Checks at the door: a wrong argument is named where it enters, not as a NaN later.

Shapes and types are checked always, values only where they are known: under ``jit``, ``vmap`` and ``grad``
an array is a tracer, whose entries cannot be read.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.util import is_prng_key


class Ambient(Protocol):
    """A metric that may know where points of the wrong shape come from."""

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        """What to do with points of this shape; empty where that is not known."""
        ...


def check_array(name: str, value: Any) -> Array:
    """Return ``value`` as a JAX array if it is a floating array; raise otherwise."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"`{name}` must be a JAX or NumPy array, got {type(value).__name__}.")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"`{name}` must have a floating dtype, got {value.dtype}; use `.astype(float)`.")
    if value.dtype.itemsize < 4:
        raise TypeError(
            f"`{name}` is of {value.dtype}, too coarse for differences of points: compute geometry in float32, with "
            "`.astype(jnp.float32)` on points, metric and parameters, and convert the result."
        )
    return jnp.asarray(value)


def check_point(name: str, value: Any, dim: int, metric: Ambient | None = None) -> Array:
    """Return ``value`` as a JAX array if it is a floating array of shape ``(*batch, dim)``; raise otherwise.

    The error has the hint of ``metric``.
    """
    value = check_array(name, value)
    if value.ndim == 0 or value.shape[-1] != dim:
        raise ValueError(
            f"`{name}` must have shape (*batch, {dim}) for a metric of dimension {dim}, got {value.shape}."
            + ("" if metric is None else metric.ambient_hint(value.shape))
        )
    return value


def holds(mask: Any) -> bool:
    """Whether ``mask`` is true everywhere; true where it cannot be read (under a transformation of JAX)."""
    return isinstance(mask, jax.core.Tracer) or bool(np.asarray(mask).all())  # by NumPy: no program to compile


def is_traced(*trees: Any) -> bool:
    """Whether an array in ``trees`` cannot be read (under a transformation of JAX)."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def check_finite(name: str, value: Array) -> Array:
    """Raise if ``value`` is known to have a NaN or an infinity."""
    if is_traced(value):
        return value
    finite = np.isfinite(np.asarray(value))
    if not finite.all():
        raise ValueError(f"`{name}` has {int((~finite).sum())} NaN or infinite entries out of {value.size}.")
    return value


def check_positive(name: str, value: Array) -> Array:
    """Raise unless every known entry of ``value`` is finite and strictly positive."""
    if not is_traced(value) and not (np.isfinite(np.asarray(value)) & (np.asarray(value) > 0)).all():
        raise ValueError(f"`{name}` must be finite and strictly positive, got {np.ravel(value)[:5].tolist()}.")
    return value


def check_one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def check_key(key: Array) -> Array:
    """Raise unless ``key`` is one key of ``jax.random``."""
    if not is_prng_key(key):
        raise TypeError(f"`key` must be one key of jax.random, such as jax.random.key(0), got {type(key).__name__}.")
    return key
