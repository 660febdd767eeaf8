"""Results that depend on a metric and a few numbers, kept until the metric changes.

A model builds its distributions anew at every call; what is dear and constant, such as a normalising constant
under NUTS, must not be computed anew as well.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pyro_riemann.metrics import RiemannianMetric

Result = TypeVar("Result")
_CAPACITY = 64
_kept: WeakKeyDictionary[RiemannianMetric, tuple[Any, dict[Any, Any]]] = WeakKeyDictionary()


def state_version(metric: RiemannianMetric, *tensors: Tensor) -> tuple[Any, ...] | None:
    """Changes whenever a parameter or buffer, or one of ``tensors``, is written to; None if that cannot be seen."""
    state = (*tensors, *chain(metric.parameters(), metric.buffers()))
    if any(tensor.is_inference() for tensor in state):
        return None
    return (metric.solver, *((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in state))


def wants_gradient(metric: RiemannianMetric, *tensors: Tensor) -> bool:
    """Whether a result of these would carry a gradient."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in chain(tensors, metric.parameters()))


def remember(
    metric: RiemannianMetric,
    name: str,
    settings: tuple[Any, ...],
    tensors: tuple[Tensor, ...],
    compute: Callable[[], Result],
) -> Result:
    """``compute()``, or its earlier result for an unchanged metric and equal arguments.

    Results that carry a gradient or are being traced are never kept.
    """
    version = None if torch.jit.is_tracing() or wants_gradient(metric, *tensors) else state_version(metric)
    if version is None:
        return compute()
    known, results = _kept.get(metric, (None, {}))
    if known != version:
        results = {}
        _kept[metric] = (version, results)
    values = tuple((t.shape, t.dtype, str(t.device), tuple(t.detach().flatten().tolist())) for t in tensors)
    key = (name, settings, values)
    if key not in results:
        if len(results) >= _CAPACITY:
            results.pop(next(iter(results)))
        results[key] = compute()
    kept: Result = results[key]
    return kept
