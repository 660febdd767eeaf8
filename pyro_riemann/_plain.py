"""Layers as torch differentiates them rightly and as often as asked.

Fused kernels (attention, recurrent layers) have no forward mode; some functions have a first derivative only; and of
layer and instance normalisation torch (up to 2.14) gives a second derivative by forward over forward mode that is
wrong, without a word. Each has a form made of plain parts, with the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class Composed(TorchFunctionMode):
    """Functions with a wrong or missing second derivative, made of functions that have one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        composed = _PARTS.get(func, func)
        return composed(*args, **(kwargs or {}))


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Kernels that have derivatives of every order, in both modes, in place of fused ones."""
    fast, mkldnn, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn, torch.backends.cudnn
    enabled = mkldnn.enabled, cudnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    # not by their `flags`, which set much else, with a warning
    mkldnn.enabled, cudnn.enabled = False, False  # type: ignore[assignment]  # properties, of which the stubs know a class
    try:
        with Composed(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mkldnn.enabled, cudnn.enabled = enabled
        torch.backends.mha.set_fastpath_enabled(fast)


# What an immersion may need, from the fastest: convolutions without their library are several times slower.
KERNELS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "fused": nullcontext,
    "composed": Composed,
    "plain": plain_kernels,
}


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    value = functional.relu6(x + 3) / 6
    return x.copy_(value) if inplace else value


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _normalised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    value = _normalised(x, tuple(range(-len(normalized_shape), 0)), eps)
    value = value if weight is None else value * weight
    return value if bias is None else value + bias


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    value, shape = _normalised(x, tuple(range(2, x.dim())), eps), (-1, *(1,) * (x.dim() - 2))
    value = value if weight is None else value * weight.reshape(shape)
    return value if bias is None else value + bias.reshape(shape)


_PARTS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid_: partial(_hardsigmoid, inplace=True),
    functional.glu: _glu,
    torch._C._nn.glu: _glu,
    functional.layer_norm: _layer_norm,
    functional.instance_norm: _instance_norm,
}
