"""What the law of a Riemannian uniform on one box needs: a quadrature rule and a sampler.

Set-up never touches the global random state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pyro_riemann.metrics import KernelMetric, RiemannianMetric

CHUNK = 16384  # points per metric evaluation: bounds memory, not results
ENTRIES = 2**18  # points times centroids per evaluation of a kernel metric: its table stays in the cache


class SamplerReport(NamedTuple):
    """How well a sampler of a Riemannian uniform works.

    Attributes:
        method: ``"exact"`` (a flat metric), ``"table"`` (rejection from a cell table), ``"mixture"`` (independence
            Metropolis from a Gaussian mixture) or ``"tempered"`` (a tempered sequence of particle populations).
        efficiency: in (0, 1]: acceptance rate of the table, effective sample size per proposal of the
            mixture, effective share of the particles of the tempered sequence.
        acceptance: acceptance rate of the Hamiltonian moves that end a draw; 1 where none are made.
        steps: proposals spent on one draw.
        reason: how the proposal came about, and what the volume does not count, in words.
        on_floor: share of the law's mass where the metric is only what keeps it from being singular: the floor of a
            kernel metric, the jitter of a pullback; None where it has nothing of the kind.

    Example:
        >>> law = RiemannianUniform(EuclideanMetric(1), 0.0, 1.0)
        >>> law.reports[0].method
        'exact'
    """

    method: str
    efficiency: float
    acceptance: float
    steps: int
    reason: str = ""
    on_floor: float | None = None


class VolumeRule(NamedTuple):
    """``int f dM / Vol`` as a weighted sum, and the volume itself.

    Attributes:
        log_volume: log of the Riemannian volume of the box, a scalar.
        standard_error: error of ``log_volume``.
        nodes: ``(N, d)`` points of the box.
        weights: ``(N)``, summing to 1.
    """

    log_volume: Tensor
    standard_error: Tensor
    nodes: Tensor
    weights: Tensor

    def on_floor(self, metric: RiemannianMetric) -> float | None:
        """Share of the mass where the metric is only its floor, None if it has none."""
        with torch.no_grad():
            flat = [metric.on_floor(piece) for piece in self.nodes.split(rows_at_once(metric))]
        known = [piece for piece in flat if piece is not None]
        return float(self.weights @ torch.cat(known).to(self.weights)) if known else None


class BoxLaw(Protocol):
    """A law on one box: its volume rule, its sampler, how well that works, and why to doubt the volume, if at all."""

    rule: VolumeRule
    report: SamplerReport
    doubt: str

    def draw(self, count: int) -> Tensor:
        """``(count, d)`` points from the law, by the global generator."""
        ...


def rows_at_once(metric: RiemannianMetric) -> int:
    """Points to evaluate the metric at in one go."""
    return max(64, ENTRIES // len(metric.centroids)) if isinstance(metric, KernelMetric) else CHUNK


def log_volume_element(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """``log sqrt(det G)`` without gradient, in chunks, shape ``z.shape[:-1]``.

    Raises:
        ValueError: if the metric is NaN or infinite at one of the points.
    """
    with torch.no_grad():
        flat = z.reshape(-1, z.shape[-1])
        value = torch.cat([0.5 * metric.logdet(piece) for piece in flat.split(rows_at_once(metric))])
        if not bool((value < torch.inf).all()):
            where = flat[~(value < torch.inf)][0].tolist()
            raise ValueError(
                f"`metric` has no finite volume element at z = {where}, inside the box: choose `low` and `high` within "
                "the chart."
            )
        return value.reshape(z.shape[:-1])


def log_volume_slope(metric: RiemannianMetric, z: Tensor) -> tuple[Tensor, Tensor]:
    """``log sqrt(det G)`` ``(n)`` and its gradient ``(n, d)`` at ``z (n, d)``, in chunks; NaN where there is none."""
    found = [_slope_of_piece(metric, piece.detach()) for piece in z.split(rows_at_once(metric))]
    if not found:
        return z.new_zeros(0), torch.zeros_like(z)
    value, gradient = (torch.cat(part) for part in zip(*found, strict=True))
    return 0.5 * value, 0.5 * gradient


def _slope_of_piece(metric: RiemannianMetric, z: Tensor) -> tuple[Tensor, Tensor]:
    if type(metric) is KernelMetric and metric.is_diagonal:
        return metric._logdet_with_gradient(z)
    with torch.enable_grad():
        point = z.requires_grad_()
        value = metric.logdet(point)
        # a flat metric's value does not depend on the point: the zero keeps it on the graph
        (gradient,) = torch.autograd.grad(value.sum() + 0 * point.sum(), point)
    return value.detach(), gradient


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
