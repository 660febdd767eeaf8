"""The search for the curves of least energy: where it starts, on what it runs, and as many at a time as fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_riemann._formulas import memory
from pyro_riemann._formulas.quasi_newton import bend
from pyro_riemann._formulas.solver_settings import SolverSettings
from pyro_riemann._interface import Energy, Immersed, Metric, Solver
from pyro_riemann._memory import in_pieces
from pyro_riemann.geodesics import _graph, _spline
from pyro_riemann.geodesics._batch import Solution
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.geodesics._newton import descend, polish
from pyro_riemann.geodesics._quasi_newton import quasi_newton

_GENERIC = (0.0, 0.3571, 0.7919, 1.0)  # times on a line that no symmetry of it exchanges


class Search(SolverSettings[Metric, Tensor]):
    """What :class:`GeodesicSolver`, whose settings it has, does before anything is checked."""

    @torch.no_grad()
    def control_points(self, metric: Metric, z: Tensor, y: Tensor) -> Solution:
        """Control points ``(P, num_knots + 3, d)`` of the geodesics between two lists of points, without gradient.

        Args:
            metric: any metric.
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.

        Returns:
            Control points, convergence ``(P,)`` and iterations ``(P,)``.
        """
        energy, line = self.energy(metric), _spline.line(self.num_knots, z, y)
        if self.init == "line" or torch.jit.is_tracing() or z.shape[0] == 0:
            return self._in_chunks(metric, self._minimise, energy, line)
        if metric.dim > _graph.MAX_GRID_DIM:
            path = _graph.neighbour_curves(metric, z, y, self.num_knots)
            return self._best(
                metric, energy, [self._in_chunks(metric, self._minimise, energy, start) for start in (path, line)]
            )
        return self._on_grid(metric, energy, z, y, line)

    def _on_grid(self, metric: Metric, energy: Energy, z: Tensor, y: Tensor, line: Tensor) -> Solution:
        """Search on a table of the metric, where a shortest path and many iterations cost little; then polish."""
        table = _graph.table_around(metric, z, y, self.graph_resolution)
        if table is None:
            return self._in_chunks(metric, self._minimise, energy, line)
        rough = self.energy(table)
        path = _graph.grid_curves(table, z, y, self.num_knots, self.graph_resolution)
        if table is metric:
            return self._minimise(rough, path)
        found = self._best(table, rough, [self._minimise(rough, start) for start in (path, line)])

        def finish(energy: Energy, control: Tensor) -> Solution:
            done = polish(energy, control, self.max_polish, self.tolerance, rough.exact_system(control))
            failed = (~done.converged).nonzero().squeeze(-1)
            if failed.numel() == 0:
                return done
            again = self._minimise(energy, done.control[failed])  # the table was too coarse here
            return Solution(*(old.index_put((failed,), new) for old, new in zip(done, again, strict=True)))

        return self._in_chunks(metric, finish, energy, found.control)

    def _in_chunks(
        self, metric: Metric, method: Callable[[Energy, Tensor], Solution], energy: Energy, start: Tensor
    ) -> Solution:
        """Apply ``method`` to as many curves at a time as memory allows."""
        if torch.jit.is_tracing() or start.shape[0] == 0:
            return method(energy, start)
        parts = [method(energy, chunk) for chunk in start.split(self.room(metric, start))]
        return Solution(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def room(self, metric: Metric, start: Tensor, segments: int | None = None, order: int = 0) -> int:
        """Number of curves in work at a time.

        Args:
            metric: any metric.
            start: control points of all of them, ``(P, num_knots + 3, d)``.
            segments: of their energy, if not those of the settings.
            order: -1 where images alone are held at the nodes of an immersed curve, 0 for their Jacobians.
        """
        # what metrics that are not immersed hold at a node is bounded by themselves
        point = 4 * metric.dim**3 if metric.immersed() is None else metric.footprint(order)
        numbers = memory.curves(point, metric.dim, self.num_knots, (segments or self.num_segments) + 1)
        return memory.room(metric.max_memory, numbers, start.element_size())

    def _values(self, metric: Metric, energy: Energy, control: Tensor) -> Tensor:
        """Energies of curves, as many at a time as memory allows."""

        def of(part: slice) -> Tensor:
            return energy.rows(rows[part]).value(control[part])

        rows = torch.arange(len(control), device=control.device)
        value: Tensor = in_pieces(of, len(control), self.room(metric, control, energy.num_segments, order=-1))
        return value

    def _best(self, metric: Metric, energy: Energy, solutions: list[Solution]) -> Solution:
        """Curve by curve, the one of least energy."""
        best = solutions[0]
        for other in solutions[1:]:
            shorter = self._values(metric, energy, other.control) < self._values(metric, energy, best.control)
            best = Solution(*(torch.where(_like(shorter, new), new, old) for new, old in zip(other, best, strict=True)))
        return best

    def _minimise(self, energy: Energy, start: Tensor) -> Solution:
        iterations, polishing = self.max_iterations, self.max_polish
        if torch.jit.is_tracing():  # every curve runs them all
            iterations, polishing = min(iterations, 12), min(polishing, 3)
        if polishing == 0:
            return descend(energy, start, iterations, self.tolerance, self.constant_hessian)
        if energy.frugal and not self.constant_hessian and not torch.jit.is_tracing():
            return quasi_newton(energy, _bent(start), iterations + polishing, self.tolerance)
        # the tangential Hessian converges linearly near the end: hand over early to the full one
        rough = descend(energy, start, iterations, max(self.tolerance, 1e-2), self.constant_hessian)
        fine = polish(energy, rough.control, polishing, self.tolerance)
        return fine._replace(iterations=rough.iterations + fine.iterations)


def _bent(control: Tensor) -> Tensor:
    way = (control[:, -1] - control[:, 0]).norm(dim=-1)
    off = torch.from_numpy(bend(control.shape[1] - 2, control.shape[2])).to(control)
    return control + way[:, None, None] * torch.nn.functional.pad(off, (0, 0, 1, 1))


def _like(mask: Tensor, value: Tensor) -> Tensor:
    return mask.reshape(-1, *(1,) * (value.dim() - 1))


def straight_lines(solver: Solver, metric: Immersed, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Squared lengths of straight lines, and where no iteration can improve them.

    Four generic points tell nearly all lines that bend; the others are looked at in all nodes of the energy. (Not
    in symmetric points: an odd immersion has ``f(z) - 2 f((z + y) / 2) + f(y) = 0``.)
    """
    straight = torch.ones_like(z[:, 0], dtype=torch.bool)
    if solver.max_iterations > 0 or solver.max_polish > 0:
        with torch.no_grad():
            straight = _runs_straight(solver.tolerance, metric.embed(_on_line(z, y, z.new_tensor(_GENERIC))), _GENERIC)
    value, rows = torch.zeros_like(z[:, 0]), straight.nonzero().squeeze(-1)
    if rows.numel():
        times = torch.linspace(0, 1, solver.num_segments + 1, dtype=z.dtype, device=z.device)
        images = metric.embed(_on_line(z[rows], y[rows], times))
        value = value.index_put((rows,), 2 * ChordEnergy(metric, 1, solver.num_segments, solver.richardson).of(images))
        if solver.max_iterations > 0 or solver.max_polish > 0:
            straight = straight.index_put((rows,), _runs_straight(solver.tolerance, images.detach(), times.tolist()))
    return value, straight


def _runs_straight(tolerance: float, images: Tensor, times: Sequence[float]) -> Tensor:
    """Whether the images at these times, 0 first and 1 last, lie on the line between the ends, in step."""
    whole, at = images[:, -1:] - images[:, :1], images.new_tensor(times)[:, None]
    bend = (images - images[:, :1] - at * whole).square().sum(-1).amax(-1)
    return 4 * bend <= tolerance * whole.square().sum((-1, -2))


def _on_line(z: Tensor, y: Tensor, times: Tensor) -> Tensor:
    """Points of straight lines, ``(P, T, d)``."""
    return z[:, None] + times[:, None] * (y - z)[:, None]
