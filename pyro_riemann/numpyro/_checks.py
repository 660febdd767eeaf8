"""Checks at the door: a wrong argument is named where it enters, not as a NaN later.

Shapes and types are checked always, values only where they are known: under ``jit``, ``vmap`` and ``grad``
an array is a tracer, whose entries cannot be read.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.util import is_prng_key

from pyro_riemann import _work
from pyro_riemann._formulas import check_one_of as check_one_of
from pyro_riemann._formulas.calculus import Ambient
from pyro_riemann._members import ANSWERS, each_public
from pyro_riemann._warn import warn

Given = TypeVar("Given", Array, np.ndarray, Array | np.ndarray)


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


def check_finite(name: str, value: Given) -> Given:
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


def check_key(key: Array) -> Array:
    """Raise unless ``key`` is one key of ``jax.random``."""
    if not is_prng_key(key):
        raise TypeError(f"`key` must be one key of jax.random, such as jax.random.key(0), got {type(key).__name__}.")
    return key


def refuse_no_number(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a metric, which raises rather than return a NaN or an infinity that can be read.

    Not within other routines: a law's density may overflow there, and a sampler go on.
    """
    names = ", ".join(f"`{name}`" for name in list(inspect.signature(method).parameters)[1:])

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = method(self, *args, **kwargs)
        if _work.inside() or is_traced(answer):
            return answer
        for part in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(part, Array) and not (finite := np.isfinite(np.asarray(part))).all():
                raise ValueError(
                    f"{type(self).__name__}.{method.__name__} is NaN or infinite in {int((~finite).sum())} of "
                    f"{part.size} entries at these {names}: they are not finite, or lie where {part.dtype} ends or the "
                    "metric is singular. Use points nearer to the middle of the chart, or float64."
                )
        return answer

    return checked


def in_one_dtype(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a metric in the dtype of its points and vectors, the wider one where the caller mixed two.

    JAX's own promotion would let arrays of the metric decide: one in float64 would make some results of points in
    float32 wider, and be refused as the state of a loop in others.
    """

    @functools.wraps(method)
    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [value.dtype for value in (*args, *kwargs.values()) if _is_real(value)]
        if not given:
            return method(self, *args, **kwargs)
        fit = functools.partial(_converted, dtype=jnp.result_type(*given))
        answer = method(self, *map(fit, args), **{name: fit(value) for name, value in kwargs.items()})
        return tuple(map(fit, answer)) if type(answer) is tuple else fit(answer)

    return computed


def _is_real(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic) and value.dtype in (np.float32, np.float64)


def _converted(value: Any, dtype: Any) -> Any:
    return value.astype(dtype) if _is_real(value) and value.dtype != dtype else value


def tell_of_nan(log_prob: Callable[..., Array]) -> Callable[..., Array]:
    """The method of a law, which warns of a NaN where it can be read; a sampler may reject the point."""

    @functools.wraps(log_prob)
    def told(self: Any, value: Array, *args: Any, **kwargs: Any) -> Array:
        answer = log_prob(self, value, *args, **kwargs)
        if not _work.inside() and not is_traced(answer) and (nan := np.isnan(np.asarray(answer))).any():
            warn(
                f"{type(self).__name__}.log_prob is NaN in {int(nan.sum())} of {answer.size} entries: distances to "
                f"this `value` are out of the range of {answer.dtype}. Use float64, or points nearer."
            )
        return answer

    return told


def guarded_metric(cls: type) -> None:
    """Announce what a metric does when it takes long; :func:`in_one_dtype`, and :func:`refuse_no_number`."""
    each_public(cls, _work.announced)
    for name in ANSWERS & vars(cls).keys():
        setattr(cls, name, refuse_no_number(in_one_dtype(vars(cls)[name])))


def guarded_law(cls: type) -> None:
    """Announce what the class of a law does when it takes long, and guard it by :func:`tell_of_nan`."""
    each_public(cls, _work.announced)
    for name in {"log_prob"} & vars(cls).keys():
        setattr(cls, name, tell_of_nan(vars(cls)[name]))
