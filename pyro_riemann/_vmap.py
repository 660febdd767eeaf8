"""``torch.vmap`` over routines that decide by their data how long to work, which torch cannot batch by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch._functorch.autograd_function import unwrap_batched, wrap_batched  # no public name: only by custom backwards
from torch._functorch.pyfunctorch import TransformType, retrieve_current_functorch_interpreter

P = ParamSpec("P")
R = TypeVar("R")


def over_batches(function: Callable[P, R]) -> Callable[P, R]:
    """The function of points ``(*batch, d)`` under ``vmap``: the axis that is mapped over joins the batch, in front.

    The points broadcast, and so do the results: tensors, or tuples of them, whose batch axes come first. Derivatives
    pass; ``vmap`` of a derivative of the function is beyond it.
    """

    @functools.wraps(function)
    def mapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or not any(map(is_mapped, args)):
            return function(*args, **kwargs)
        interpreter = retrieve_current_functorch_interpreter()
        if interpreter.key() != TransformType.Vmap:
            return function(*args, **kwargs)
        level = cast(Any, interpreter).level()
        inner, axes = unwrap_batched(args, level)
        pairs = list(zip(inner, axes, strict=True))
        rank = max(x.dim() - (axis is not None) for x, axis in pairs if isinstance(x, Tensor))
        with interpreter.lower():
            result = mapped(*(_in_front(x, axis, rank) for x, axis in pairs), **kwargs)
        return cast(R, wrap_batched(cast(Any, result), 0, level))

    return mapped


def is_mapped(value: object) -> bool:
    """Whether ``vmap`` maps over a tensor, so that its entries cannot be read."""
    return isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value)


def _in_front(value: Any, axis: int | None, rank: int) -> Any:
    """The tensor with its mapped axis in front of ``rank`` others."""
    if axis is None:
        return value
    front: Tensor = value.movedim(axis, 0)
    return front.reshape(front.shape[0], *(1,) * (rank + 1 - front.dim()), *front.shape[1:])


@contextmanager
def outside_vmap(*tensors: Tensor) -> Iterator[None]:
    """What is computed of tensors that ``vmap`` does not map is computed once, with random numbers as outside."""
    interpreter = _interpreter()
    wrapped = any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
    if interpreter is None or wrapped or interpreter.key() != TransformType.Vmap:
        yield
    else:
        with interpreter.lower():
            yield


def _interpreter() -> Any:
    """The innermost transform of ``torch.func`` that is at work, if any."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is None:
        return None
    return retrieve_current_functorch_interpreter()
