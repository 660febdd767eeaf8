"""Forward-mode differentiation over the few latent axes.

A decoder maps d latent coordinates (2 to 64) to D outputs (often 784), so Jacobians
are cheap column by column and dear row by row. Everything here is built on
``torch.func.jvp``; results stay differentiable by ordinary reverse mode.

Derivatives are taken with gradients enabled, whatever the caller's mode: without, torch picks kernels of some layers
(SiLU, Mish, group normalisation) that have no second derivative, and a value would depend on the mode. Where a fused
kernel has no forward mode (attention, recurrent layers), the plain kernels take its place; a function that has none
at all is differentiated by two reverse passes: the first is linear in its covector, the second differentiates in that.

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
from torch.func import jvp, vjp, vmap

from pyro_riemann._plain import plain_kernels

Function = Callable[[Tensor], Tensor]


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


def is_smooth(function: Function, z: Tensor, v: Tensor) -> bool | None:
    """Whether forward mode over forward mode gives the second derivative that forward over reverse gives.

    None where one of them fails.
    """
    _load()
    v = v.expand_as(z).clone()

    def slope(point: Tensor) -> Tensor:
        return cast(Tensor, jvp(function, (point,), (v,))[1])

    try:
        with torch.enable_grad():
            first, second = (part.detach() for part in jvp(slope, (z.clone(),), (v,)))
            covector = second if bool(second.any()) else torch.ones_like(second)

            def pulled(point: Tensor) -> Tensor:
                return cast(Tensor, vjp(function, point)[1](covector)[0])

            other = (jvp(pulled, (z.clone(),), (v,))[1].detach() * v).sum()
    except RuntimeError:
        return None
    rounding = 100 * torch.finfo(z.dtype).eps * first.norm() * covector.norm()
    return bool(((covector * second).sum() - other).abs() <= 0.02 * second.square().sum() + rounding)


def _in_mode_of_caller(values: tuple[Tensor, ...], with_grad: bool) -> tuple[Tensor, ...]:
    """The values without their graph, if the caller wanted none. Not ``detach``, which drops outer tangents as well."""
    if with_grad:
        return values
    with torch.no_grad():
        return tuple(value.view_as(value) if value.requires_grad else value for value in values)


def directional(function: Function, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Value of ``function`` at ``z`` and its derivative in the direction ``v``.

    Forward mode rejects tensors with overlapping memory (``expand``), so both are cloned.
    """
    _load()
    v = v.expand_as(z)
    if z.dim() == 1:
        value, slope = directional(function, z.unsqueeze(0), v.unsqueeze(0))
        return value[0], slope[0]
    with_grad = torch.is_grad_enabled()
    with torch.enable_grad():
        try:
            pair = jvp(function, (z.clone(),), (v.clone(),))
        except RuntimeError as error:
            pair = _slope_without(error, function, z, v)
    value, slope = _in_mode_of_caller(cast(tuple[Tensor, Tensor], pair), with_grad)
    return value, slope


