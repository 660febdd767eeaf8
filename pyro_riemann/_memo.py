"""Results that depend on a metric and a few numbers, kept until the metric changes.

A model builds its distributions anew at every call; what is costly and constant, such as a normalising constant
under NUTS, must not be computed anew as well. Whether a metric has changed cannot be read off its registered state: a
closure, a plain attribute or a write through ``.data`` leaves no trace there. So it is asked: a result is kept
together with some points at which it has looked, and used again only while the metric is bit for bit the same at these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pyro_riemann.metrics import RiemannianMetric

Result = TypeVar("Result")
_CAPACITY = 64  # results a metric
_PROBES = 32  # points at which a metric is compared: a change that leaves all of them as they were is not seen


class Probe(NamedTuple):
    """A metric as it is at some points.

    Attributes:
        nodes: ``(n, d)``.
        tensors: G at the nodes, ``(n, d, d)``.
    """

    nodes: Tensor
    tensors: Tensor

    def meets(self, metric: RiemannianMetric) -> bool:
        """Whether ``metric`` is the same, bit for bit, and carries no gradient."""
        now = metric.metric(self.nodes)
        return not now.requires_grad and torch.equal(now, self.tensors)


class _Kept(NamedTuple):
    result: Any
    probe: Probe


_kept: WeakKeyDictionary[RiemannianMetric, dict[Any, _Kept]] = WeakKeyDictionary()


def wants_gradient(metric: RiemannianMetric, z: Tensor, *tensors: Tensor) -> bool:
    """Whether a result of ``tensors`` and of the metric around ``z (*batch, d)`` would carry a gradient."""
    if not torch.is_grad_enabled():
        return False
    point = z.detach().reshape(-1, z.shape[-1])[:1]
    return any(tensor.requires_grad for tensor in tensors) or metric.metric(point).requires_grad


def remember(
    metric: RiemannianMetric,
    name: str,
    settings: tuple[Any, ...],
    tensors: tuple[Tensor, ...],
    compute: Callable[[], tuple[Result, Tensor]],
) -> Result:
    """The result of ``compute()``, or its earlier one for an unchanged metric and equal arguments.

    Results that carry a gradient or are being traced are never kept.

    Args:
        metric: the metric that the result depends on.
        name: which result it is.
        settings: whatever else it depends on, hashable.
        tensors: arguments, compared by value.
        compute: gives the result and points ``(n, d)`` at which it has looked, some of which are kept.
    """
    if torch.jit.is_tracing() or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return compute()[0]
    values = tuple((t.shape, t.dtype, str(t.device), tuple(t.detach().flatten().tolist())) for t in tensors)
    key = (name, settings, metric.solver, values)
    known = _kept.setdefault(metric, {})
    if (kept := known.get(key)) is not None and kept.probe.meets(metric):
        same: Result = kept.result
        return same
    result, nodes = compute()
    nodes = nodes.detach().reshape(-1, metric.dim)
    nodes = nodes[:: max(1, len(nodes) // _PROBES)]
    tensors_there = metric.metric(nodes)
    if not tensors_there.requires_grad:
        known.pop(key, None)
        if len(known) >= _CAPACITY:
            known.pop(next(iter(known)))
        known[key] = _Kept(result, Probe(nodes, tensors_there))
    return result


@contextmanager
def untraced() -> Iterator[None]:
    """Run as if ``torch.jit.trace`` were not recording: set-up enters a trace as constants.

    torch has no public way to pause a trace. Without a pause the whole quadrature behind a normaliser would be
    recorded, and run again at every call of the compiled model.
    """
    state = torch._C._get_tracing_state()
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # torch has it, its type stubs do not
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
