"""Checks at the door: a wrong argument is named where it enters, not as a NaN later."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann._formulas import check_one_of as check_one_of
from pyro_riemann._formulas.calculus import Ambient

_MANY = 2**20  # numbers of which a mask, and what is computed for it, would be felt


def check_dtype(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if its dtype can carry geometry, float32 or wider; raise otherwise."""
    if not value.dtype.is_floating_point:
        raise TypeError(
            f"`{name}` must have a floating dtype, got {value.dtype}; call `.float()` or `.double()` first."
        )
    if value.dtype.itemsize < 4:
        raise TypeError(
            f"`{name}` is of {value.dtype}, too coarse for differences of points: compute geometry in float32, with "
            "`.float()` on points, metric and parameters, and convert the result."
        )
    return value


def check_tensor(name: str, value: Any) -> Tensor:
    """Raise unless ``value`` is a floating tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}.")
    return check_dtype(name, value)


def check_same(name: str, value: Tensor, like: Tensor) -> None:
    """Raise unless ``value`` has the dtype and device of the parameters."""
    if value.dtype != like.dtype:
        raise TypeError(f"`{name}` has dtype {value.dtype}, the other arguments have {like.dtype}; convert one.")
    if value.device != like.device:
        raise ValueError(f"`{name}` is on {value.device}, the other arguments are on {like.device}.")


def check_point(name: str, value: Tensor, dim: int, metric: Ambient | None = None) -> Tensor:
    """Return ``value`` if it is a floating tensor of shape ``(*batch, dim)``; raise otherwise, with ``metric``'s hint.

    Skipped while ``torch.jit`` traces, which turns shapes into tensors.
    """
    if torch.jit.is_tracing():
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor of shape (*batch, {dim}), got {type(value).__name__}.")
    check_dtype(name, value)
    if value.dim() == 0 or value.shape[-1] != dim:
        raise ValueError(
            f"`{name}` must have shape (*batch, {dim}) for a metric of dimension {dim}, got {tuple(value.shape)}."
            + ("" if metric is None else metric.ambient_hint(value.shape))
        )
    return value


def holds(mask: Tensor) -> bool:
    """Whether ``mask`` is true everywhere; true where it cannot be read (``torch.vmap``, a trace, a compiler)."""
    try:
        return torch.jit.is_tracing() or torch.compiler.is_compiling() or bool(mask.all())
    except RuntimeError:
        return True


def is_finite(value: Tensor) -> bool:
    """Whether ``value`` has no NaN and no infinity; true where it cannot be read."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    if value.numel() < _MANY or not value.is_floating_point():
        return holds(torch.isfinite(value))
    return holds(torch.isfinite(torch.stack(torch.aminmax(value))))  # which makes nothing as large as the value


def check_finite(name: str, value: Tensor) -> Tensor:
    """Raise if ``value`` has a NaN or an infinity (skipped while ``torch.jit`` traces)."""
    if not is_finite(value.detach()):
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"`{name}` has {bad} NaN or infinite entries out of {value.numel()}.")
    return value


def check_positive(name: str, value: Tensor) -> Tensor:
    """Raise unless every entry of ``value`` is finite and strictly positive."""
    if not holds(torch.isfinite(value) & (value > 0)):
        raise ValueError(f"`{name}` must be finite and strictly positive, got {value.detach().flatten()[:5].tolist()}.")
    return value
