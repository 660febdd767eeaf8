"""Immersions as users have them: called in one way, and refused where they cannot define a metric.

Each check is a second route to what the metric relies on: a second call, a smaller batch, differences of values against
derivatives, and forward against reverse mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_riemann import _autodiff
from pyro_riemann._plain import plain_kernels
from pyro_riemann.metrics._ambient import Ambient

Outputs = Callable[[Tensor], tuple[Tensor, ...]]
_STEPS = (0.4, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_NO_SLOPE = (
    "Something on the way is not differentiated: `detach`, `.data`, `no_grad`, `inference_mode`, rounding, numpy or "
    "`.item()`. Give the part of the decoder that is differentiable."
)


class DtypeError(TypeError):
    """The points have another dtype than the immersion computes in."""


def checked_values(values: tuple[Tensor, ...], points: Tensor) -> tuple[Tensor, ...]:
    """Outputs at ``points``, ``(n, d)``, after refusing those that are no immersed points.

    Raises:
        ValueError: as :class:`PullbackMetric`, of shapes, types and values.
    """
    dim = points.shape[-1]
    for value in values:
        if value.dtype not in (torch.float32, torch.float64):
            hint = "stack real and imaginary part" if value.is_complex() else "call `.float()` on the decoder or result"
            raise ValueError(f"`immersion` must return float32 or float64, got {value.dtype}: {hint}.")
    _check_batch(values, points)
    size = sum(value[0].numel() for value in values)
    if size < dim:
        raise ValueError(
            f"`immersion` has {size} outputs for a latent dimension of {dim}: its Jacobian is singular "
            "everywhere. Use a latent dimension of at most the number of outputs."
        )
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise ValueError("`immersion` returns NaN or infinite values near the origin.")
    return values


class _Sizes(TorchDispatchMode):
    """Sizes of all that is computed, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = [] if func.is_view else tree_leaves(result)
        self.found.append(sum(part.numel() for part in parts if isinstance(part, Tensor)))
        return result


def numbers_held(call: Outputs, points: Tensor) -> int:
    """How many numbers an immersion computes at a point, its layers included: what a second point adds."""
    counts = []
    for rows in (points[:-1], points):
        with torch.no_grad(), _Sizes() as sizes:
            values = call(rows)
        counts.append(sizes.found)
    if len(counts[0]) != len(counts[1]):  # another way for another number of points
        return sum(sizes_of(values)) + points.shape[-1]
    return points.shape[-1] + sum(max(0, many - few) for few, many in zip(*counts, strict=True))


def check_dependence(values: tuple[Tensor, ...]) -> None:
    """Refuse outputs that are the same at all points.

    Raises:
        ValueError: if they are.
    """
    if all(torch.equal(value[:1].expand_as(value), value) for value in values):
        raise ValueError(f"`immersion` does not depend on z: it gave the same output at {len(values[0])} points.")


def _check_batch(values: tuple[Tensor, ...], points: Tensor) -> None:
    if any(value.shape[:1] != points.shape[:1] for value in values):
        shapes = [tuple(value.shape) for value in values]
        raise ValueError(
            f"`immersion` must keep the batch shape: it is called with (n, d) and returns (n, *out); an input "
            f"{tuple(points.shape)} gave {shapes}."
        )


def check_repeatable(call: Outputs, points: Tensor, values: tuple[Tensor, ...]) -> None:
    """Refuse outputs that differ from call to call, or with the other points of the batch.

    Raises:
        ValueError: if they do.
    """
    if not _near(call(points), values, 1e3 * torch.finfo(values[0].dtype).eps):
        raise ValueError(
            "`immersion` is random: two calls at the same points differ. Dropout in training mode, or a "
            "draw of noise? Call `.eval()` on the decoder, or return the mean."
        )
    for count in (len(points) - 1, 1):
        part = points[:count]
        try:
            again = call(part)
        except Exception as error:
            raise ValueError(
                f"`immersion` takes a batch of {len(points)} points and fails on {count}: {_said(error)} Does it "
                "squeeze the batch away, or use batch normalisation in training mode or without running statistics?"
            ) from error
        _check_batch(again, part)
        if not _near(again, tuple(value[:count] for value in values), 1e-3):
            raise ValueError(
                "`immersion` depends on the batch: the image of a point changes with the other points. Batch "
                "normalisation in training mode (call `.eval()` on the decoder) or without running statistics?"
            )


def _near(first: tuple[Tensor, ...], second: tuple[Tensor, ...], tolerance: float) -> bool:
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-30))
        for a, b in zip(first, second, strict=True)
    )


def check_distance(space: Ambient, images: tuple[Tensor, Tensor, Tensor], slope: Tensor) -> None:
    """Refuse a space whose metric is not the second derivative of its squared distance.

    Args:
        space: where the images are.
        images: of points before and after a short step and in its middle, ``(n, D)``.
        slope: derivative of the middle along the step, ``(n, D)``.

    Raises:
        ValueError: if it is not.
    """
    before, after, middle = images
    values = space.squared_dist(before, after)
    squares = space.pull(middle, slope.unsqueeze(-1))[..., 0, 0]
    noise = 100 * torch.finfo(values.dtype).eps * max(1.0, float(middle.abs().max()))
    if not bool(((values - squares).abs() <= 0.05 * values + noise).all()):
        raise ValueError(
            f"`immersion` maps to a space whose squared distances of near points, {values.tolist()}, are not those of "
            f"its metric, {squares.tolist()}: a KL divergence that is not smooth where both are equal, or infinite? "
            "Give an immersion of the family by `register_immersion`."
        )


