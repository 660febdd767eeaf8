"""Forward-mode differentiation over the few latent axes.

A decoder maps d latent coordinates (2 to 64) to D outputs (often 784), so Jacobians
are cheap column by column and dear row by row. Everything here is built on
``torch.func.jvp``; results stay differentiable by ordinary reverse mode.

A single point gets a batch axis for the time of the call: in forward mode torch turns a tangent with
no axes into float64 when it is multiplied by a Python number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor
from torch.func import jvp, vmap


@lru_cache(maxsize=1)
def _load_once() -> None:
    """Have torch compile its forward-mode rules, once, without the warning that they go through ``torch.jit``."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=category)
        number = torch.zeros(1, device="cpu")
        jvp(torch.clone, (number,), (number,))


def _load() -> None:
    """The same, but for a compiler, which has rules of its own."""
    if not torch.compiler.is_compiling():
        _load_once()


def directional(function: Callable[[Tensor], Tensor], z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Value of ``function`` at ``z`` and its derivative in the direction ``v``.

    Forward mode rejects tensors with overlapping memory (``expand``), so both are cloned.
    """
    _load()
    v = v.expand_as(z)
    if z.dim() == 1:
        value, slope = directional(function, z.unsqueeze(0), v.unsqueeze(0))
        return value[0], slope[0]
    return cast(tuple[Tensor, Tensor], jvp(function, (z.clone(),), (v.clone(),)))


def second_directional(function: Callable[[Tensor], Tensor], z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and second derivative of ``function`` at ``z`` along ``v``."""
    _load()
    if z.dim() == 1:
        value, slope, curvature = second_directional(function, z.unsqueeze(0), v.unsqueeze(0))
        return value[0], slope[0], curvature[0]

    def first(point: Tensor) -> tuple[Tensor, Tensor]:
        return directional(function, point, v)

    tangents = jvp(first, (z.clone(),), (v.expand_as(z).clone(),))
    (value, slope), (_, curvature) = cast(tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], tangents)
    return value, slope, curvature


def jacobian(function: Callable[[Tensor], Tensor], z: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Value ``(*batch, *out)`` and Jacobian ``(*batch, *out, d)`` of a batched function.

    ``function`` maps ``(*batch, d)`` to ``(*batch, *out)``, each batch element for itself.
    One vmapped ``jvp`` over the d axes, which evaluates the primal once;
    ``torch.jit.trace`` cannot record ``vmap``, so it gets a plain loop; there shapes are tensors, so
    the number of axes ``dim`` is given.
    """
    _load()
    if z.dim() == 1:
        value, columns = jacobian(function, z.unsqueeze(0), dim)
        return value[0], columns[0]
    z = z.clone()
    basis = torch.eye(dim, dtype=z.dtype, device=z.device)
    if torch.jit.is_tracing():
        pairs = [directional(function, z, axis) for axis in basis]
        return pairs[0][0], torch.stack([slope for _, slope in pairs], dim=-1)

    def column(axis: Tensor) -> tuple[Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor], jvp(function, (z,), (axis.expand_as(z).clone(),)))

    # the same value for every axis: not out_dims None, which fails where a user's vmap is around this one; nor -1, at
    # which torch 2.4 to 2.10 give a constant function's columns a nonsensical shape
    value, columns = vmap(column)(basis)
    return value[0], columns.movedim(0, -1)
