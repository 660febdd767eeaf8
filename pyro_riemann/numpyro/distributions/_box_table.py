"""Uniform laws in one and two dimensions: a table of cells, then rejection."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp

from pyro_riemann._formulas import refinement
from pyro_riemann.numpyro.distributions._box import (
    SamplerReport,
    VolumeRule,
    check_element,
    log_element,
)
from pyro_riemann.numpyro.distributions._memo import is_known
from pyro_riemann.numpyro.metrics import RiemannianMetric

_ORDER = 3  # Gauss-Legendre points an axis and cell
_FINEST = {1: 8192, 2: 256}  # cells an axis
_COARSEST = {1: 64, 2: 32}
_WHILE_TRACING = {1: 1024, 2: 64}
_TOLERANCE = 1e-5  # refinement stops when the log volume moves by less
_MAX_ROUNDS = 1000


class CellTable(NamedTuple):
    """Quadrature over cells, and rejection from a step function that bounds the density in each of them.

    The bound is the largest of the Gauss points, and a margin of 0.3 times their range, which covers what a smooth
    function can do between the outermost Gauss point and the edge of the cell.

    Attributes:
        rule: the quadrature.
        log_volume: its value.
        bound: log of the step function, ``(cells ** d)``.
        rows: cumulative probability of each row of the table, ``(r)``.
        columns: the same within each row, ``(r, c)``.
        efficiency: acceptance rate.
    """

    rule: VolumeRule
    log_volume: Array
    bound: Array
    rows: Array
    columns: Array
    efficiency: Array

    @property
    def report(self) -> SamplerReport:
        """How well the table works."""
        one = jnp.ones_like(self.efficiency)
        return SamplerReport("table", self.efficiency, one, one.astype(int))


def build_table(metric: RiemannianMetric, low: Array, high: Array, finest: float = 1.0) -> tuple[CellTable, int, float]:
    """A table refined until the volume stands, of one resolution where values are not known.

    Args:
        metric: the metric.
        low: lower corner ``(d)``, d at most 2.
        high: upper corner ``(d)``.
        finest: width of the finest detail known beforehand, in widths of the box; cells start no wider.

    Returns:
        The table, its cells an axis, and by how much the last refinement changed the log volume.

    Raises:
        ValueError: if the metric is not finite in the box.
    """
    dim = metric.dim
    if not is_known(metric, low, high):
        coarse, _, _ = _tabulate(metric, low, high, cells=_WHILE_TRACING[dim] // 2)
        value, rule, bound = _tabulate(metric, low, high, cells=_WHILE_TRACING[dim])
        rule = rule._replace(standard_error=jnp.abs(value - coarse))
        return _finish(low, high, value, rule, bound), _WHILE_TRACING[dim], math.inf
    cells = _COARSEST[dim]
    while cells < _FINEST[dim] and 1 / cells > finest:
        cells *= 2
    coarser, _, _ = _tabulate(metric, low, high, cells=cells // 2)
    value, rule, bound = _tabulate(metric, low, high, cells=cells)
    check_element(metric, low, high, rule.nodes, log_element(metric, low, high, rule.nodes))
    change = error = math.inf
    while change > _TOLERANCE and cells < _FINEST[dim]:
        cells, coarse, coarse_rule = 2 * cells, value, rule
        value, rule, bound = _tabulate(metric, low, high, cells=cells)
        change = abs(float(value - coarse))
        error, coarser = refinement.finest_error(float(coarser), float(coarse), float(value)), coarse
    # coarse nodes are as good as the change says, and moments and gradients through them cost a quarter
    kept = coarse_rule if change <= _TOLERANCE else rule
    kept = kept._replace(standard_error=jnp.asarray(error, value.dtype))
    return _finish(low, high, value, kept, bound), cells, change


@partial(jax.jit, static_argnames="cells")
def _tabulate(metric: RiemannianMetric, low: Array, high: Array, cells: int) -> tuple[Array, VolumeRule, Array]:
    """Log volume, its rule and the bound of each cell."""
    dim, dtype = metric.dim, low.dtype
    points, weights = np.polynomial.legendre.leggauss(_ORDER)
    corner = _product(jnp.arange(cells, dtype=dtype), dim)[:, None]
    offset = _product(jnp.asarray((points + 1) / 2, dtype), dim)
    log_weight = _product(jnp.asarray(np.log(weights / 2), dtype), dim).sum(-1)
    nodes = ((corner + offset) / cells).reshape(-1, dim)
    log_base = jnp.tile(log_weight - dim * math.log(cells), cells**dim)
    element = log_element(metric, low, high, nodes)
    by_cell = element.reshape(cells**dim, -1)
    highest, lowest = by_cell.max(-1), by_cell.min(-1)
    rule = VolumeRule(nodes, log_base, jnp.zeros((), dtype))
    return logsumexp(element + log_base), rule, highest + 0.3 * (highest - lowest) + 0.02


def _product(axis: Array, dim: int) -> Array:
    """All points of a grid with the same axis in every direction, ``(n ** d, d)``."""
    return jnp.stack(jnp.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)


@jax.jit
def _finish(low: Array, high: Array, value: Array, rule: VolumeRule, bound: Array) -> CellTable:
    dim = low.shape[0]
    cells = round(len(bound) ** (1 / dim))
    columns = cells if dim == 2 else 32
    # in two steps, row and column: one cumulative sum over all cells has too few digits in float32
    mass = jnp.exp(bound - bound.max()).reshape(-1, columns)
    total = mass.sum(1)
    accepted = jnp.exp(value - logsumexp(bound) + dim * math.log(cells))
    rows, within = total.cumsum() / total.sum(), mass.cumsum(1) / mass.sum(1, keepdims=True)
    return CellTable(rule, value, bound, rows, within, jnp.minimum(accepted, 1.0))


@partial(jax.jit, static_argnames="count")
def draw_from_table(
    table: CellTable, metric: RiemannianMetric, low: Array, high: Array, key: Array, count: int
) -> Array:
    """``(count, d)`` draws by rejection; NaN where none was accepted in a thousand rounds."""
    dim, dtype = low.shape[0], low.dtype
    cells, columns = round(len(table.bound) ** (1 / dim)), table.columns.shape[1]

    def propose(key: Array) -> tuple[Array, Array]:
        luck = jax.random.uniform(key, (count, 3 + dim), dtype)
        row = jnp.searchsorted(table.rows, luck[:, 0], side="right").clip(max=len(table.rows) - 1)
        column = (table.columns[row] <= luck[:, 1:2]).sum(-1).clip(max=columns - 1)
        cell = row * columns + column
        index = jnp.stack([cell // cells ** (dim - 1 - k) % cells for k in range(dim)], -1)
        unit = (index + luck[:, 3:]) / cells
        log_ratio = log_element(metric, low, high, unit) - table.bound[cell]
        return low + (high - low) * unit, jnp.log(luck[:, 2]) < log_ratio

    def round_(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, draws, missing = state
        proposal, accepted = propose(jax.random.fold_in(key, turn))
        return turn + 1, jnp.where((missing & accepted)[:, None], proposal, draws), missing & ~accepted

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return state[2].any() & (state[0] < _MAX_ROUNDS)

    start = (jnp.zeros((), int), jnp.full((count, dim), jnp.nan, dtype), jnp.ones(count, bool))
    return jax.lax.while_loop(unfinished, round_, start)[1]