def check_deviation(values: tuple[Tensor, ...]) -> None:
    """Refuse a pair (mean, standard deviation) whose deviation is negative somewhere.

    Raises:
        ValueError: if it is.
    """
    if len(values) == 2 and bool((values[1] < 0).any()):
        raise ValueError(
            f"`immersion` returns (mean, standard deviation), the second negative, {float(values[1].min()):.3g}. Is "
            "it a log-variance? Return (mean, (log_variance / 2).exp())."
        )


def check_slopes(embed: Callable[[Tensor], Tensor], sizes: list[int], points: Tensor, slope: Tensor | None) -> None:
    """Refuse derivatives that are not the slopes of the values, by differences, or differ between the two modes.

    An output that changes from point to point and is flat at each of them, such as an index, has no slopes either.

    Args:
        embed: outputs side by side, ``(n, d) -> (n, D)``.
        sizes: of each output, which sum to D.
        points: where, ``(n, d)``.
        slope: derivative along :func:`direction` where it is known, ``(n, D)``; by default taken here.

    Raises:
        ValueError: if they are not.
        RuntimeError: if there is no derivative.
    """
    v = direction(points)
    if slope is None:
        slope = _autodiff.directional(embed, points, v)[1]
    wrong: set[int] = set()
    right: set[int] = set()
    for step in _STEPS:
        try:
            ends = embed(points + step * v), embed(points - step * v)
        except (ValueError, RuntimeError):  # outside of where it is defined
            continue
        difference = (ends[0] - ends[1]) / (2 * step)
        noise = 4 * torch.finfo(points.dtype).eps * ends[0].abs() / step
        blocks = zip(slope.split(sizes, -1), difference.split(sizes, -1), noise.split(sizes, -1), strict=True)
        for index, (ours, other, error) in enumerate(blocks):
            if not float(error.norm()) <= 0.1 * float(other.norm()):  # flat, or lost in rounding: says nothing
                continue
            agree = float((ours - other).norm()) <= 0.2 * float(other.norm())
            (right if agree else wrong).add(index)
    pairs = zip(slope.split(sizes, -1), embed(points).split(sizes, -1), strict=True)
    steps = {index for index, (ours, value) in enumerate(pairs) if not ours.any() and bool((value != value[:1]).any())}
    if (wrong | steps) - right:
        raise ValueError(f"`immersion` has a derivative that is not the slope of its values. {_NO_SLOPE}")
    pulled = _autodiff.pull_back(embed, points, lambda _: slope)[1]
    square = float(slope.square().sum())
    if not abs(float((pulled * v).sum()) - square) <= 0.02 * square:
        raise ValueError(f"`immersion` has other derivatives in reverse than in forward mode. {_NO_SLOPE}")


def direction(points: Tensor) -> Tensor:
    """A unit vector ``(d,)`` that no symmetry prefers."""
    v = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device).cos()
    return v / v.norm()


def no_derivative(
    modules: Sequence[nn.Module], embed: Callable[[Tensor], Tensor], points: Tensor, error: Exception
) -> ValueError:
    """The error for an immersion without derivative; it names the layer, found by its hooks."""
    entered: list[str] = []
    hooks = []
    for module in modules:
        for name, part in module.named_modules():
            title = f"{name} ({type(part).__name__})" if name else type(part).__name__
            hooks.append(part.register_forward_pre_hook(lambda *_, title=title: entered.append(title)))
            hooks.append(part.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        with plain_kernels(), torch.enable_grad():
            jvp(embed, (points.clone(),), (direction(points).expand_as(points).clone(),))
        entered.clear()
    except (RuntimeError, TypeError, ValueError):
        pass
    finally:
        for hook in hooks:
            hook.remove()
    layer = f"its layer {entered[-1]}" if entered else "an operation in it"
    return ValueError(
        f"`immersion` cannot be differentiated: {layer} has no derivative in forward mode or by two reverse passes "
        f"({_said(error)}) {_NO_SLOPE}"
    )


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:197] + "..."
    return f"{type(error).__name__}: {text}" + ("" if text.endswith(".") else ".")


def fails(shape: tuple[int, ...], error: Exception) -> ValueError:
    """The error for an immersion that does not take points ``(n, d)``."""
    return ValueError(
        f"`immersion` fails on a batch of points {shape}: {_said(error)} It is called with (n, d), must "
        "return (n, *out); is `dim` its latent dimension, and its device and dtype that of its parameters?"
    )


def flattened(values: tuple[Tensor, ...], batch_dims: int = 1) -> list[Tensor]:
    """Each output ``(*batch, *out)`` as ``(*batch, size)``."""
    return [value.unsqueeze(-1) if value.dim() == batch_dims else value.flatten(batch_dims) for value in values]


def sizes_of(values: tuple[Tensor, ...]) -> list[int]:
    """The number of entries of each output at one point."""
    return [math.prod(value.shape[1:]) for value in values]
