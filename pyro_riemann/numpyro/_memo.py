"""Results of known arrays, computed once while a program is traced.

A model builds its distributions anew at every call; what is dear and constant, such as a normalising constant under
NUTS, must not be part of the compiled program as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax import Array

from pyro_riemann.numpyro.metrics import RiemannianMetric

Result = TypeVar("Result")


def is_known(*trees: Any) -> bool:
    """Whether no array in ``trees`` is being traced (by ``jit``, ``vmap`` or ``grad``)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def without_gradient(*trees: Any) -> Any:
    """The trees; copies of them without gradient where they are traced, since results are kept by the object."""
    return trees if is_known(trees) else jax.lax.stop_gradient(trees)


def remember(compute: Callable[..., Result], *arguments: Any) -> Result:
    """``compute(*arguments)``; a constant of the surrounding program where no argument is traced."""
    if not is_known(arguments):
        return compute(*arguments)
    with jax.ensure_compile_time_eval():
        return compute(*arguments)


_kept: WeakKeyDictionary[RiemannianMetric, list[tuple[Any, Any]]] = WeakKeyDictionary()
_MOST_KEPT = 32  # results of one metric


def keep(
    build: Callable[..., Result],
    settings: tuple[Any, ...],
    metric: RiemannianMetric,
    *box: Array | np.ndarray,
    most: int = _MOST_KEPT,
) -> Result:
    """``build(metric, low, high, *settings)``, once for a metric object whose arrays stay the same ones, and a box.

    A model builds its distribution anew on every call, and a set-up is costly. Nothing is kept of arrays that are being
    traced, and of one ``build`` no more than ``most``.
    """
    leaves, structure = jax.tree.flatten(metric)
    if not is_known(leaves, box):
        return build(metric, *box, *settings)
    key = (build, structure, settings, *((corner.dtype.name, np.asarray(corner).tobytes()) for corner in box))
    known = _kept.setdefault(metric, [])
    for (there, its_key), result in known:
        same = len(there) == len(leaves) and all(a is b for a, b in zip(there, leaves, strict=True))
        if same and its_key == key:
            kept: Result = result
            return kept
    with jax.ensure_compile_time_eval():
        fresh = build(metric, *box, *settings)
    known.append(((leaves, key), fresh))
    stale = {id(entry) for entry in [entry for entry in known if entry[0][1][0] is build][:-most]}
    known[:] = [entry for entry in known[-_MOST_KEPT:] if id(entry) not in stale]
    return fresh
