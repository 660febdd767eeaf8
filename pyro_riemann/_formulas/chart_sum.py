r"""Integrals of radial densities over a plane chart, by the midpoint rule on a box; on the host, in doubles.

On a decoder with walls geodesics focus, and rays are at a loss: a few of them have all the mass. In one and two
dimensions the chart itself can be summed over, with all distances from one centre solved at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyro_riemann import _work
from pyro_riemann._formulas import Array, table
from pyro_riemann._formulas.chart_draws import Verdict
from pyro_riemann._formulas.ray_rule import SETTLED
from pyro_riemann._formulas.runtime import HOST, Runtime
from pyro_riemann._formulas.unit_cells import chosen

Vector: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[Vector, Vector]

# nodes an axis of table and distances: the next ones are taken until the value settles
_RESOLUTIONS = {1: (200, 400, 800), 2: (60, 120, 180, 256)}
_TOLERANCE = 1e-6  # at which distances stop moving, relative: what they are off by then no difference shows
_FAR = 30.0  # negative log of the density, relative to the centre's, from which on distances may be a little long
_SHARE = 1e-3  # of the mass, beyond the box on one axis, above which it is enlarged
_GROWTH = 0.5  # by that share of its width
_ENLARGEMENTS = 5
_TAIL = 5e-4  # share of the mass on either side that may lie outside the first box
_SPREAD = 512  # points that stand for all cells
_NO_MASS = 1e-9  # of the mass, in a cell
_ROWS = 1 << 14  # draws at once


class Chart(NamedTuple):
    """A metric of either face as a sum over its chart asks it: arrays of NumPy in, arrays of NumPy out.

    Attributes:
        metric: nothing of it may be traced.
        to_face: an array of NumPy as one of the face.
        to_host: the way back, in doubles.
    """

    metric: Any
    to_face: Callable[[Vector], Array]
    to_host: Callable[[Array], Vector]

    @property
    def box(self) -> Box | None:
        """Corners ``(d,)`` if it is a table."""
        found = self.metric.tabulated()
        return None if found is None else (self.to_host(found.table.low), self.to_host(found.table.high))

    @property
    def ends(self) -> bool:
        """Whether nothing is known beyond the box."""
        found = self.metric.tabulated()
        return found is not None and found.base is None

    def on(self, low: Vector, high: Vector, resolution: int) -> Chart:
        """Its table on a box: itself if it is that."""
        if self.box is not None and np.array_equal(self.box, (low, high)):
            return self
        return self._replace(metric=self.metric.tabulate(self.to_face(low), self.to_face(high), resolution))

    def tensor(self, z: Vector) -> Vector:
        """G, ``(*batch, d, d)``."""
        return self.to_host(self.metric.metric(self.to_face(z)))

    def log_volume(self, z: Vector) -> Vector:
        r""":math:`\frac12 \log\det G`, ``(*batch)``."""
        return 0.5 * self.to_host(self.metric.logdet(self.to_face(z)))

    def squared_dist(self, loc: Vector, z: Vector, resolution: int, horizon: float) -> Vector:
        """Of a table: from ``loc`` to points ``(n, d)``, by a field of distances; the shortest, ``(n,)``."""
        field = self.metric.distance_field(self.to_face(loc), resolution, tolerance=_TOLERANCE, horizon=horizon)
        return self.to_host(field.squared_dist(self.to_face(z)))


class Cells(NamedTuple):
    """Where the mass of a law in the plane lies, in equal cells of a box.

    Attributes:
        low: corner ``(2,)``.
        width: of a cell, ``(2,)``.
        rows: share of the mass up to the end of every row of cells, ``(n,)``.
        columns: of the mass of its row, up to the end of every cell, ``(n, n)``, in single precision.
        mean_squared: mean of the squared distance from the centre.
    """

    low: Vector
    width: Vector
    rows: Vector
    columns: NDArray[np.float32]
    mean_squared: float

    def nodes(self) -> tuple[Vector, Vector]:
        """Middles ``(n, 2)`` of the cells that have mass, and their shares of it ``(n,)``."""
        share = np.diff(self.rows, prepend=0.0)[:, None] * np.diff(self.columns, prepend=0.0)
        index = np.argwhere(share > _NO_MASS)
        weights = share[tuple(index.T)]
        return self.low + (index + 0.5) * self.width, weights / weights.sum()

    def place(self, runtime: Runtime, luck: Array) -> Array:
        """Draws ``(n, 2)`` of the law from uniform numbers ``(n, 4)``: a row, a column, a place in the cell."""
        xp = runtime.xp
        low, width, rows, columns = (table(xp, part, luck) for part in self[:4])

        def piece(luck: Array) -> Array:
            return low + (xp.stack(chosen(xp, rows, columns, luck), -1) + luck[:, 2:]) * width

        return runtime.in_pieces(piece, _ROWS, luck)

    def spread(self) -> Vector:
        """Points of equal weight ``(n, 2)`` that stand for the law: the same number of them in equal shares of it."""
        at = (np.arange(_SPREAD) + 0.5) / _SPREAD
        row = self.rows.searchsorted(at)
        before = np.append(0.0, self.rows)[row]
        return self.place(
            HOST, np.stack([at, (at - before) / (self.rows[row] - before), 0 * at + 0.5, 0 * at + 0.5], -1)
        )


class ChartSum(NamedTuple):
    """An integral over a chart.

    Attributes:
        value: its log, relative to flat space.
        error: of that.
        cells: where the mass lies; None in one dimension.
    """

    value: float
    error: float
    cells: Cells | None

    def verdict(self) -> Verdict:
        """Value and error, to be held against those of rays."""
        return Verdict(self.value, self.error, math.inf)


def summed(chart: Chart, loc: Vector, variance: float, low: Vector, high: Vector, beyond: float) -> ChartSum:
    """A sum over the chart, on a box that holds the mass but for a share ``beyond``.

    Args:
        chart: of a metric of dimension 2.
        loc: the centre, ``(d,)``.
        variance: t.
        low: corner ``(d,)``, as :func:`box_of_rays` gives it.
        high: likewise.
        beyond: likewise.
    """
    found = log_chart_integral(chart, loc, variance, (low, high))
    return found._replace(error=found.error + beyond)


def box_of_rays(chart: Chart, points: Vector, weights: Vector) -> tuple[Vector, Vector, float]:
    """A box ``(d,)`` that holds the mass on rays, that of a table if it does; and the share beyond.

    Args:
        chart: of the metric.
        points: nodes on the rays, which end nowhere, ``(n, d)``.
        weights: their shares of the mass, ``(n,)``.
    """
    points, weights = points[weights > 0], weights[weights > 0]

    def beyond(low: Vector, high: Vector) -> float:
        return float(weights[((points < low) | (points > high)).any(-1)].sum())

    low, high = points.min(0), points.max(0)
    for axis in range(points.shape[1]):
        order = points[:, axis].argsort()
        below = weights[order].cumsum()
        inner = points[order, axis][(below > _TAIL) & (below[-1] - below + weights[order] > _TAIL)]
        low[axis], high[axis] = inner.min(), inner.max()
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    if chart.box is not None:
        if (share := beyond(*chart.box)) < SETTLED or chart.ends:
            return *chart.box, share
        low, high = np.minimum(low, chart.box[0]), np.maximum(high, chart.box[1])
    return low, high, beyond(low, high)


def log_chart_integral(chart: Chart, loc: Vector, variance: float, box: Box | None = None) -> ChartSum:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int e^{-\ell^2(\mu, z) / 2t}\,dM`, d <= 2, and its error.

    Distances are those of the shortest curves, whatever settings the metric has for its own.

    Args:
        chart: of a metric of dimension 1 or 2.
        loc: the centre, ``(d,)``.
        variance: t.
        box: corners ``(d,)`` of a box around the centre that is thought to hold the mass, and is enlarged where it does
            not. Default: that of a table, else six standard deviations of a flat metric.

    Returns:
        The value; its error is the difference to coarser cells, distances and, unless the metric is itself a table of
        that box, a coarser table, since behind steep walls these settle last; the tolerance of the distances; and what
        lies beyond the box.
    """
    if (box := box or chart.box) is None:
        half = 6 * np.sqrt(variance * np.linalg.inv(chart.tensor(loc)).diagonal())
        box = loc - half, loc + half
    low, high = box
    best = ChartSum(math.nan, math.inf, None)
    for _ in range(_ENLARGEMENTS):
        found, beyond = _settled(chart, loc, variance, low, high)
        error = found.error + float(beyond.sum())
        if best.error < error:  # cells that are too large
            break
        best = found._replace(error=error)
        if not (beyond > _SHARE).any() or chart.ends:
            break
        more = np.where(beyond > _SHARE, 0.5 * _GROWTH * (high - low), 0.0)
        low, high = low - more, high + more
    return best


