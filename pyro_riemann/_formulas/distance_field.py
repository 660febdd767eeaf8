"""All distances from one centre at once: shortest paths on a grid, refined along characteristics.

On the host, in double precision, from the table of a metric (:mod:`~pyro_riemann._formulas.log_cholesky`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from pyro_riemann._formulas import Array, log_cholesky, spline_table
from pyro_riemann._formulas.shortest_paths import adjacency

_REACH = 3  # cells between a node and the foot of its characteristic
_PATIENCE = 8  # sweeps without progress
_PROGRESS = 0.98  # what moves after a sweep that made some, of what moved at best before
_RESTING = 0.1  # of the tolerance: what moves less does not move its neighbours
_AROUND = _REACH + 2  # cells within which a value hangs on another: the foot's, and those of its spline
_GAUSS = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))


class DistanceTable(NamedTuple):
    """Squared distances at the nodes ``(*resolution, 1)``, the median violation of the eikonal equation, and sweeps."""

    squared: Array
    eikonal_error: float
    num_sweeps: int


def distance_table(
    grid: Sequence[Array],
    loc: Array,
    resolution: tuple[int, ...],
    max_sweeps: int,
    tolerance: float,
    horizon: float = math.inf,
) -> DistanceTable:
    """Squared distances from ``loc`` under a tabulated metric; ``grid`` holds its coefficients and both corners."""
    metric = _TabulatedMetric(*(np.asarray(array, np.float64) for array in grid))
    builder = _Builder(metric, np.asarray(loc, np.float64), resolution)
    paths = builder.shortest_paths()
    within = paths <= horizon
    distance, num_sweeps = builder.refine(paths, within, max_sweeps, tolerance)
    error = builder.eikonal_error(builder.spline(distance), within)
    return DistanceTable((distance**2).reshape(*resolution, 1), error, num_sweeps)


class _TabulatedMetric:
    """The metric of a table, for points in its box."""

    def __init__(self, coefficients: Array, low: Array, high: Array) -> None:
        self.coefficients, self.low, self.high = coefficients, low, high

    def metric(self, z: Array) -> Array:
        (fields,) = spline_table.look_up(np, self.coefficients, self.low, self.high, z)
        tensor: Array = log_cholesky.metric(np, fields, z.shape[-1])[0]
        return tensor

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        product: Array = ((self.metric(z) @ u[..., None])[..., 0] * v).sum(-1)
        return product

    def norm(self, z: Array, v: Array) -> Array:
        """``|v|_G = |diag(exp(a)) U^T v|``, without the tensor."""
        dim = z.shape[-1]
        (fields,) = spline_table.look_up(np, self.coefficients, self.low, self.high, z)
        rotated = [v[..., m] for m in range(dim)]
        for k, (i, j) in enumerate(log_cholesky.below_diagonal(dim), start=dim):
            rotated[j] = rotated[j] + fields[..., k] * v[..., i]
        squared = [(np.exp(fields[..., m]) * rotated[m]) ** 2 for m in range(dim)]
        length: Array = np.sqrt(np.sum(squared, axis=0))
        return length

    def christoffel(self, z: Array, v: Array) -> Array:
        fields, slope = spline_table.look_up(np, self.coefficients, self.low, self.high, z, 1)
        tensor, jacobian = log_cholesky.metric(np, fields, z.shape[-1], slope)
        twice = np.einsum("...ikj,...k->...ij", jacobian, v)  # d (G v)_i / d z_j
        force = np.einsum("...ij,...j->...i", twice, v) - 0.5 * np.einsum("...ji,...j->...i", twice, v)
        return np.asarray(np.linalg.solve(tensor, force[..., None])[..., 0])


class _Builder:
    """The distances at the nodes of a regular grid."""

    def __init__(self, metric: _TabulatedMetric, loc: Array, resolution: tuple[int, ...]) -> None:
        self.metric, self.loc, self.resolution = metric, loc, resolution
        self.low, self.high, self.dim = metric.low, metric.high, len(resolution)
        self.sizes = np.array(resolution)
        self.step = (self.high - self.low) / (self.sizes - 1)
        axes = [np.arange(n) for n in resolution]
        self.index = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dim)
        self.nodes = np.minimum(self.low + self.index * self.step, self.high)
        self.near = (np.abs((self.nodes - loc) / self.step) <= _REACH).all(-1)
        # Primitive directions only: a multiple of a shorter one is a chain of that.
        reach = range(-_REACH, _REACH + 1) if self.dim < 3 else range(-2, 3)
        self.offsets = np.array([o for o in itertools.product(reach, repeat=self.dim) if math.gcd(*o) == 1])
        strides = np.array([math.prod(resolution[a + 1 :]) for a in range(self.dim)])
        self.jumps = (self.offsets * strides).sum(-1, keepdims=True)
        self.edges = self._edge_lengths()

    def spline(self, distance: Array) -> Array:
        """Coefficients of the spline through the squares (the distance itself has a cone at the centre)."""
        return spline_table.prefilter((distance**2).reshape(*self.resolution, 1))

    def _edge_lengths(self) -> Array:
        """Lengths ``(directions, nodes)`` of the edge from each node, infinite across the box's faces."""
        edges = np.full((len(self.offsets), len(self.nodes)), np.inf)
        for k, offset in enumerate(self.offsets):
            target = self.index + offset
            inside = np.flatnonzero(((target >= 0) & (target < self.sizes)).all(-1))
            v = np.broadcast_to(offset * self.step, (len(inside), self.dim))
            edges[k, inside] = self._chord(self.nodes[inside], v)
        return edges

    def _chord(self, z: Array, v: Array) -> Array:
        """Length of the straight line from ``z`` to ``z + v``, by three Gauss points."""
        total = np.zeros(z.shape[:-1])
        for t, weight in _GAUSS:
            total += weight * self.metric.norm(self._clip(z + t * v), v)
        return total

    def _clip(self, z: Array) -> Array:
        return np.minimum(np.maximum(z, self.low), self.high)

    def _arc(self, z: Array, y: Array) -> Array:
        """Length of the parabola with the geodesic's acceleration at the midpoint: exact to fourth order."""
        v = y - z
        middle = self._clip((z + y) / 2)
        bend = self.metric.christoffel(middle, v)
        # Far from a geodesic (a steep wall) the parabola means nothing: keep it near the chord.
        size = self.metric.norm(middle, bend) / np.maximum(self.metric.norm(middle, v), 1e-300)
        bend = bend / np.maximum(size, 1)[..., None]
        total = np.zeros(v.shape[:-1])
        for t, weight in _GAUSS:
            point = self._clip(z + t * v + 0.5 * t * (1 - t) * bend)
            total += weight * self.metric.norm(point, v + (0.5 - t) * bend)
        return total

    def shortest_paths(self) -> Array:
        """Distances of Dijkstra's algorithm: too long by the angles that the edges miss (below one per cent)."""
        num_nodes = len(self.nodes)
        finite = np.isfinite(self.edges)
        sources = np.broadcast_to(np.arange(num_nodes), finite.shape)[finite]
        targets = sources + np.broadcast_to(self.jumps, finite.shape)[finite]
        around = np.flatnonzero(self.near)
        first = self._arc(np.broadcast_to(self.loc, (len(around), self.dim)), self.nodes[around])
        rows = np.concatenate([sources, np.full_like(around, num_nodes)])
        columns = np.concatenate([targets, around])
        # A node at the centre has length 0, which a sparse matrix would take for no edge.
        lengths = np.concatenate([self.edges[finite], np.maximum(first, 1e-300)])
        graph = adjacency(rows, columns, lengths, num_nodes + 1)
        return np.asarray(scipy.sparse.csgraph.dijkstra(graph, indices=num_nodes)[:-1])

    def refine(self, distance: Array, within: Array, max_sweeps: int, tolerance: float) -> tuple[Array, int]:
        """Replace each value by u(p) + |p, x|, p a few cells up the characteristic through x, until nothing moves.

        Correct values spread from the centre by a few cells a sweep; a sweep takes the nodes around those that moved in
        the last one, of those ``within`` alone. Two candidates for p: a step along
        the best edge of the graph (right also at the cut locus, where the spline's gradient is not), and the last p,
        moved so that the geodesic that leaves it along grad u meets x. Nodes at the cut locus or along a
        wall may swap sides for ever: it ends once 99 % rest, or their share has stopped growing.
        """
        distance = distance.copy()
        spline = self.spline(distance)
        refined = within & ~self.near
        active = np.flatnonzero(refined)
        count, foot = len(active), np.full_like(self.nodes, np.nan)
        sweep, limit, fewest, waited = 0, tolerance * distance[within].max(), math.inf, 0
        while sweep < max_sweeps and len(active):
            sweep += 1
            value, foot[active] = self._update(spline, distance, active, foot[active])
            change = np.abs(value - distance[active])
            distance[active] = value
            spline = self.spline(distance)
            moving = (change > limit).sum() / count
            waited = 0 if moving < _PROGRESS * fewest else waited + 1
            fewest = min(moving, fewest)
            if moving <= 0.01 or waited >= _PATIENCE:
                break
            moved = np.zeros(self.resolution, bool)
            moved.flat[active[change > _RESTING * limit]] = True
            around = scipy.ndimage.maximum_filter(moved, 2 * _AROUND + 1)
            active = np.flatnonzero(around.ravel() & refined)
        return distance, sweep

    def _update(self, spline: Array, distance: Array, active: Array, last: Array) -> tuple[Array, Array]:
        """New values of the ``active`` nodes, and the feet of their characteristics."""
        nodes = self.nodes[active]
        edges = self.edges[:, active]  # infinite where the neighbour, clamped here, does not exist
        candidates = distance[np.clip(active + self.jumps, 0, len(distance) - 1)] + edges
        choice = candidates.argmin(0)
        best = np.take_along_axis(candidates, choice[None], 0)[0]
        direction = self.offsets[choice].astype(np.float64)
        cells = np.abs((nodes - self.loc) / self.step).max(-1, keepdims=True)
        reach = np.minimum(0.6 * cells, _REACH) / np.abs(direction).max(-1, keepdims=True)  # not across the centre
        start = self._clip(nodes + reach * direction * self.step)
        last = np.where(np.isnan(last), start, last)
        feet = np.stack([start, self._correct(spline, last, nodes)])
        lengths = self._arc(feet, np.broadcast_to(nodes, feet.shape))
        first, second = self._value(spline, feet)[0] + lengths
        lost = second > first + 0.2 * lengths[0]  # the correction ran away: start again
        foot = np.where(lost[..., None], feet[0], feet[1])
        return np.minimum(best, np.minimum(first, second)), foot

    def _value(self, spline: Array, z: Array) -> tuple[Array, Array]:
        """Distance and its gradient, from the spline of its square."""
        squared, slope = spline_table.look_up(np, spline, self.low, self.high, z, 1)
        value = np.sqrt(np.maximum(squared[..., 0], 1e-300))
        return value, slope[..., 0, :] / (2 * value[..., None])

    def _correct(self, spline: Array, foot: Array, nodes: Array) -> Array:
        """Move the foot by the miss of the geodesic that leaves it along the gradient."""
        value, slope = self._value(spline, foot)
        velocity = np.linalg.solve(self.metric.metric(foot), slope[..., None])[..., 0]
        unit = velocity / np.maximum(self.metric.norm(foot, velocity), 1e-30)[..., None]
        length = self._chord(foot, nodes - foot)[..., None]
        v = unit * length
        miss = nodes - (foot + v - 0.5 * self.metric.christoffel(foot, v))
        # Only sideways, or feet creep along their rays. Rays diverge from the centre: moved sideways at
        # distance u, a ray's end moves (u + s) / u as far.
        miss = miss - self.metric.inner(foot, unit, miss)[..., None] * unit
        miss = miss * (value[..., None] / (value[..., None] + length))
        cells = np.abs(miss / self.step).max(-1, keepdims=True)
        return self._clip(foot + miss / np.maximum(cells, 1))  # one cell at most

    def eikonal_error(self, spline: Array, within: Array) -> float:
        """Median violation of |grad u| = 1 at the centres of the cells away from the loc, ``within`` alone."""
        inner = (self.index < self.sizes - 1).all(-1) & within & ~self.near
        points = self.nodes[inner] + 0.5 * self.step
        _, slope = self._value(spline, points)
        squared = (slope * np.linalg.solve(self.metric.metric(points), slope[..., None])[..., 0]).sum(-1)
        return float(np.median(np.abs(np.sqrt(squared) - 1)))
