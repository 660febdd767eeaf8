"""A callable of any kind as arrays, which JAX traces, and a hashable rest, which it compiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from pyro_riemann.numpyro._pytree import Pytree


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
