"""The volume element of a metric on a box, in the unit box; a kept rule at other parameters."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.unit_cells import MAX_ROUNDS, propose
from pyro_riemann._formulas.unit_laws import CellLaw, Rule
from pyro_riemann.numpyro.metrics import KernelMetric, RiemannianMetric
from pyro_riemann.numpyro.sampling._runtime import RUNTIME

_ROWS = 16384  # points per metric evaluation: bounds memory, not results
_ENTRIES = 2**22  # points times centroids per evaluation of a kernel metric


def rows_at_once(metric: RiemannianMetric) -> int:
    """Points to evaluate the metric at in one go."""
    return max(64, _ENTRIES // len(metric.centroids)) if isinstance(metric, KernelMetric) else _ROWS


def log_density(metric: RiemannianMetric, low: Array, high: Array, unit: Array) -> Array:
    """``log sqrt(det G)`` with respect to the unit box at ``(n, d)``, ``(n)``."""

    def element(points: Array) -> Array:
        return 0.5 * metric.logdet(low + (high - low) * points)

    value: Array = RUNTIME.in_pieces(element, rows_at_once(metric), unit)
    return value + jnp.log(high - low).sum()


def slopes(metric: RiemannianMetric, low: Array, high: Array, unit: Array) -> tuple[Array, Array]:
    """:func:`log_density` ``(n)`` and its gradient ``(n, d)``."""

    piece = RUNTIME.slopes(lambda points: 0.5 * metric.logdet(low + (high - low) * points))
    value, gradient = RUNTIME.in_pieces(piece, rows_at_once(metric), unit)
    return value + jnp.log(high - low).sum(), gradient


compiled_slopes = jax.jit(slopes)
compiled_density = jax.jit(log_density)


@jax.jit
def on_floor(metric: RiemannianMetric, low: Array, high: Array, unit: Array) -> Array | None:
    """Where the metric is only its floor, ``(n)``; None if it has none."""
    return metric.on_floor(low + (high - low) * unit)


@jax.jit
def peaks(metric: RiemannianMetric) -> Peaks | None:
    """Those that the metric knows of."""
    return metric.peaks()


@jax.jit
def log_volume(metric: RiemannianMetric, low: Array, high: Array, rule: Rule) -> Array:
    """Log volume by a kept rule, differentiable in the metric and the bounds: nodes move with the box."""
    value = jax.nn.logsumexp(_log_weights(metric, low, high, rule))
    return jax.lax.stop_gradient(rule.log_volume - value) + value


@jax.jit
def moments(metric: RiemannianMetric, low: Array, high: Array, rule: Rule) -> tuple[Array, Array]:
    """Mean and variance of each coordinate, ``(d)``, by the rule that gives the volume."""
    weights = jax.nn.softmax(_log_weights(metric, low, high, rule))
    mean = weights @ rule.nodes
    return low + (high - low) * mean, jnp.square(high - low) * (weights @ jnp.square(rule.nodes - mean))


def _log_weights(metric: RiemannianMetric, low: Array, high: Array, rule: Rule) -> Array:
    rule = jax.lax.stop_gradient(rule)
    now = log_density(metric, low, high, rule.nodes)
    return rule.log_weight + now - jax.lax.stop_gradient(now)


def accepted(law: CellLaw, value: partial[Array], key: Array, shape: tuple[int, int]) -> Array:
    """Draws by rejection from a table."""

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, draws, missing = state
        luck = RUNTIME.uniform(RUNTIME.fold(key, turn), (shape[0], shape[1] + 3), law.bound)
        unit, height = propose(RUNTIME, law, luck)
        accepted = height < value(unit)
        return turn + 1, jnp.where((missing & accepted)[:, None], unit, draws), missing & ~accepted

    start = (jnp.zeros((), int), jnp.full(shape, jnp.nan, law.bound.dtype), jnp.ones(shape[0], bool))
    return jax.lax.while_loop(lambda state: state[2].any() & (state[0] < MAX_ROUNDS), again, start)[1]
