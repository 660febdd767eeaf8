"""A metric on a box of its chart, checked at the door."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann._checks import check_finite, check_same, check_tensor
from pyro_riemann.metrics import RiemannianMetric


def check_metric(metric: RiemannianMetric) -> RiemannianMetric:
    """Raise unless ``metric`` is a Riemannian metric."""
    if not isinstance(metric, RiemannianMetric):
        raise TypeError(f"`metric` must be a RiemannianMetric, got {type(metric).__name__}.")
    return metric


def check_box(metric: RiemannianMetric, low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """Both bounds as tensors ``(*batch, d)``, checked."""
    state = (t for t in (low, high, *metric.parameters(), *metric.buffers()) if isinstance(t, Tensor))
    like = next((t for t in state if t.dtype.is_floating_point), torch.empty(0))
    bounds = [_corner(name, bound, like, metric.dim) for name, bound in (("low", low), ("high", high))]
    if not torch.jit.is_tracing():
        check_same("high", bounds[1], bounds[0])
        if not bool((bounds[0] < bounds[1]).all()):
            raise ValueError("`low` must be strictly below `high` in every coordinate.")
    return bounds[0], bounds[1]


def _corner(name: str, bound: Any, like: Tensor, dim: int) -> Tensor:
    if bound is None:
        raise ValueError(
            f"`{name}` is missing: the uniform law of a metric on all of R^d is improper, so both bounds of a box "
            "are required."
        )
    if isinstance(bound, int | float) and not isinstance(bound, bool):
        bound = torch.full((dim,), float(bound), dtype=like.dtype, device=like.device)
    check_tensor(name, bound)
    if torch.jit.is_tracing():
        return bound
    if bound.dim() == 0:
        bound = bound.expand(dim)
    if bound.shape[-1] != dim:
        raise ValueError(
            f"`{name}` must be a number or have shape (*batch, {dim}) for a metric of dimension {dim}, "
            f"got {tuple(bound.shape)}."
        )
    if bool(torch.isinf(bound).any()):
        raise ValueError(
            f"`{name}` is infinite: the uniform law of a metric on an unbounded set is improper; give a finite box."
        )
    return check_finite(name, bound)


def check_chart(metric: RiemannianMetric, low: Tensor, high: Tensor) -> None:
    """Raise if a corner of the box lies outside the metric's own support (the ball of a Poincare chart)."""
    if metric.support is constraints.real_vector or metric.dim > 12:
        return
    ends = torch.arange(2, dtype=low.dtype, device=low.device)
    corners = low + (high - low) * torch.cartesian_prod(*[ends] * metric.dim).reshape(-1, metric.dim)
    outside = ~metric.support.check(corners)
    if bool(outside.any()):
        raise ValueError(
            f"The box from `low` to `high` leaves the chart of {type(metric).__name__}: corner "
            f"{corners[outside][0].tolist()} is not in {metric.support}."
        )
