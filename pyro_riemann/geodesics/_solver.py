"""Boundary-value geodesics: Newton and quasi-Newton iterations on spline curves, all pairs in one batch."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_finite, check_point, holds
from pyro_riemann._formulas.solver_settings import factors, for_training
from pyro_riemann._interface import AllSettings, Metric
from pyro_riemann._memory import by_points, in_pieces
from pyro_riemann._modes import full_precision
from pyro_riemann._vmap import over_batches
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._audit import report
from pyro_riemann.geodesics._curve import Geodesic
from pyro_riemann.geodesics._pieces import (
    KNOWN,
    Piece,
    attached,
    audited,
    challenged,
    gather,
    measured,
    tried_again,
    with_ends,
)
from pyro_riemann.geodesics._refine import rivals, unguided
from pyro_riemann.geodesics._search import Search, straight_lines


@dataclasses.dataclass(frozen=True)
class GeodesicSolver(Search):
    """Settings of the boundary-value solver, and the solver itself.

    The curve is a cubic spline with ``num_knots`` intervals whose energy is discretised with
    ``num_segments`` chords (pullbacks) or quadrature points (other metrics). Damped Newton
    iterations with the tangential Hessian find the minimum, iterations with the full Hessian polish it. On an immersion
    of six dimensions and more, where a Hessian costs many gradients, quasi-Newton iterations do both.

    A curve has converged when Newton's method has and a rule at nodes of its own puts the distance's error below 0.1 %.
    Others are tried again with two, four and eight times the knots, at a pace that follows the curve and from
    other starts. Where a metric knows nothing but itself (no surface, table or landmarks), ways that bend off the
    straight line challenge what was found: a geodesic that another curve undercuts is replaced. What is left is
    reported. Across the kinks of an immersion, as a decoder with ReLU has them, where no gradient vanishes, curves are
    measured by 1,024 chords and Gauss nodes, and have converged where bubbles of three sizes could save next to
    nothing.

    Args:
        num_knots: intervals of the spline.
        num_segments: chords or quadrature points; even, at least twice ``num_knots``.
        max_iterations: bound on the iterations with the tangential Hessian.
        max_polish: bound on the iterations with the full Hessian; 0 for approximate distances. Quasi-Newton iterations
            are bounded by the sum of both.
        tolerance: relative error of the energy, bounded by the Newton decrement.
        richardson: extrapolate the chord energy, so that its error falls with the fourth power
            of ``num_segments`` instead of the second.
        init: ``"line"`` or ``"graph"``.
        constant_hessian: precondition the gradient by the metric in the middle of the curve alone, in place of the
            tangential Hessian: many cheap iterations for few dear ones, for rough distances in many dimensions.
        graph_resolution: nodes per axis (d = 2) of the table and graph behind ``init="graph"``.
        on_failure: what a distance, curve or ``logmap`` does about pairs that did not converge: ``"warn"`` says how
            many, ``"raise"`` is an error, and ``"ignore"`` neither checks distances nor tries again, for distances
            that are meant to be rough. Nothing is checked or repeated under ``torch.jit.trace``.

    Raises:
        ValueError: for settings out of range.
        RuntimeError: by its methods, where pairs did not converge and ``on_failure="raise"``.

    Source: curves, energy and start as in Kalatzis et al. 2020, appendix B; Newton's method in place of their gradient
    descent.

    Example:
        >>> GeodesicSolver(num_knots=16, num_segments=64).num_segments
        64
    """

    def replace(self, **settings: Unpack[AllSettings]) -> GeodesicSolver:
        """A copy with other settings."""
        return dataclasses.replace(self, **settings)

    # ---------------------------------------------------------------- checking

    @torch.no_grad()
    def pieces(
        self, metric: Metric, z: Tensor, y: Tensor, checked: bool = False, total: int | None = None
    ) -> list[Piece]:
        """Solved curves between two lists of points, without gradient: those of one energy together.

        Args:
            metric: any metric.
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.
            checked: audit the curves also where failures are ignored.
            total: number of pairs that the caller was asked for, if these are not all.

        Raises:
            RuntimeError: where pairs did not converge and ``on_failure="raise"``.
        """
        solution, energy = self.control_points(metric, z, y), self.energy(metric)
        rows, control = torch.arange(z.shape[0], device=z.device), with_ends(solution.control, z, y)
        if torch.jit.is_tracing() or (self.on_failure == "ignore" and not checked):
            return [Piece(rows, energy, control, z[:, 0], z[:, 0], *(solution.converged,) * 3)]
        first = audited(self, metric, rows, energy, control, solution.converged, solution.settled)
        first = first._replace(converged=first.converged | (z == y).all(-1))
        found = measured(self, metric, first)
        if len(z) and self.on_failure != "ignore" and self.max_iterations > 0 and self.max_polish > 0:
            trusted = torch.where(first.error < KNOWN, first.length, torch.inf)
            rival = rivals(self, metric, z, y, trusted) if unguided(metric) else None
            if rival is not None:
                found = challenged(self, metric, z, y, found, *rival)
            for factor in factors(self.num_knots * metric.dim):
                if not all(bool(piece.converged.all()) for piece in found):
                    found = tried_again(self, metric, z, y, found, factor)
            if rival is not None:
                found = challenged(self, metric, z, y, found, *rival)
            found = [part for piece in found for part in measured(self, metric, piece, last=True)]
        report(torch.cat([piece.converged for piece in found]), self.on_failure, total or len(z))
        return found

    # ---------------------------------------------------------------- results

    @full_precision
    def solve(self, metric: Metric, z: Tensor, y: Tensor) -> Geodesic:
        z, y, shape = flat_pairs(metric, z, y)
        found = self.pieces(metric, z.detach(), y.detach(), checked=True)
        found = [p._replace(control=with_ends(p.control, z[p.rows], y[p.rows])) for p in found]
        energy = gather(found, lambda piece: self._values(metric, piece.energy, piece.control))
        positive = torch.where(energy > 0, energy, torch.ones_like(energy))

        def curve(times: Tensor) -> Tensor:
            def follow(piece: Piece) -> Tensor:
                table = torch.from_numpy(_spline.basis(piece.energy.num_knots, times.cpu().numpy()))
                return table.to(piece.control) @ piece.control

            return gather(found, follow).transpose(0, 1).reshape(len(times), *shape, metric.dim)

        length = gather(found, lambda piece: piece.length) * (positive / positive.detach()).sqrt()  # d sqrt(2 E)
        return Geodesic(
            curve(torch.linspace(0, 1, self.num_segments + 1, dtype=torch.float64, device="cpu")),
            length.reshape(shape),
            energy.reshape(shape),
            gather(found, lambda piece: piece.converged).reshape(shape),
            curve,
        )

    @full_precision
    @over_batches
    def squared_dist(self, metric: Metric, z: Tensor, y: Tensor) -> Tensor:
        """Squared geodesic distance, twice the least energy, ``(*batch)``, differentiable by the envelope theorem.

        At the optimum the energy does not change with the interior of the curve, so its derivative in
        the ends and in the metric's parameters is that of the energy of a fixed curve.

        Args:
            metric: any metric.
            z: starts, ``(*batch, d)``.
            y: ends, ``(*batch, d)``.

        Raises:
            TypeError, ValueError: as :meth:`solve`.
        """
        z, y, shape = flat_pairs(metric, z, y)
        surface = metric.immersed()
        if torch.jit.is_tracing() or surface is None or self.constant_hessian:  # to look costs as much as to solve
            value = self._solved(metric, z, y, len(z))
        else:
            value, straight = by_points(surface, partial(straight_lines, self, surface), (z, y), 0)
            if not bool(straight.all()):
                far = (~straight).nonzero().squeeze(-1)
                value = value.index_put((far,), self._solved(metric, z[far], y[far], len(z)))
        same = (z == y).all(-1)  # the spline's rounding is not 0, and the root of it has a slope
        return torch.where(same, torch.zeros_like(value), value).reshape(shape)

    def _solved(self, metric: Metric, z: Tensor, y: Tensor, total: int) -> Tensor:
        def value(piece: Piece) -> Tensor:
            return 2 * self._values(metric, piece.energy, with_ends(piece.control, z[piece.rows], y[piece.rows]))

        return gather(self.pieces(metric, z.detach(), y.detach(), total=total), value)

    @full_precision
    @over_batches
    def logmap(self, metric: Metric, z: Tensor, y: Tensor) -> Tensor:
        z, y, shape = flat_pairs(metric, z, y)

        def momentum(piece: Piece) -> Tensor:
            control = attached(self, metric, piece, z, y)

            def of(part: slice) -> Tensor:
                return -piece.energy.rows(rows[part]).system(control[part]).gradient[:, 0]

            rows = torch.arange(len(control), device=z.device)
            found: Tensor = in_pieces(of, len(control), self.room(metric, control, piece.energy.num_segments))
            return found

        start = gather(self.pieces(metric, z.detach(), y.detach()), momentum)
        return _linalg.solve(metric.metric(z), start).reshape(*shape, metric.dim)


def training_solver(dim: int) -> GeodesicSolver:
    """A cheap, deterministic solver for the thousands of steps of a training.

    Distances are lengths of a spline with few knots after few iterations, and gradients those of that spline. How far
    off they are on the decoders of the benchmarks stands in ``docs/benchmarks.md``. Nothing is checked and nobody
    warns: set the default back, or another :class:`GeodesicSolver`, before you evaluate.

    Args:
        dim: dimension of the metric.

    Source: the energy that is minimised is that of Kalatzis et al. 2020, appendix B.

    Example:
        >>> metric = PullbackMetric(lambda z: torch.cat([z, z.sin()], -1), 2)
        >>> metric.solver = training_solver(metric.dim)  # for SVI
        >>> prior = RiemannianHeatKernel(torch.zeros(2), 0.5, metric)
        >>> metric.solver = GeodesicSolver()  # for evaluation
    """
    return GeodesicSolver(**for_training(dim))


def flat_pairs(metric: Metric, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Check, broadcast and flatten two batches of points."""
    check_finite("z", check_point("z", z, metric.dim))
    check_finite("y", check_point("y", y, metric.dim))
    for name, point in (("z", z), ("y", y)):
        if (known := metric.covers(point)) is not None and not holds(known):
            raise ValueError(
                f"{int((~known).sum())} of {known.numel()} points `{name}` lie outside the box in which "
                f"{type(metric).__name__} is known, for instance {point[~known][0].tolist()}. Tabulate a larger box, "
                'or use `outside="metric"` or `"nearest"`.'
            )
    try:
        z, y = torch.broadcast_tensors(z, y)
    except RuntimeError as error:
        raise ValueError(f"`z` {tuple(z.shape)} and `y` {tuple(y.shape)} do not broadcast.") from error
    dtype = torch.promote_types(z.dtype, y.dtype)
    return z.reshape(-1, metric.dim).to(dtype), y.reshape(-1, metric.dim).to(dtype), z.shape[:-1]
