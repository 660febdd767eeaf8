"""Metrics and callables as pytrees: arrays are data, everything else is part of the program."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import numpy as np


class Pytree:
    """A class whose instances are JAX pytrees, subclasses included.

    A subclass lists the attributes that hold arrays, or other pytrees, in ``pytree_data_fields`` (a base's
    fields are kept); these are traced, batched and differentiated. All other attributes are static: hashable, and
    a change of one compiles anew. This is the convention of ``numpyro.distributions.Distribution``.
    """

    pytree_data_fields: ClassVar[tuple[str, ...]] = ()
    pytree_fixed_fields: ClassVar[tuple[str, ...]] = ()  # of these, what training leaves as it is, see `fixed`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, _unflattener(cls), _flatten)


P = TypeVar("P")


def replaced(value: P, **fields: Any) -> P:
    """A copy with other values of some attributes."""
    twin = copy.copy(value)
    vars(twin).update(fields)
    return twin


def fixed(value: P) -> P:
    """The same values, but no gradient reaches what training leaves as it is, here and in all parts."""
    if isinstance(value, list | tuple):
        return type(value)(map(fixed, value))
    if not isinstance(value, Pytree):
        return value
    parts = {name: getattr(value, name) for name in _data_names(value)}
    kept = type(value).pytree_fixed_fields
    return replaced(
        value, **{name: jax.lax.stop_gradient(part) if name in kept else fixed(part) for name, part in parts.items()}
    )


def _data_names(value: Pytree) -> list[str]:
    listed = {name for base in type(value).__mro__ for name in vars(base).get("pytree_data_fields", ())}
    return sorted(listed & vars(value).keys())


def _static(value: Pytree, data: list[str]) -> tuple[tuple[str, Any], ...]:
    items = tuple(sorted((name, item) for name, item in vars(value).items() if name not in data))
    for name, item in items:
        if isinstance(item, jax.Array | np.ndarray):
            raise TypeError(
                f"`{type(value).__name__}.{name}` holds an array: list it in the class's `pytree_data_fields`, so that "
                "JAX can trace it."
            )
    return items


def _flatten(value: Pytree) -> tuple[list[Any], Any]:
    data = _data_names(value)
    return [getattr(value, name) for name in data], (tuple(data), _static(value, data))


def _flatten_with_keys(value: Pytree) -> tuple[list[tuple[Any, Any]], Any]:
    children, auxiliary = _flatten(value)
    return [
        (jax.tree_util.GetAttrKey(name), child) for name, child in zip(auxiliary[0], children, strict=True)
    ], auxiliary


def _unflattener(cls: type[Pytree]) -> Any:
    def unflatten(auxiliary: Any, children: Any) -> Any:
        names, static = auxiliary
        value = object.__new__(cls)
        vars(value).update(zip(names, children, strict=True))
        vars(value).update(static)
        return value

    return unflatten


class Structure(NamedTuple):
    """What is left of a callable without its arrays: compared by value, so that equal ones share a program."""

    tree: Any
    is_array: tuple[bool, ...]
    static: tuple[Any, ...]
    name: str


class BoundModule(Pytree):
    """A ``flax.linen`` module with its variables: these are hidden in a bound module, and no pytree."""

    pytree_data_fields = ("variables",)

    def __init__(self, module: Any, variables: Any) -> None:
        self.module, self.variables = module, variables

    def __call__(self, z: Any) -> Any:
        return self.module.apply(self.variables, z)


def split(name: str, function: Any) -> tuple[tuple[Any, ...], Structure]:
    """Arrays of ``function`` and everything else.

    Raises:
        TypeError: if ``function`` is not callable, or a part that is no array cannot be hashed.
    """
    if not callable(function):
        raise TypeError(f"`{name}` must be callable, got {type(function).__name__}.")
    title = getattr(function, "__name__", type(function).__name__)
    if callable(getattr(function, "unbind", None)) and callable(getattr(function, "apply", None)):
        function = BoundModule(*function.unbind())
    leaves, tree = jax.tree.flatten(function)
    is_array = tuple(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves)
    static = tuple(leaf for leaf, traced in zip(leaves, is_array, strict=True) if not traced)
    structure = Structure(tree, is_array, static, title)
    try:
        hash(structure)
    except TypeError as error:
        raise TypeError(
            f"`{name}` has parts that are neither arrays nor hashable ({error}). Give a plain function of z, or "
            "`jax.tree_util.Partial(function, parameters)` with the arrays as its arguments."
        ) from error
    return tuple(leaf for leaf, traced in zip(leaves, is_array, strict=True) if traced), structure


def join(arrays: tuple[Any, ...], structure: Structure) -> Any:
    """The callable that :func:`split` took apart, with these arrays."""
    traced, static = iter(arrays), iter(structure.static)
    return jax.tree.unflatten(structure.tree, [next(traced if take else static) for take in structure.is_array])
