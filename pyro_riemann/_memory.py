"""Batches in pieces: what is held at a time has a bound, however many points there are.

A metric tells how much it holds at one point (``footprint``) and how much may be held (``max_memory``); every routine
of many points takes as many at a time as these allow. Where a gradient is asked for, a piece is computed again on the
way back (:func:`torch.utils.checkpoint.checkpoint`), so that only its points are kept until then.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_riemann._formulas import memory

R = TypeVar("R")


class Bounded(Protocol):
    """What a metric tells of its memory."""

    dim: int
    max_memory: int

    def footprint(self, order: int) -> int:
        """Numbers held at a point while G, or its derivatives of this order, are computed."""
        ...


def room(metric: Bounded, like: Tensor, order: int) -> int:
    """How many points may be in work at a time.

    Args:
        metric: whose memory it is.
        like: of the dtype of the points.
        order: of the derivatives of G.
    """
    return memory.room(metric.max_memory, metric.footprint(order), like.element_size())


def is_recorded() -> bool:
    """Whether a program is being made, which takes batches as they come."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def by_points(metric: Bounded, function: Callable[..., R], arrays: tuple[Tensor, ...], order: int) -> R:
    """``function(*arrays)``, as many points at a time as memory allows.

    Args:
        metric: tells how many.
        function: maps arrays ``(*batch, n_i)``, whose batches broadcast, to a tensor, or a tuple of tensors, with one
            entry for each point, or to None.
        arrays: those.
        order: of the derivatives of G that it takes.
    """
    if is_recorded() or not arrays or not all(isinstance(array, Tensor) and array.dim() for array in arrays):
        return function(*arrays)
    shape, *others = (array.shape[:-1] for array in arrays)
    try:
        if any(other != shape for other in others):  # torch takes a fifth of a millisecond to broadcast shapes
            shape = torch.broadcast_shapes(shape, *others)
    except RuntimeError:  # says so
        return function(*arrays)
    count = math.prod(shape)
    if order == 0 and arrays[0].numel() == arrays[0].shape[-1]:  # G at one point, whatever the vectors there
        return function(*arrays)
    if count <= 1 or count <= (rows := room(metric, arrays[0], order)):
        return function(*arrays)
    if torch.is_grad_enabled() and any(array.requires_grad for array in arrays):
        rows = max(1, rows // 2)  # on the way back there are slopes of all that is held
    flat = [array.expand(*shape, array.shape[-1]).reshape(-1, array.shape[-1]) for array in arrays]
    found = in_pieces(lambda piece: function(*(array[piece] for array in flat)), count, rows)
    if found is None:
        return cast(R, None)
    if isinstance(found, Tensor):
        return cast(R, found.reshape(*shape, *found.shape[1:]))
    return cast(R, tuple(part.reshape(*shape, *part.shape[1:]) for part in found))


def in_pieces(function: Callable[[slice], Any], count: int, rows: int) -> Any:
    """Results of ``function`` for ``count`` points, asked for ``rows`` at a time; see :func:`by_points`."""
    if count <= rows or is_recorded():
        return function(slice(None))
    pieces = slices(count, rows)
    if torch.is_grad_enabled() or is_transformed():
        parts = [_released(checkpointed(function, piece)) for piece in pieces]
        if parts[0] is None or isinstance(parts[0], Tensor):
            return None if parts[0] is None else torch.cat(parts)
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return into_place(function, pieces)


def into_place(function: Callable[[slice], Any], pieces: Sequence[slice]) -> Any:
    """Results of ``function``, tensors of one row for each point, a tuple of such, or None, in one.

    Each is copied as it comes: a part may be a view of something larger, and small parts that stay between large tables
    that come and go leave holes in memory, as large as all the tables together.
    """
    whole: list[Tensor] = []
    for piece in pieces:
        part = function(piece)
        if part is None:
            return None
        each = (part,) if isinstance(part, Tensor) else part
        if not whole:
            whole = [value.new_empty(pieces[-1].stop, *value.shape[1:]) for value in each]
        for target, value in zip(whole, each, strict=True):
            target[piece] = value
    return whole[0] if isinstance(part, Tensor) else tuple(whole)


def _released(part: R) -> R:
    """The part of a recorded function, for which memory goes back to the system now and once its slope was taken.

    The graph of a part outlives its tables, and lies between them: what these leave free fits nothing that comes later.
    """
    _release()
    values = part if isinstance(part, tuple) else (part,)
    recorded = [value for value in values if isinstance(value, Tensor) and value.requires_grad]
    if recorded and not is_transformed():
        recorded[0].register_hook(_release)
    return part


def _release(*_: Any) -> None:
    """Give free memory back to the system, where the C library can (glibc)."""
    if (trim := _trim()) is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim if sys.platform == "linux" else None
    except AttributeError:  # another C library, such as musl
        return None


def slices(count: int, rows: int) -> list[slice]:
    """Of ``count`` points, ``rows`` at a time."""
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


def is_transformed() -> bool:
    """Whether a transform of torch is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def checkpointed(function: Callable[..., R], *arguments: Any) -> R:
    """``function(*arguments)``, of whose graph only the arguments are kept, where torch can.

    Not within a transform of torch, nor where the function takes a reverse pass by one.
    """
    if not is_transformed():
        try:
            found: R = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
            return found
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
    return function(*arguments)


def bounded(method: Callable[..., R]) -> Callable[..., R]:
    """The method of a metric, which takes as many points at a time as memory allows."""
    order = memory.ORDERS[method.__name__]
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]

    @functools.wraps(method)
    def taken(self: Any, *points: Tensor, **named: Tensor) -> R:
        if is_recorded():
            return method(self, *points, **named)
        if named:
            points = (*points, *(named.pop(name) for name in names[len(points) :] if name in named))
        return by_points(self, functools.partial(method, self, **named), points, order)

    return taken
