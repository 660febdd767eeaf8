"""All distances from one centre at once: shortest paths on a grid, refined along characteristics."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import torch
from torch import Tensor, nn

from pyro_riemann.metrics._spline_table import SplineTable

_REACH = 3  # cells between a node and the foot of its characteristic
_PATIENCE = 8  # sweeps without progress
_GAUSS = ((0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18))


class DistanceField(nn.Module):
    r"""Geodesic distances from a fixed centre to every point of a box.

    The squared distance is kept as a cubic spline, so a value and its gradient in ``z`` cost
    one table look-up. Built by :meth:`GridMetric.distance_field`. Distances are those of
    the shortest curve inside the box, and globally shortest: no start has to be guessed. At the cut
    locus, where the distance has a kink, the spline rounds it off over a cell or two.

    Attributes:
        loc: the centre, ``(d,)``; the field is not differentiable in it.
        eikonal_error: median of :math:`\bigl| |\nabla u|_{G^{-1}} - 1 \bigr|` at the centres of the cells.
        num_sweeps: sweeps that the refinement took.
    """

    loc: Tensor
    eikonal_error: Tensor

    def __init__(
        self, metric: Any, loc: Tensor, resolution: tuple[int, ...], max_sweeps: int, tolerance: float
    ) -> None:
        super().__init__()
        self.dim = metric.dim
        low, high = metric.table.low, metric.table.high
        with torch.no_grad():
            builder = _Builder(metric, loc.double(), low.double(), high.double(), resolution)
            distance, self.num_sweeps = builder.refine(builder.shortest_paths(), max_sweeps, tolerance)
            table = SplineTable(distance.square().reshape(*resolution, 1), low.double(), high.double())
            error = builder.eikonal_error(table)
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("eikonal_error", error.to(loc))
        self.table = table.to(loc)

    def squared_dist(self, z: Tensor) -> Tensor:
        """Squared distance to the centre, ``(*batch, d) -> (*batch)``; points outside the box are moved to its face."""
        return (self.table(z)[..., 0] - self.table(self.loc.to(z))[..., 0]).clamp(min=0)

    def dist(self, z: Tensor) -> Tensor:
        """Distance to the centre, ``(*batch)``; gradient 0 at the centre."""
        squared = self.squared_dist(z)
        positive = squared > 0
        return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)

    def forward(self, z: Tensor) -> Tensor:
        """The same as :meth:`dist`."""
        return self.dist(z)

    def extra_repr(self) -> str:
        return f"loc={[round(x, 4) for x in self.loc.tolist()]}, eikonal_error={self.eikonal_error.item():.1e}"


class _Builder:
    """The distances at the nodes of a regular grid, in double precision."""

    def __init__(self, metric: Any, loc: Tensor, low: Tensor, high: Tensor, resolution: tuple[int, ...]) -> None:
        self.metric, self.loc, self.low, self.high, self.resolution = metric, loc, low, high, resolution
        self.dim = len(resolution)
        sizes = torch.tensor(resolution, device=low.device)
        self.step = (high - low) / (sizes - 1)
        axes = [torch.arange(n, device=low.device) for n in resolution]
        self.index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, self.dim)
        self.nodes = torch.minimum(low + self.index * self.step, high)
        self.near = (((self.nodes - loc) / self.step).abs() <= _REACH).all(-1)
        # Primitive directions only: a multiple of a shorter one is a chain of that.
        reach = range(-_REACH, _REACH + 1) if self.dim < 3 else range(-2, 3)
        directions = [o for o in itertools.product(reach, repeat=self.dim) if math.gcd(*o) == 1]
        self.offsets = torch.tensor(directions, device=low.device)
        self.strides = torch.tensor([math.prod(resolution[a + 1 :]) for a in range(self.dim)], device=low.device)
        self.sizes = sizes
        self.edges = self._edge_lengths()

    def _edge_lengths(self) -> Tensor:
        """Lengths ``(directions, nodes)`` of the edge from each node, infinite across the box's faces."""
        edges = self.nodes.new_full((len(self.offsets), len(self.nodes)), math.inf)
        for k, offset in enumerate(self.offsets):
            target = self.index + offset
            inside = ((target >= 0) & (target < self.sizes)).all(-1).nonzero().squeeze(-1)
            v = (offset * self.step).expand(len(inside), self.dim)
            edges[k, inside] = self._chord(self.nodes[inside], v)
        return edges

    def _chord(self, z: Tensor, v: Tensor) -> Tensor:
        """Length of the straight line from ``z`` to ``z + v``, by three Gauss points."""
        return sum(weight * self.metric.norm(self._clip(z + t * v), v) for t, weight in _GAUSS)

    def _clip(self, z: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(z, self.low), self.high)

    def _arc(self, z: Tensor, y: Tensor) -> Tensor:
        """Length of the parabola with the geodesic's acceleration at the midpoint: exact to fourth order."""
        v = y - z
        middle = self._clip((z + y) / 2)
        bend = self.metric.christoffel(middle, v)
        # Far from a geodesic (a steep wall) the parabola means nothing: keep it near the chord.
        size = self.metric.norm(middle, bend) / self.metric.norm(middle, v).clamp(min=1e-300)
        bend = bend / size.clamp(min=1).unsqueeze(-1)
        total = torch.zeros_like(v[..., 0])
        for t, weight in _GAUSS:
            point = self._clip(z + t * v + 0.5 * t * (1 - t) * bend)
            total = total + weight * self.metric.norm(point, v + (0.5 - t) * bend)
        return total

    def shortest_paths(self) -> Tensor:
        """Distances of Dijkstra's algorithm: too long by the angles that the edges miss (below one per cent)."""
        num_nodes = len(self.nodes)
        finite = torch.isfinite(self.edges)
        sources = torch.arange(num_nodes, device=self.nodes.device).expand_as(finite)[finite]
        jump = (self.offsets * self.strides).sum(-1, keepdim=True).expand_as(finite)
        targets = sources + jump[finite]
        around = self.near.nonzero().squeeze(-1)
        first = self._arc(self.loc.expand(len(around), self.dim), self.nodes[around])
        rows = torch.cat([sources, torch.full_like(around, num_nodes)]).cpu().numpy()
        columns = torch.cat([targets, around]).cpu().numpy()
        # A node at the centre has length 0, which a sparse matrix would take for no edge.
        lengths = torch.cat([self.edges[finite], first.clamp(min=1e-300)]).cpu().numpy()
        graph = scipy.sparse.csr_array((lengths, (rows, columns)), shape=(num_nodes + 1, num_nodes + 1))
        found = scipy.sparse.csgraph.dijkstra(graph, indices=num_nodes)[:-1]
        return torch.as_tensor(np.asarray(found)).to(self.nodes)

    def refine(self, distance: Tensor, max_sweeps: int, tolerance: float) -> tuple[Tensor, int]:
        """Replace each value by u(p) + |p, x|, p a few cells up the characteristic through x, until nothing moves.

        Correct values spread from the centre by a few cells a sweep. Two candidates for p: a step along
        the best edge of the graph (right also at the cut locus, where the spline's gradient is not), and the last p,
        moved so that the geodesic that leaves it along grad u meets x. Nodes at the cut locus or along a
        wall may swap sides for ever: it ends once 99 % rest, or their share has stopped growing.
        """
        distance = distance.clone()
        table = SplineTable(distance.square().reshape(*self.resolution, 1), self.low, self.high)
        far = (~self.near).nonzero().squeeze(-1)
        foot = torch.full_like(self.nodes[far], math.nan)
        sweep, limit, fewest, waited = 0, tolerance * distance.max(), math.inf, 0
        while sweep < max_sweeps:
            sweep += 1
            value, foot = self._update(table, distance, far, foot)
            moving = ((value - distance[far]).abs() > limit).double().mean().item()
            distance[far] = value
            table.refill(distance.square().reshape(*self.resolution, 1))
            waited = 0 if moving < fewest else waited + 1
            fewest = min(moving, fewest)
            if moving <= 0.01 or waited >= _PATIENCE:
                break
        return distance, sweep

    def _update(self, table: SplineTable, distance: Tensor, active: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """New values of the ``active`` nodes, and the feet of their characteristics."""
        nodes = self.nodes[active]
        jump = (self.offsets * self.strides).sum(-1, keepdim=True)
        edges = self.edges[:, active]  # infinite where the neighbour, clamped here, does not exist
        best, choice = (distance[(active + jump).clamp(0, len(distance) - 1)] + edges).min(0)
        direction = self.offsets[choice].to(nodes)
        cells = ((nodes - self.loc) / self.step).abs().amax(-1, keepdim=True)
        reach = (0.6 * cells).clamp(max=_REACH) / direction.abs().amax(-1, keepdim=True)  # not across the centre
        start = self._clip(nodes + reach * direction * self.step)
        last = torch.where(torch.isnan(last), start, last)
        feet = torch.stack([start, self._correct(table, last, nodes)])
        lengths = self._arc(feet, nodes.expand_as(feet))
        first, second = self._value(table, feet)[0] + lengths
        lost = second > first + 0.2 * lengths[0]  # the correction ran away: start again
        foot = torch.where(lost.unsqueeze(-1), feet[0], feet[1])
        return torch.minimum(best, torch.minimum(first, second)), foot

    def _value(self, table: SplineTable, z: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and its gradient, from the spline of its square (the distance itself has a cone at the centre)."""
        squared, slope = table.with_jacobian(z)
        value = squared[..., 0].clamp(min=1e-300).sqrt()
        return value, slope[..., 0, :] / (2 * value.unsqueeze(-1))

    def _correct(self, table: SplineTable, foot: Tensor, nodes: Tensor) -> Tensor:
        """Move the foot by the miss of the geodesic that leaves it along the gradient."""
        value, slope = self._value(table, foot)
        velocity = torch.linalg.solve(self.metric.metric(foot), slope)
        unit = velocity / self.metric.norm(foot, velocity).clamp(min=1e-30).unsqueeze(-1)
        length = self._chord(foot, nodes - foot).unsqueeze(-1)
        v = unit * length
        miss = nodes - (foot + v - 0.5 * self.metric.christoffel(foot, v))
        # Only sideways, or feet creep along their rays. Rays diverge from the centre: moved sideways at
        # distance u, a ray's end moves (u + s) / u as far.
        miss = miss - self.metric.inner(foot, unit, miss).unsqueeze(-1) * unit
        miss = miss * (value.unsqueeze(-1) / (value.unsqueeze(-1) + length))
        cells = (miss / self.step).abs().amax(-1, keepdim=True)
        return self._clip(foot + miss / cells.clamp(min=1))  # one cell at most

    def eikonal_error(self, table: SplineTable) -> Tensor:
        """Median violation of |grad u| = 1 at the centres of the cells away from the loc."""
        inner = (self.index < self.sizes - 1).all(-1) & ~self.near
        points = self.nodes[inner] + 0.5 * self.step
        _, slope = self._value(table, points)
        squared = (slope * torch.linalg.solve(self.metric.metric(points), slope)).sum(-1)
        return (squared.sqrt() - 1).abs().median()
