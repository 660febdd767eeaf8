"""Batches in pieces: what is held at a time has a bound, however many points there are.

A metric tells how much it holds at one point (``footprint``) and how much may be held (``max_memory``); every routine
of many points takes as many at a time as these allow. Where a gradient is asked for, a piece is computed again on the
way back (:func:`jax.checkpoint`), so that only its points are kept until then.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import memory
from pyro_riemann.numpyro._checks import holds

C = TypeVar("C", bound=type)
R = TypeVar("R")


class Bounded(Protocol):
    """What a metric tells of its memory."""

    dim: int
    max_memory: int

    def footprint(self, order: int) -> int:
        """Numbers held at a point while G, or its derivatives of this order, are computed."""
        ...


def room(metric: Bounded, like: Array, order: int) -> int:
    """How many points, of the dtype of ``like``, may be in work at a time while G's derivatives are computed."""
    return memory.room(metric.max_memory, metric.footprint(order), jnp.result_type(like).itemsize)


def by_points(metric: Bounded, function: Callable[..., R], arrays: tuple[Array, ...], order: int) -> R:
    """``function(*arrays)``, as many points at a time as memory allows.

    Args:
        metric: tells how many.
        function: maps arrays ``(*batch, n_i)``, whose batches broadcast, to arrays with one entry for each point.
        arrays: those.
        order: of the derivatives of G that it takes.
    """
    shape = _batch(arrays)
    if (
        order == 0 and shape is not None and arrays[0].size == arrays[0].shape[-1]
    ):  # G at one point, however many vectors
        return function(*arrays)
    if shape is None or math.prod(shape) <= (rows := room(metric, arrays[0], order)):
        return function(*arrays)
    flat = [jnp.broadcast_to(part, (*shape, part.shape[-1])).reshape(-1, part.shape[-1]) for part in arrays]
    found = in_pieces(lambda index: function(*(part[index] for part in flat)), len(flat[0]), rows)
    whole: R = jax.tree.map(lambda value: value.reshape(*shape, *value.shape[1:]), found)
    return whole


def in_pieces(function: Callable[[Array], R], count: int, rows: int) -> R:
    """Results of ``function`` of indices for ``count`` points, asked for ``rows`` at a time; see :func:`by_points`."""
    if count <= rows:
        return function(jnp.arange(count))
    pieces = -(-count // rows)
    rows = -(-count // pieces)
    index = jnp.minimum(jnp.arange(pieces * rows), count - 1).reshape(pieces, rows)
    found = jax.lax.map(jax.checkpoint(function), index)
    whole: R = jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], found)
    return whole


def bound_memory(cls: C) -> C:
    """The class of a metric, whose methods of points take as many at a time as memory allows."""
    for name in memory.ORDERS.keys() & vars(cls).keys():
        if inspect.isfunction(vars(cls)[name]):
            setattr(cls, name, _bounded(vars(cls)[name]))
    return cls


def _bounded(method: Callable[..., Any]) -> Callable[..., Any]:
    order = memory.ORDERS[method.__name__]
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]

    @functools.wraps(method)
    def taken(self: Any, *points: Array, **named: Array) -> Any:
        given = (*points, *(named[name] for name in names[len(points) :] if name in named))
        shape = _batch(given) if len(given) == len(names) else None
        if shape is None or math.prod(shape) <= 1 or math.prod(shape) <= room(self, given[0], order):
            return method(self, *points, **named)
        found = _compiled(self, method, given, order)
        for part in jax.tree.leaves(found):  # what was refused within a program is refused here
            known = jnp.isfinite(part).reshape(*shape, -1).all(-1)
            if not holds(known):
                row = tuple(int(at[0]) for at in jnp.nonzero(~known))
                method(self, *(jnp.broadcast_to(part, (*shape, part.shape[-1]))[row] for part in given))
        return found

    return taken


@functools.partial(jax.jit, static_argnums=(1, 3))
def _compiled(metric: Bounded, method: Callable[..., Any], points: tuple[Array, ...], order: int) -> Any:
    return by_points(metric, functools.partial(method, metric), points, order)


def _batch(arrays: tuple[Array, ...]) -> tuple[int, ...] | None:
    """The batch shape of arrays; None for what are none."""
    if not arrays or not all(isinstance(part, jax.Array) and part.ndim for part in arrays):
        return None
    try:
        return jnp.broadcast_shapes(*(part.shape[:-1] for part in arrays))
    except ValueError:
        return None
