"""A device named ``pretend`` that computes on the processor and refuses what an accelerator refuses.

Its tensors wrap tensors of the processor, at torch's dispatcher (a backend written in Python, torch 2.9 and later):
below autograd, forward mode and ``vmap``, which therefore see an ordinary device. Refused are operations between its
tensors and those of the processor (other than numbers, copies and indices), generators of the other device, and
``numpy()``. What it cannot see: kernels that a real device lacks, computes otherwise or in another order; dtypes that
it does not have; memory, streams and speed; several devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch

NAME = "pretend"
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class PretendedTensor(Tensor):
    """A tensor of the pretended device; ``host`` is its content."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> PretendedTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device(NAME, 0),
            storage_size=host.untyped_storage().nbytes(),
        )
        made.host = host
        return made  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return compute(op, args, kwargs or {})

    def tolist(self) -> Any:  # type: ignore[override]
        """Numbers, as of any device."""
        return self.host.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> Any:  # type: ignore[override]
        return f"{NAME}({self.host})"


Generator = torch.Generator


class PretendedGenerator(Generator):
    """A generator for the pretended device."""


def compute(op: Any, args: Any, kwargs: Any) -> Any:
    """The operation on the processor; with tensors of one device."""
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type != NAME
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    if not leaves:
        check_devices(op, given)
    if op is aten._efficientzerotensor.default:  # without memory: forward mode's own kind of zero
        op = aten.zeros.default
    if torch.Tag.inplace_view in op.tags:  # changes the shape of the wrapper too
        with no_dispatch():
            op(*args, **kwargs)
    known = {id(value.host): value for value in given if isinstance(value, PretendedTensor)}
    result = op(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if any(value.shape != value.host.shape for value in known.values()):
        raise NotImplementedError(f"{op} resizes a tensor in place")
    return result if leaves else tree_map(lambda value: known[id(value)] if id(value) in known else wrap(value), result)


def tree_leaves(value: Any) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold: torch's own function takes longer than the operation."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tree_leaves(part)
    else:
        yield value


def tree_map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same with ``function`` of every leaf."""
    if isinstance(value, dict):
        return {key: tree_map(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([tree_map(function, part) for part in value])
    return function(value)


def wrap(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, Tensor) and not isinstance(value, PretendedTensor) else value


def unwrap(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value.host if isinstance(value, PretendedTensor) else value


def check_devices(op: Any, given: Sequence[Tensor]) -> None:
    """Raise on tensors of the processor, as CUDA does: but for numbers, copies and indices."""
    strangers = [value for value in given if not isinstance(value, PretendedTensor)]
    if op in INDEXING:
        strangers = [value for value in strangers if value.dtype not in (torch.int64, torch.bool)]
    if op not in COPIES and any(value.dim() > 0 for value in strangers):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {op} got some of cpu and of {NAME}")


class Factories(TorchFunctionMode):
    """Makes tensors on the pretended device whole, before torch takes that apart; refuses generators of another."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = list(tree_leaves((args, kwargs)))
        target = kwargs.get("device")
        asked = target is not None and torch.device(target).type == NAME
        ours = asked or any(isinstance(value, Tensor) and value.device.type == NAME for value in given)
        if any(isinstance(value, Generator) and isinstance(value, PretendedGenerator) != ours for value in given):
            raise RuntimeError(f"{func} got a generator of another device")
        if ours and func is Tensor.__getitem__ and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1], device="cpu"))
        if ours and func is Tensor.new_tensor:
            like, func, args = args[0], torch.tensor, args[1:]
            kwargs = {"dtype": like.dtype, **kwargs}
        elif not asked or any(isinstance(value, Tensor) for value in given):
            return func(*args, **kwargs)
        gradient = bool(kwargs.pop("requires_grad", False))
        with temporarily_clear_interpreter_stack():  # a constant, also within `vmap`
            made = wrap(func(*args, **{**kwargs, "device": "cpu"}))
        return made.requires_grad_() if gradient else made


class IsGenerator(type):
    """Of a class whose instances are torch's generators."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Generator)


class AnyGenerator(metaclass=IsGenerator):
    """``torch.Generator``, for every device."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return PretendedGenerator() if torch.device(device).type == NAME else Generator(device)


class Backend:
    """What torch asks of the module of a device."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])  # asked for by checkpoints, on any device
    manual_seed_all = staticmethod(lambda seed: None)  # its random numbers are those of the processor
    get_rng_state = staticmethod(lambda device=0: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=0: torch.set_rng_state(state))


@cache
def register() -> torch.library.Library:
    """Tell torch of the device, once for the process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: compute(op, args, kwargs), "PrivateUse1")
    return library


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The device, while the context lasts."""
    register()
    # backward in this thread: that of a device would need a real one
    with torch.autograd.set_multithreading_enabled(False), Factories(), mock.patch("torch.Generator", AnyGenerator):
        yield torch.device(NAME, 0)
