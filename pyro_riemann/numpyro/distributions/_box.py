"""What the law of a Riemannian uniform on one box needs, and the memory of laws that were set up before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp

from pyro_riemann.numpyro.distributions._memo import is_known
from pyro_riemann.numpyro.metrics import KernelMetric, RiemannianMetric

_ROWS = 16384  # points per metric evaluation: bounds memory, not results
_ENTRIES = 2**22  # points times centroids per evaluation of a kernel metric
_Law = TypeVar("_Law")


class SamplerReport(NamedTuple):
    """How well a sampler of a Riemannian uniform works.

    Attributes:
        method: ``"exact"`` (a flat metric), ``"table"`` (rejection from a cell table), ``"mixture"`` (independence
            Metropolis from a Gaussian mixture) or ``"tempered"`` (a tempered sequence of particle populations).
        efficiency: in (0, 1]: acceptance rate of the table, effective sample size per proposal of the
            mixture, effective share of the particles of the tempered sequence, a scalar.
        acceptance: acceptance rate of the Hamiltonian moves that end a draw, a scalar; 1 where none are made.
        steps: proposals spent on one draw, a scalar.
        reason: how the proposal came about, and what the volume does not count, in words; empty under a trace.
        on_floor: share of the law's mass where the metric is only what keeps it from being singular, the floor of a
            kernel metric or the jitter of a pullback; None where it has nothing of the kind, or arrays are traced.

    Example:
        >>> law = RiemannianUniform(EuclideanMetric(1), 0.0, 1.0)
        >>> law.reports[0].method
        'exact'
    """

    method: str
    efficiency: Array
    acceptance: Array
    steps: Array
    reason: str = ""
    on_floor: float | None = None


class VolumeRule(NamedTuple):
    """The volume of a box as a sum over nodes, ``log_volume = logsumexp(log_base + log_element(nodes))``.

    Attributes:
        nodes: ``(N, d)``, in units of the box, from 0 to 1.
        log_base: ``(N)``, minus infinity for nodes that do not count.
        standard_error: error of the log volume.
    """

    nodes: Array
    log_base: Array
    standard_error: Array


def rows_at_once(metric: RiemannianMetric) -> int:
    """Points to evaluate the metric at in one go."""
    return max(64, _ENTRIES // len(metric.centroids)) if isinstance(metric, KernelMetric) else _ROWS


def in_pieces(function: Callable[..., Any], rows: int, *points: Array) -> Any:
    """``function(*points)``, which treats every row for itself, at most ``rows`` rows at a time."""
    count = len(points[0])
    if count <= rows:
        return function(*points)
    pieces = -(-count // rows)
    padded = [jnp.concatenate([p, jnp.broadcast_to(p[:1], (pieces * rows - count, *p.shape[1:]))]) for p in points]
    split = [p.reshape(pieces, rows, *p.shape[1:]) for p in padded]
    value = jax.lax.map(lambda piece: function(*piece), split)
    return jax.tree.map(lambda out: out.reshape(-1, *out.shape[2:])[:count], value)


def log_element(metric: RiemannianMetric, low: Array, high: Array, nodes: Array) -> Array:
    """``log sqrt(det G)`` and the log volume of the box, at nodes ``(N, d)`` in units of the box."""

    def element(unit: Array) -> Array:
        return 0.5 * metric.logdet(low + (high - low) * unit)

    return in_pieces(element, rows_at_once(metric), nodes) + jnp.log(high - low).sum()


@jax.jit
def log_volume(metric: RiemannianMetric, low: Array, high: Array, rule: VolumeRule) -> Array:
    """Log volume by a kept rule, differentiable in the metric and the bounds: nodes move with the box."""
    rule = jax.lax.stop_gradient(rule)
    return logsumexp(rule.log_base + _counted(metric, low, high, rule))


@jax.jit
def moments(metric: RiemannianMetric, low: Array, high: Array, rule: VolumeRule) -> tuple[Array, Array]:
    """Mean and variance of each coordinate, ``(d)``, by the rule that gives the volume."""
    weights = jax.nn.softmax(rule.log_base + _counted(metric, low, high, rule))
    mean = weights @ rule.nodes
    return low + (high - low) * mean, jnp.square(high - low) * (weights @ jnp.square(rule.nodes - mean))


def share_of_mass(metric: RiemannianMetric, low: Array, high: Array, rule: VolumeRule) -> float | None:
    """Share of the mass where the metric is only its floor, by the rule that gives the volume; None if it has none."""
    weights = jax.nn.softmax(rule.log_base + _counted(metric, low, high, rule))
    nodes = jnp.where(jnp.isneginf(rule.log_base)[:, None], 0.5, rule.nodes)
    flat = metric.on_floor(low + (high - low) * nodes)
    return None if flat is None else float(weights @ flat.astype(weights.dtype))


def _counted(metric: RiemannianMetric, low: Array, high: Array, rule: VolumeRule) -> Array:
    # nodes that do not count may lie outside the chart: the centre of the box stands in for them
    nodes = jnp.where(jnp.isneginf(rule.log_base)[:, None], 0.5, rule.nodes)
    return log_element(metric, low, high, nodes)


def effective_share(log_weight: Array) -> Array:
    """Effective sample size per draw, ``(sum w)^2 / (n sum w^2)``; 0 if every weight is 0."""
    share = jnp.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight) - jnp.log(log_weight.size))
    return jnp.nan_to_num(share, nan=0.0)


def check_element(metric: RiemannianMetric, low: Array, high: Array, nodes: Array, value: Array) -> None:
    """Raise if a known log volume element is NaN or infinite."""
    if not is_known(value):
        return
    bad = ~np.asarray(value < jnp.inf)
    if bad.any():
        where = np.asarray(low + (high - low) * nodes)[bad][0].tolist()
        raise ValueError(
            f"`metric` ({type(metric).__name__}) has no finite volume element at z = {where}, inside the box: choose "
            "`low` and `high` within the chart."
        )


# ---------------------------------------------------------------- laws that are kept

_kept: WeakKeyDictionary[RiemannianMetric, list[tuple[Any, Any]]] = WeakKeyDictionary()
_MOST_KEPT = 8  # boxes of one metric


def keep(build: Callable[..., _Law], settings: tuple[Any, ...], metric: RiemannianMetric, *box: Array) -> _Law:
    """``build(metric, low, high, *settings)``, once for a metric object whose arrays stay the same ones, and a box.

    A model builds its distribution anew on every call, and a law is dear. Nothing is kept of arrays that are being
    traced.
    """
    leaves, structure = jax.tree.flatten(metric)
    if not is_known(leaves, box):
        return build(metric, *box, *settings)
    corners = tuple((corner.dtype.name, np.asarray(corner).tobytes()) for corner in box) + settings
    known = _kept.setdefault(metric, [])
    for (there, shape, where), law in known:
        same = len(there) == len(leaves) and all(a is b for a, b in zip(there, leaves, strict=True))
        if same and shape == structure and where == corners:
            kept: _Law = law
            return kept
    with jax.ensure_compile_time_eval():
        fresh = build(metric, *box, *settings)
    known.append(((leaves, structure, corners), fresh))
    del known[:-_MOST_KEPT]
    return fresh
