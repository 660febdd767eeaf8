"""Results of known arrays, computed once while a program is traced.

A model builds its distributions anew at every call; what is dear and constant, such as a normalising constant under
NUTS, must not be part of the compiled program as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


def is_known(*trees: Any) -> bool:
    """Whether no array in ``trees`` is being traced (by ``jit``, ``vmap`` or ``grad``)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def remember(compute: Callable[..., Result], *arguments: Any) -> Result:
    """``compute(*arguments)``; a constant of the surrounding program where no argument is traced."""
    if not is_known(arguments):
        return compute(*arguments)
    with jax.ensure_compile_time_eval():
        return compute(*arguments)
