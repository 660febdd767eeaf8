"""Tables of cells in one and two dimensions: quadrature, and rejection from a step function."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pyro_riemann._formulas import Array, Namespace, table
from pyro_riemann._formulas.runtime import Runtime
from pyro_riemann._formulas.unit_laws import CellLaw, Rule

FINEST = {1: 8192, 2: 256}  # cells an axis
_COARSEST = {1: 64, 2: 32}
_ORDER = 3  # Gauss-Legendre points an axis and cell
_TOLERANCE = 1e-5  # refinement stops when the log volume moves by less
MAX_ROUNDS = 1000  # of rejection


def tabulate(runtime: Runtime, value: Callable[[Array], Array], cells: int, like: Array) -> CellLaw:
    """The table of so many cells an axis; ``like`` is a point ``(d)``.

    The bound of a cell is the largest of its Gauss points, and a margin of 0.3 times their range, which covers what a
    smooth function can do between the outermost Gauss point and the edge of the cell.
    """
    xp, dim = runtime.xp, like.shape[0]
    points, weights = np.polynomial.legendre.leggauss(_ORDER)

    def grid(axis: Array) -> Array:
        """All points with the same axis in every direction, ``(n ** d, d)``."""
        return xp.stack(xp.meshgrid(*[table(xp, axis, like)] * dim, indexing="ij"), -1).reshape(-1, dim)

    nodes = ((grid(np.arange(cells))[:, None] + grid((points + 1) / 2)) / cells).reshape(-1, dim)
    by_cell = value(nodes).reshape(cells**dim, -1)
    highest = xp.amax(by_cell, -1)
    bound = highest + 0.3 * (highest - xp.amin(by_cell, -1)) + 0.02
    mass = (by_cell + grid(np.log(weights / 2)).sum(-1) - dim * math.log(cells)).reshape(-1)
    log_volume = runtime.logsumexp(mass, 0)
    rule = Rule(log_volume, math.inf + 0 * log_volume, nodes, mass - log_volume)
    accepted = xp.exp(log_volume - runtime.logsumexp(bound, 0) + dim * math.log(cells))
    # in two steps, row and column: one cumulative sum over all cells has too few digits in float32
    share = xp.exp(bound - xp.amax(bound)).reshape(-1, cells if dim == 2 else 32)
    total, one = share.sum(1), xp.ones_like(log_volume)
    rows, columns = total.cumsum(0) / total.sum(), share.cumsum(1) / total[:, None]
    return CellLaw(rule, xp.clip(accepted, None, 1), one, one, bound, rows, columns)


def refined(tabulated: Callable[[int], CellLaw], dim: int, finest: float) -> tuple[CellLaw, int, float]:
    """The table with which the volume stands.

    Args:
        tabulated: the table of so many cells an axis.
        dim: d, at most 2.
        finest: width of the finest detail known beforehand, in widths of the box; cells start no wider.

    Returns:
        The table, its cells an axis, and its error or by how much the last refinement changed the log volume,
        whichever is larger.
    """
    cells = _COARSEST[dim]
    while cells < FINEST[dim] and 1 / cells > finest:
        cells *= 2
    coarser, law = float(tabulated(cells // 2).rule.log_volume), tabulated(cells)
    change = error = math.inf
    while change > _TOLERANCE and cells < FINEST[dim]:
        cells, coarse = 2 * cells, law
        law = tabulated(cells)
        values = coarser, float(coarse.rule.log_volume), float(law.rule.log_volume)
        change, error, coarser = abs(values[2] - values[1]), finest_error(*values), values[1]
    # coarse nodes are as good as the change says, and moments and gradients through them cost a quarter
    kept = coarse.rule if change <= _TOLERANCE else law.rule
    rule = kept._replace(log_volume=law.rule.log_volume, standard_error=error + 0 * law.rule.log_volume)
    return law._replace(rule=rule), cells, max(change, error)


def chosen(xp: Namespace, rows: Array, columns: Array, luck: Array) -> tuple[Array, Array]:
    """Row and column ``(n,)`` of cells, by cumulative shares of rows and within each, from uniform numbers."""
    row = xp.clip(xp.searchsorted(rows, luck[:, 0] + 0, side="right"), 0, len(rows) - 1)
    return row, xp.clip((columns[row] <= luck[:, 1:2]).sum(-1), 0, columns.shape[1] - 1)


def propose(runtime: Runtime, law: CellLaw, luck: Array) -> tuple[Array, Array]:
    """Points ``(n, d)`` from uniform numbers ``(n, d + 3)``, and the height above which each is accepted, ``(n)``."""
    xp, dim, columns = runtime.xp, luck.shape[1] - 3, law.columns.shape[1]
    cells = round(len(law.bound) ** (1 / dim))
    row, column = chosen(xp, law.rows, law.columns, luck)
    cell = row * columns + column
    index = xp.stack([cell // cells ** (dim - 1 - k) % cells for k in range(dim)], -1)
    return (index + luck[:, 3:]) / cells, xp.log(luck[:, 2]) + law.bound[cell]


_POWER = 6  # of the width of a cell in the error of three Gauss-Legendre points in each, of a smooth integrand


def finest_error(coarsest: float, middle: float, finest: float, order: int = _POWER) -> float:
    """Error of the finest of three values of a quadrature, the number of cells an axis doubling from one to the next.

    The last difference is the error of the middle one. It shrinks on by as much as it has shrunk from the first, but by
    no more than the order of the rule allows; nor is it taken for less than the first difference, shrunk twice by
    that, as the last may be small by chance.

    Example:
        >>> from pyro_riemann._formulas.unit_cells import finest_error
        >>> finest_error(64.0**2, 64.0, 1.0, order=6)  # errors that fall by 64 each time: 1 where the limit is 0
        0.984...
    """
    last, before, gain = abs(finest - middle), abs(middle - coarsest), 2.0**order
    ratio = last / before if before > 0 else 1.0
    return max(last * min(1.0, max(ratio, 1 / gain)), before / gain**2)
