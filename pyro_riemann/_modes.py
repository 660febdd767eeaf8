"""What a public routine does whatever mode it is called in: geometry in full precision, and no NaN taken for a point.

Under ``torch.autocast`` products of matrices lose 16 bits of 24: distances and densities that are differences of large
numbers would be noise, and results of two dtypes meet where one is expected. Autocast is switched off inside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_riemann import _work
from pyro_riemann._checks import holds

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_DEVICES = ("cpu", "cuda")


@contextmanager
def _autocast_off() -> Iterator[None]:
    """Autocast as it is where nobody asks for it, on every device."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast switched off inside, which shows its progress when it takes long."""

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # autocast is then part of what is compiled; a thread's own state cannot be
            return function(*args, **kwargs)
        task = _work.begin(function, args[0] if args else None)
        try:
            if not any(map(torch.is_autocast_enabled, _DEVICES)):
                return function(*args, **kwargs)
            with _autocast_off():
                return function(*args, **kwargs)
        finally:
            _work.end(task)

    return computed


def refuse_nan(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method of a point, which raises at a NaN if validation is on: not within other routines, whose work it is."""

    @functools.wraps(method)
    def checked(self: Any, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.compiler.is_compiling():
            _work.check_limit()
            called = not _work.inside() and Distribution._validate_args and isinstance(z, Tensor)
            if called and not holds(~torch.isnan(z)):
                raise ValueError(f"`z` has {int(torch.isnan(z).sum())} NaN entries out of {z.numel()}.")
        return method(self, z, *args, **kwargs)

    return checked


def full_precision_methods(cls: C) -> C:
    """The class with :func:`full_precision` around everything public that it writes, its constructor included."""
    _work.each_public(cls, full_precision)
    return cls


def guarded_metric(cls: C) -> C:
    """The class of a metric with both: full precision, and :func:`refuse_nan` at ``metric`` and ``logdet``."""
    full_precision_methods(cls)
    for name in {"metric", "logdet"} & vars(cls).keys():
        setattr(cls, name, refuse_nan(vars(cls)[name]))
    return cls
