"""What the four distributions share: shapes, expansion and checks that name the argument."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_riemann._box import check_metric
from pyro_riemann._checks import check_finite, check_same, check_tensor
from pyro_riemann._modes import ValidatedDistribution, guarded_law
from pyro_riemann.metrics import RiemannianMetric

Shape = torch.Size | list[int] | tuple[int, ...]


@guarded_law
class RiemannianDistribution(ValidatedDistribution):
    """Base of distributions on a chart with a metric.

    A subclass lists its tensor parameters in ``arg_constraints`` and whatever else its constructor
    stores in ``_settings``; :meth:`expand` carries both. The metric is a module, not a tensor, and
    therefore stays out of ``arg_constraints``.
    """

    metric: RiemannianMetric
    arg_constraints: ClassVar[dict[str, Any]]
    _settings: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        guarded_law(cls)

    def __init__(self, metric: RiemannianMetric, like: Tensor, validate_args: bool | None = None) -> None:
        """Finish construction once the parameters are set; ``like`` has shape ``(*batch, d)``."""
        self.metric = metric
        if torch.jit.is_tracing() or like.numel() == 0:
            validate_args = False  # checks of data cannot be recorded, and torch's own stumble over no data
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            for name in self.arg_constraints:
                check_finite(name, getattr(self, name))

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The chart: all of R^d unless the metric has a ``support`` of its own."""
        return self.metric.support

    @classmethod
    def infer_shapes(cls, **arg_shapes: Shape) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the shapes of the tensor arguments.

        Args:
            **arg_shapes: shapes by name; Python numbers have the shape ``()``.
        """
        batches, event = [], torch.Size()
        for name, constraint in cls.arg_constraints.items():
            shape = torch.Size(arg_shapes.get(name, ()))
            split = len(shape) - constraint.event_dim
            batches.append(shape[:split])
            event = shape[split:] if constraint.event_dim else event
        return torch.broadcast_shapes(*batches), event

    def expand(self, batch_shape: Shape, _instance: Self | None = None) -> Self:
        """The same distribution with a larger ``batch_shape``: parameters become views, the metric is shared."""
        new = self._get_checked_instance(type(self), _instance)
        batch_shape = torch.Size(batch_shape)
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            setattr(new, name, value.expand(batch_shape + self.event_shape * constraint.event_dim))
        for name in ("metric", *self._settings):
            setattr(new, name, getattr(self, name))
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self.__dict__.get("_validate_args")
        return new

    def take(self, index: Tensor) -> Self:
        """The distributions at ``index (*sample, *batch[:-1])`` along the last batch axis, batched likewise."""
        new = self._get_checked_instance(type(self))
        for name, constraint in self.arg_constraints.items():
            value: Tensor = getattr(self, name)
            event = constraint.event_dim
            where = index.reshape(*index.shape, 1, *(1,) * event)
            shape = index.shape + (self.batch_shape[-1],) + self.event_shape * event
            picked = value.expand(shape).gather(index.dim(), where.expand(*index.shape, 1, *self.event_shape * event))
            setattr(new, name, picked.squeeze(index.dim()))
        for name in ("metric", *self._settings):
            setattr(new, name, getattr(self, name))
        TorchDistribution.__init__(new, index.shape, self.event_shape, validate_args=False)
        new._validate_args = self.__dict__.get("_validate_args")
        return new

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {tuple(getattr(self, name).shape)}" for name in self.arg_constraints)
        return f"{type(self).__name__}({sizes}, metric: {type(self.metric).__name__}(dim={self.metric.dim}))"

    def _validate_sample(self, value: Tensor) -> None:
        if torch.jit.is_tracing():
            return
        check_tensor("value", value)
        like: Tensor = getattr(self, next(iter(self.arg_constraints)))
        check_same("value", value, like)
        if value.numel() == 0:
            return
        super()._validate_sample(value)
        check_finite("value", value)


def broadcast_loc(loc: Tensor, name: str, spread: Tensor | float, metric: RiemannianMetric) -> tuple[Tensor, Tensor]:
    """Check ``loc (*batch, d)`` against the metric and broadcast it with ``spread (*batch)``.

    Args:
        loc: centre.
        name: what the caller calls ``spread`` (``"time"``, ``"scale"``).
        spread: tensor or Python number.
        metric: the metric.

    Returns:
        Both with one batch shape.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    check_metric(metric)
    check_tensor("loc", loc)
    if not isinstance(spread, Tensor):
        if isinstance(spread, bool) or not isinstance(spread, int | float):
            raise TypeError(f"`{name}` must be a torch.Tensor or a number, got {type(spread).__name__}.")
        spread = torch.as_tensor(spread, dtype=loc.dtype, device=loc.device)
    if torch.jit.is_tracing():
        wide_loc, wide_spread = torch.broadcast_tensors(loc, spread.unsqueeze(-1))
        return wide_loc, wide_spread[..., 0]
    check_tensor(name, spread)
    check_same(name, spread, loc)
    state = next(metric.parameters(), next(metric.buffers(), None))
    if state is not None and state.device != loc.device:
        raise ValueError(f"`loc` is on {loc.device}, `metric` on {state.device}; call `metric.to(loc.device)`.")
    if loc.dim() == 0 or loc.shape[-1] != metric.dim:
        raise ValueError(
            f"`loc` must have shape (*batch, {metric.dim}) for a metric of dimension {metric.dim}, "
            f"got {tuple(loc.shape)}." + metric.ambient_hint(loc.shape)
        )
    try:
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], spread.shape)
    except RuntimeError:
        raise ValueError(
            f"`{name}` of shape {tuple(spread.shape)} does not broadcast with the batch shape "
            f"{tuple(loc.shape[:-1])} of `loc`; `{name}` has one entry per distribution, shape (*batch)."
        ) from None
    return loc.expand(batch_shape + (metric.dim,)), spread.expand(batch_shape)


def broadcast_covariance(loc: Tensor, scale_tril: Tensor, metric: RiemannianMetric) -> tuple[Tensor, Tensor]:
    """Check ``loc (*batch, d)`` and ``scale_tril (*batch, d, d)`` and broadcast them.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    dim = metric.dim
    loc, _ = broadcast_loc(loc, "scale_tril", 1.0, metric)
    check_same("scale_tril", check_tensor("scale_tril", scale_tril), loc)
    if scale_tril.shape[-2:] != (dim, dim):
        raise ValueError(f"`scale_tril` must have shape (*batch, {dim}, {dim}), got {tuple(scale_tril.shape)}.")
    try:
        batch = torch.broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"`scale_tril` of shape {tuple(scale_tril.shape)} does not broadcast with the batch shape "
            f"{tuple(loc.shape[:-1])} of `loc`."
        ) from None
    return loc.expand(*batch, dim), scale_tril.expand(*batch, dim, dim)
