"""Arithmetic that torch and JAX share, written once.

Functions take the array namespace ``xp``, ``torch`` or ``jax.numpy``, as first argument and use only names that both
have with the same meaning; nothing here imports either. Shapes are those of the classes that call: points are
``(*batch, d)``. Checks, random numbers, automatic differentiation and control flow stay with the classes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Namespace: TypeAlias = Any
Array: TypeAlias = Any


def check_one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value


def table(xp: Namespace, values: Any, like: Array) -> Array:
    """Constants (a list or a NumPy array) as an array of the dtype of ``like``, on its device."""
    return xp.asarray(values, dtype=like.dtype, device=_device(like))


def places(xp: Namespace, values: Any, like: Array) -> Array:
    """Whole numbers (a NumPy array) to index ``like`` with, on its device."""
    return xp.asarray(values, device=_device(like))


def eye(xp: Namespace, size: int, like: Array) -> Array:
    """The identity matrix of the dtype of ``like``, on its device."""
    return xp.eye(size, dtype=like.dtype, device=_device(like))


def _device(like: Array) -> Any:
    """The device of ``like`` if it is a tensor of torch, else None.

    Constants of JAX that were given no device go where other arguments are. With that of ``like`` they would stay
    there, and could not meet arguments on others; of an array over several devices it says how that is split.
    """
    return None if getattr(like, "requires_grad", None) is None else like.device
