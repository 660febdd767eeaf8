"""What a public routine does whatever mode it is called in: geometry in full precision, and no NaN taken or given.

Under ``torch.autocast`` products of matrices lose 16 bits of 24: distances and densities that are differences of large
numbers would be noise, and results of two dtypes meet where one is expected. Autocast is switched off inside.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import is_validation_enabled
from torch import Tensor

from pyro_riemann import _memory, _work
from pyro_riemann._checks import holds, is_finite
from pyro_riemann._formulas import memory
from pyro_riemann._members import ANSWERS, each_public
from pyro_riemann._warn import warn

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_DEVICES = ("cpu", "cuda")
_DTYPES = (torch.float32, torch.float64)


@contextmanager
def _autocast_off() -> Iterator[None]:
    """Autocast as it is where nobody asks for it, on every device."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def full_precision(function: Callable[P, R], widen: bool = False) -> Callable[P, R]:
    """The function with autocast switched off inside, which shows its progress when it takes long.

    Args:
        function: it.
        widen: give it points and vectors of one dtype, the widest of theirs, where the caller mixed them.
    """

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # autocast is then part of what is compiled; a thread's own state cannot be
            return function(*args, **kwargs)
        outer, task = _work.THREAD.task, None
        try:
            task = _work.begin(function, args[0] if args else None)
            if widen and task is not None and _are_mixed(*args, *kwargs.values()):
                return computed(*map(_widened, args), **{key: _widened(value) for key, value in kwargs.items()})
            if not any(map(torch.is_autocast_enabled, _DEVICES)):
                return function(*args, **kwargs)
            with _autocast_off():
                return function(*args, **kwargs)
        except torch.linalg.LinAlgError as error:
            if task is None:
                raise
            raise torch.linalg.LinAlgError(  # Pyro's NUTS takes "singular" for a divergence
                f"`{task.name()}` met a matrix that is singular to working precision ({error}): the metric is nearly "
                "singular there, or a value out of range. Use float64, a `jitter` or `regularization` of the metric, "
                "or points nearer to the middle of the chart."
            ) from error
        finally:
            _work.THREAD.task = outer
            _work.end(task)

    return computed


def _are_mixed(*values: object) -> bool:
    return len({value.dtype for value in values if isinstance(value, Tensor) and value.dtype in _DTYPES}) > 1


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in _DTYPES else value


def refuse_nan(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method of a point, which raises at a NaN if validation is on: not within other routines, whose work it is."""

    @functools.wraps(method)
    def checked(self: Any, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.compiler.is_compiling():
            _work.check_limit()
            called = not _work.inside() and is_validation_enabled() and isinstance(z, Tensor)
            if called and not holds(~torch.isnan(z)):
                raise ValueError(f"`z` has {int(torch.isnan(z).sum())} NaN entries out of {z.numel()}.")
        return method(self, z, *args, **kwargs)

    return checked


def refuse_no_number(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a metric, which raises rather than return a NaN or an infinity, if validation is on.

    As with :func:`refuse_nan`, not within other routines: a law's density may overflow there, and a sampler go on.
    """
    names = ", ".join(f"`{name}`" for name in list(inspect.signature(method).parameters)[1:])

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = method(self, *args, **kwargs)
        if torch.compiler.is_compiling() or _work.inside() or not is_validation_enabled():
            return answer
        for part in answer if isinstance(answer, tuple) else (answer,):
            if isinstance(part, Tensor) and not is_finite(part := part.detach()):  # nothing for a gradient
                bad = int((~torch.isfinite(part)).sum())
                raise ValueError(
                    f"{type(self).__name__}.{method.__name__} is NaN or infinite in {bad} of {part.numel()} entries at "
                    f"these {names}: they are not finite, or lie where {part.dtype} ends or the metric is singular. "
                    "Use points nearer to the middle of the chart, or float64."
                )
        return answer

    return checked


class ValidatedDistribution(TorchDistribution):
    """A distribution that checks its arguments as it was told to, or else as Pyro is, expanded by a plate or not.

    Torch's own default is no one's wish: the first ``torch.compile`` turns it off for the whole process.
    """

    @property
    def _validate_args(self) -> bool:
        own: bool | None = self.__dict__.get("_validate_args")
        return is_validation_enabled() if own is None else own

    @_validate_args.setter
    def _validate_args(self, value: bool | None) -> None:
        self.__dict__["_validate_args"] = value


def tell_of_nan(log_prob: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method of a law, which warns of a NaN if validation is on; a sampler may reject the point."""

    @functools.wraps(log_prob)
    def told(self: Any, value: Tensor) -> Tensor:
        answer = log_prob(self, value)
        if torch.compiler.is_compiling() or _work.inside() or not self._validate_args:
            return answer
        if not holds(~(nan := torch.isnan(answer.detach()))):
            warn(
                f"{type(self).__name__}.log_prob is NaN in {int(nan.sum())} of {answer.numel()} entries: "
                f"distances to this `value` are out of the range of {answer.dtype}. Use float64, or points nearer."
            )
        return answer

    return told


def full_precision_methods(cls: C) -> C:
    """The class with :func:`full_precision` around everything public that it writes, its constructor included."""
    each_public(cls, full_precision)
    return cls


def guarded_metric(cls: C) -> C:
    """The class of a metric: bounded memory, arguments of one dtype, :func:`refuse_nan`, :func:`refuse_no_number`."""
    for name in memory.ORDERS.keys() & vars(cls).keys():
        if inspect.isfunction(vars(cls)[name]):
            setattr(cls, name, _memory.bounded(vars(cls)[name]))

    def guarded(function: Callable[P, R]) -> Callable[P, R]:
        return full_precision(function, widen=function.__name__ != "__init__")

    each_public(cls, guarded)
    for name in ANSWERS & vars(cls).keys():
        setattr(cls, name, refuse_no_number(vars(cls)[name]))
    for name in {"metric", "logdet"} & vars(cls).keys():
        setattr(cls, name, refuse_nan(vars(cls)[name]))
    return cls


def guarded_law(cls: C) -> C:
    """The class of a law with both: full precision, and :func:`tell_of_nan`."""
    full_precision_methods(cls)
    for name in {"log_prob"} & vars(cls).keys():
        setattr(cls, name, tell_of_nan(vars(cls)[name]))
    return cls
