"""Forward-mode differentiation over the few latent axes.

A decoder maps d latent coordinates (2 to 64) to D outputs (often 784), so Jacobians
are cheap column by column and dear row by row. Everything here is built on
``torch.func.jvp``; results stay differentiable by ordinary reverse mode.

Derivatives are taken with gradients enabled, whatever the mode of the caller: without, torch picks kernels of some layers
(SiLU, Mish, group normalisation) that have no second derivative, and a value would depend on the mode. Where a fused
kernel has no forward mode (attention, recurrent layers), the plain kernels take its place; a function that has none
at all is differentiated by two reverse passes: the first is linear in its covector, the second differentiates in that.

A single point gets a batch axis for the time of the call: in forward mode torch turns a tangent with
no axes into float64 when it is multiplied by a Python number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Function = Callable[[Tensor], Tensor]


@lru_cache(maxsize=1)
def _load() -> None:
    """Have torch compile its forward-mode rules, once, without the warning that they go through ``torch.jit``."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=category)
        jvp(torch.clone, (torch.zeros(1),), (torch.zeros(1),))


class _Composed(TorchFunctionMode):
    """Functions that torch differentiates once, made of functions that it differentiates as often as asked."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        composed = _PARTS.get(func, func)
        return composed(*args, **(kwargs or {}))


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    value = functional.relu6(x + 3) / 6
    return x.copy_(value) if inplace else value


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


_PARTS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid_: partial(_hardsigmoid, inplace=True),
    functional.glu: _glu,
    torch._C._nn.glu: _glu,
}


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Kernels made of parts that have derivatives of every order, in place of fused ones."""
    fast, mkldnn, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn, torch.backends.cudnn
    enabled = mkldnn.enabled, cudnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    mkldnn.enabled = cudnn.enabled = False  # not their `flags`, which set much else, with a warning
    try:
        with _Composed(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mkldnn.enabled, cudnn.enabled = enabled
        torch.backends.mha.set_fastpath_enabled(fast)


def is_smooth(function: Function, z: Tensor, v: Tensor) -> bool:
    """Whether ``function`` has all derivatives that are needed at all: forward twice, and forward over reverse."""
    _load()
    v = v.expand_as(z).clone()

    def first(point: Tensor) -> Tensor:
        return cast(Tensor, jvp(function, (point,), (v,))[1])

    def pulled(point: Tensor) -> Tensor:
        value, pull = vjp(function, point)[:2]
        return cast(Tensor, pull(torch.ones_like(value))[0])

    try:
        with torch.enable_grad():
            for twice in (first, pulled):
                jvp(twice, (z.clone(),), (v,))
    except RuntimeError:
        return False
    return True


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
            (value, slope), (_, curvature) = jvp(first, (z.clone(),), (v.expand_as(z).clone(),))
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
            columns = [directional(function, z, axis) for axis in basis]
            pair = columns[0][0], torch.stack([slope for _, slope in columns], dim=-1)
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