def _slope_without(error: RuntimeError, function: Function, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope by the other routes; the first error again, if there is none."""
    with plain_kernels():
        for route in (jvp, _reverse_twice):
            try:
                return cast(tuple[Tensor, Tensor], route(function, (z.clone(),), (v.clone(),)))
            except RuntimeError:
                continue
    raise error


def _reverse_twice(function: Function, primals: tuple[Tensor], tangents: tuple[Tensor]) -> tuple[Tensor, Tensor]:
    """``jvp`` by the derivative in u of ``J^T u``. No transform of torch: many functions of one's own know none."""
    (z,), (v,) = primals, tangents
    z = z if z.requires_grad else z.requires_grad_()
    value = function(z)
    if not value.requires_grad:
        raise RuntimeError("no derivative in reverse mode.")
    covector = torch.zeros_like(value).requires_grad_()
    (pulled,) = torch.autograd.grad(value, z, covector, create_graph=True, materialize_grads=True)
    if not pulled.requires_grad:  # constant in z
        return value, torch.zeros_like(value)
    (slope,) = torch.autograd.grad(pulled, covector, v, create_graph=True, allow_unused=True)
    if slope is None:  # a backward pass that is marked as differentiable once hides what it depends on
        raise RuntimeError("no second pass in reverse mode.")
    return value, slope


def second_directional(function: Function, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and second derivative of ``function`` at ``z`` along ``v``."""
    _load()
    if z.dim() == 1:
        value, slope, curvature = second_directional(function, z.unsqueeze(0), v.unsqueeze(0))
        return value[0], slope[0], curvature[0]

    def first(point: Tensor) -> tuple[Tensor, Tensor]:
        return directional(function, point, v)

    with_grad = torch.is_grad_enabled()
    with torch.enable_grad():
        try:
            pairs = jvp(first, (z.clone(),), (v.expand_as(z).clone(),))
            (value, slope), (_, curvature) = cast(tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], pairs)
        except RuntimeError as error:
            pair = _slope_without(error, lambda point: torch.stack(first(point)), z, v.expand_as(z))
            (value, slope), (_, curvature) = pair
    value, slope, curvature = _in_mode_of_caller((value, slope, curvature), with_grad)
    return value, slope, curvature


def pull_back(function: Function, z: Tensor, covector: Function) -> tuple[Tensor, Tensor]:
    """Value of ``function`` at ``z``, and the covector there that ``covector`` gives for it, pulled back to ``z``.

    By one reverse pass.
    """
    try:
        value, pull = vjp(function, z)[:2]
        return value, pull(covector(value))[0]
    except RuntimeError as error:  # without a transform of torch, which many functions of one's own do not know
        with_grad = torch.is_grad_enabled()
        with torch.enable_grad(), plain_kernels():
            point = z if z.requires_grad else z.clone().requires_grad_()
            value = function(point)
            if not value.requires_grad:
                raise error
            (pulled,) = torch.autograd.grad(value, point, covector(value), create_graph=with_grad)
        value, pulled = _in_mode_of_caller((value, pulled), with_grad)
        return value, pulled


def jacobian(function: Function, z: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Value ``(*batch, *out)`` and Jacobian ``(*batch, *out, d)`` of a batched function.

    ``function`` maps ``(*batch, d)`` to ``(*batch, *out)``, each batch element for itself.
    One vmapped ``jvp`` over the d axes, which evaluates the primal once;
    ``torch.jit.trace`` cannot record ``vmap``, so it gets a plain loop; there shapes are tensors, so
    the number of axes ``dim`` is given. The loop also serves functions that ``vmap`` cannot take, such as one with a
    branch on data, and those without forward mode.
    """
    _load()
    if z.dim() == 1:
        value, columns = jacobian(function, z.unsqueeze(0), dim)
        return value[0], columns[0]
    with_grad = torch.is_grad_enabled()
    basis = torch.eye(dim, dtype=z.dtype, device=z.device)
    with torch.enable_grad():
        pair = None if torch.jit.is_tracing() else _all_columns(function, z, basis)
        if pair is None:
            each = [directional(function, z, axis) for axis in basis]
            pair = each[0][0], torch.stack([slope for _, slope in each], dim=-1)
    value, columns = _in_mode_of_caller(pair, with_grad)
    return value, columns


def _all_columns(function: Function, z: Tensor, basis: Tensor) -> tuple[Tensor, Tensor] | None:
    """Value and Jacobian by one vmapped ``jvp``; None where that fails."""
    z = z.clone()

    def column(axis: Tensor) -> tuple[Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor], jvp(function, (z,), (axis.expand_as(z).clone(),)))

    # the same value for every axis: not out_dims None, which fails where a user's vmap is around this one; nor -1, at
    # which torch 2.4 to 2.10 give a constant function's columns a nonsensical shape
    try:
        value, columns = vmap(column)(basis)
    except NotImplementedError:  # a fused kernel without forward mode
        try:
            with plain_kernels():
                value, columns = vmap(column)(basis)
        except RuntimeError:
            return None
    except RuntimeError:
        return None
    return value[0], columns.movedim(0, -1)
