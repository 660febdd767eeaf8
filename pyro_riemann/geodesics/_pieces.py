"""Curves of one solution that were found with different energies, and how those that failed are found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._formulas.audit import DENSE, TOLERANCE
from pyro_riemann._interface import Energy, Metric, Solver
from pyro_riemann._memory import in_pieces
from pyro_riemann.geodesics import _refine
from pyro_riemann.geodesics._audit import audit
from pyro_riemann.geodesics._energy import ChordEnergy

KNOWN = 0.01  # error of a curve below which its length is taken for known, and no wall jumped


class Piece(NamedTuple):
    """Curves that were solved with one energy."""

    rows: Tensor  # (p,), which of the pairs
    energy: Energy
    control: Tensor  # (p, C, d)
    length: Tensor  # (p,)
    error: Tensor  # (p,), relative, as audited
    converged: Tensor  # (p,) bool
    settled: Tensor  # (p,) bool, no step of Newton's method moves it by more than a distance may err
    kinked: Tensor  # (p,) bool, chords converge as slowly as across kinks

    def pick(self, mask: Tensor) -> Piece:
        """The curves where ``mask`` is true."""
        return self.take(mask.nonzero().squeeze(-1))

    def take(self, index: Tensor) -> Piece:
        """The curves of this index."""
        rest = (part[index] for part in self[2:])
        return Piece(self.rows[index], self.energy.rows(index), *rest)


def with_ends(control: Tensor, z: Tensor, y: Tensor) -> Tensor:
    """Control points with these ends, through which gradients flow."""
    return torch.cat([z.unsqueeze(1), control[:, 1:-1], y.unsqueeze(1)], dim=1)


def audited(
    solver: Solver, metric: Metric, rows: Tensor, energy: Energy, control: Tensor, converged: Tensor, settled: Tensor
) -> Piece:
    """Curves with what an audit makes of them."""
    index = torch.arange(rows.shape[0], device=rows.device).split(solver.room(metric, control, energy.num_segments))
    verdicts = [audit(energy.rows(part), control[part]) for part in index]
    length, error, kinked = (torch.cat(part) for part in zip(*verdicts, strict=True))
    error = error.nan_to_num(torch.inf)
    return Piece(rows, energy, control, length, error, converged & (error <= TOLERANCE), settled, kinked)


def challenged(
    solver: Solver, metric: Metric, z: Tensor, y: Tensor, found: list[Piece], control: Tensor, length: Tensor
) -> list[Piece]:
    """Replace curves that others, of this ``length``, undercut by the geodesics to which these lead.

    What stays although it is undercut by more than a distance may err has not converged.
    """
    finer, result = _finer(solver, 2), []
    for piece in found:
        beaten = (piece.error < KNOWN) & (length[piece.rows] < (1 - 4 * TOLERANCE) * piece.length)
        result.append(piece.pick(~beaten))
        for part in beaten.nonzero().squeeze(-1).split(finer.room(metric, control)):
            old = piece.pick(torch.zeros_like(beaten).index_fill(0, part, True))
            old = old._replace(converged=torch.zeros_like(old.converged))
            try:
                path = _refine.polygon(solver.num_knots, control[old.rows])
                energy, solution = _refine.relax(finer, metric, path)
            except ValueError:  # a curve left the metric's domain
                result.append(old)
                continue
            curve = with_ends(solution.control, z[old.rows], y[old.rows])
            new = audited(finer, metric, old.rows, energy, curve, solution.converged, solution.settled)
            better = new.length < old.length  # false for NaN
            result += [new.pick(better), old.pick(~better)]
    return [piece for piece in result if piece.rows.numel()]


def tried_again(solver: Solver, metric: Metric, z: Tensor, y: Tensor, found: list[Piece], factor: int) -> list[Piece]:
    """Replace the curves that failed by finer ones, where these pass or err less."""
    finer, result = _finer(solver, factor), []
    for piece in found:
        failed = ~piece.converged
        result.append(piece.pick(piece.converged))
        old = piece.pick(failed)
        # what is nearly right has its pace; the others must find theirs
        near = (old.error < KNOWN) & (factor == 2)
        for part, rounds in [
            (part, rounds)
            for chosen, rounds in ((near, 0), (~near, _refine.ROUNDS))
            if bool(chosen.any())
            for part in chosen.nonzero().squeeze(-1).split(finer.room(metric, old.control))
        ]:
            before = old.take(part)
            rows, path = before.rows, _refine.polygon(piece.energy.num_knots, before.control)
            try:
                if factor > 2:
                    least = torch.where(before.error < KNOWN, before.length, torch.inf)
                    path = _refine.best_start(metric, z[rows], y[rows], path, least)
                energy, solution = _refine.relax(finer, metric, path, rounds)
            except ValueError:  # a curve left the metric's domain
                result.append(before)
                continue
            control = with_ends(solution.control, z[rows], y[rows])
            new = audited(finer, metric, rows, energy, control, solution.converged, solution.settled)
            better = _better(new, before.length, before.error)
            result += [*measured(finer, metric, new.pick(better)), before.pick(~better)]
    return [piece for piece in result if piece.rows.numel()]


def measured(solver: Solver, metric: Metric, piece: Piece, last: bool = False) -> list[Piece]:
    """Curves that failed for the kinks of an immersion, by chords and Gauss nodes so many that kinks do not tell.

    Across kinks, as a decoder with ReLU has them, neither a spline's speed nor Newton's method comes to rest, and
    chords converge by their number alone. Here each passes in proportion to its length, so that the energy is that of
    the curve's length, and what the curve could save is asked for. What fails here too stays as it is; at ``last`` all
    that failed is measured, and has the length that was.
    """
    chosen = ~piece.converged & (piece.error < KNOWN) & (piece.kinked | last)
    if not isinstance(piece.energy, ChordEnergy) or not bool(chosen.any()):
        return [piece]
    found, index = [], chosen.nonzero().squeeze(-1)
    dense = solver.replace(num_knots=piece.energy.num_knots, num_segments=DENSE, richardson=False)
    for part in index.split(dense.room(metric, piece.control)):
        old = piece.take(part)
        new = audited(dense, metric, old.rows, dense.energy(metric, old.control), old.control, old.settled, old.settled)
        better = new.converged | ((new.error < old.error) & last)
        found.append(new.pick(better))
        chosen[part] = better
    return [part for part in (*found, piece.pick(~chosen)) if part.rows.numel()]


def _finer(solver: Solver, factor: int) -> Solver:
    return solver.replace(
        num_knots=factor * solver.num_knots,
        num_segments=factor * max(solver.num_segments, 4 * solver.num_knots),
        max_polish=2 * solver.max_polish,
    )


def _better(new: Piece, length: Tensor, error: Tensor) -> Tensor:
    """Whether curves are to replace others of this length and error, which failed.

    The length of any curve bounds the distance: the shorter one is nearer to it, where both lengths are known.
    """
    known = (new.error < KNOWN) & (error < KNOWN)
    shorter = new.length < torch.where(new.converged, 1 + TOLERANCE, 1.0) * length
    return torch.where(known, shorter, new.converged | (new.error < error))


def attached(solver: Solver, metric: Metric, piece: Piece, z: Tensor, y: Tensor) -> Tensor:
    """Control points that depend on ``z``, ``y`` and the metric's parameters to first order.

    One Newton step with a live gradient and a constant Hessian has the derivative of the implicit function theorem.
    Its value, a rounding error, is left out, so that results are the same where no gradient is asked for.

    Args:
        solver: whose curves they are.
        metric: any metric.
        piece: solved curves.
        z: starts of all pairs, ``(P, d)``.
        y: ends of all pairs, ``(P, d)``.

    Returns:
        Control points, ``(p, num_knots + 3, d)``.
    """
    if not torch.is_grad_enabled():
        return piece.control
    energy, dim = piece.energy, z.shape[-1]
    control = with_ends(piece.control, z[piece.rows], y[piece.rows])

    def newton(part: slice) -> Tensor:
        own = energy.rows(rows[part])
        with torch.no_grad():
            hessian = own.exact_system(control[part]).hessian[:, dim:-dim, dim:-dim]
        return -_linalg.solve(hessian, own.system(control[part]).gradient[:, 1:-1].flatten(1))

    rows = torch.arange(len(control), device=z.device)
    step: Tensor = in_pieces(newton, len(control), solver.room(metric, control, energy.num_segments))
    step = step.unflatten(1, (control.shape[1] - 2, dim))
    return control + torch.nn.functional.pad(step - step.detach(), (0, 0, 1, 1))


def gather(pieces: list[Piece], function: Callable[[Piece], Tensor]) -> Tensor:
    """Results of ``function`` for the curves of all pieces, in the order of the pairs."""
    parts = [function(piece) for piece in pieces]
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts)[torch.cat([piece.rows for piece in pieces]).argsort()]