def _settled(chart: Chart, loc: Vector, variance: float, low: Vector, high: Vector) -> tuple[ChartSum, Vector]:
    """The integral over the box, and what lies beyond on each axis, ``(d,)``, relative."""
    first, *finer = _RESOLUTIONS[len(loc)]
    fine, beyond = _midpoint(chart, loc, variance, low, high, first)
    for resolution in _work.turns("refinements of the sum over the chart", finer):
        coarse, (fine, beyond) = fine, _midpoint(chart, loc, variance, low, high, resolution)
        # the mean of l^2 / t is the dimension; half: anywhere within the tolerance
        fine = fine._replace(error=math.hypot(fine.value - coarse.value, 0.5 * len(loc) * _TOLERANCE))
        if fine.error < SETTLED:
            break
    return fine, beyond


def _midpoint(
    chart: Chart, loc: Vector, variance: float, low: Vector, high: Vector, resolution: int
) -> tuple[ChartSum, Vector]:
    """The sum over ``(2 resolution) ** d`` cells, without an error, and what lies beyond them."""
    # a table of its own for each: a difference does not show the error of a table that both were read from
    tabled = chart.on(low, high, resolution)
    count, dim = 2 * resolution, len(loc)
    steps = (np.arange(count) + 0.5) / count
    axes = [a + steps * (b - a) for a, b in zip(low, high, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
    log_volume = tabled.log_volume(nodes)
    reach = _FAR + max(0.0, float(log_volume.max() - tabled.log_volume(loc)))
    squared = tabled.squared_dist(loc, nodes, resolution, math.sqrt(2 * variance * reach))
    width = (high - low) / count
    log_mass = log_volume - 0.5 * squared / variance
    total = float(HOST.logsumexp(log_mass, 0))
    share = np.exp(log_mass - total)
    value = total + float(np.log(width).sum()) - 0.5 * dim * math.log(2 * math.pi * variance)
    by_row = share.reshape((count,) * dim)
    cells = _cells(low, width, by_row, float(share[share > 0] @ squared[share > 0])) if dim == 2 else None
    return ChartSum(value, math.inf, cells), _beyond(by_row)


def _cells(low: Vector, width: Vector, share: Vector, mean_squared: float) -> Cells:
    """Of shares ``(n, n)`` of the mass."""
    rows, columns = share.sum(1).cumsum(), share.cumsum(1)
    whole = columns[:, -1:]
    part = columns / np.where(whole > 0, whole, 1.0)
    return Cells(low, width, rows / rows[-1], part.astype(np.float32), mean_squared)


def _beyond(mass: Vector) -> Vector:
    """What the cells of a box leave out on each axis, ``(d,)``, relative to their own ``mass``.

    Towards every wall the last two layers of cells go on as a geometric series, of at most as many terms as there are
    cells.
    """
    count, total = mass.shape[0], np.zeros(mass.ndim)
    for axis in range(mass.ndim):
        for last, before in ((0, 1), (-1, -2)):
            outer, inner = mass.take(last, axis).sum(), mass.take(before, axis).sum()
            if outer > 0:
                total[axis] += outer / max((inner - outer) / outer, 1 / count)
    return total
