"""Curves of one solution that were found with different settings, and how those that failed are found again.

The number of curves that fail depends on data: this works on known points alone, outside ``jit`` and ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.audit import DENSE, TOLERANCE
from pyro_riemann._formulas.solver_settings import factors
from pyro_riemann.numpyro._interface import Metric, Solver
from pyro_riemann.numpyro.geodesics import _graph, _refine, _spline
from pyro_riemann.numpyro.geodesics._audit import audit, report
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy
from pyro_riemann.numpyro.geodesics._path import by_curves, search

Numbers = np.ndarray


KNOWN = 0.01  # error of a curve below which its length is taken for known, and no wall jumped


class Piece(NamedTuple):
    """Curves that were, or are to be, solved with one energy."""

    rows: Numbers  # (p,), which of the pairs
    solver: Solver
    starts: Array | None  # the curves, where the solver has no iterations left
    guide: Array | None
    length: Numbers  # (p,)
    error: Numbers  # (p,), relative, as audited
    converged: Numbers  # (p,) bool
    settled: Numbers  # (p,) bool, no step of Newton's method moves it by more than a distance may err
    kinked: Numbers  # (p,) bool, chords converge as slowly as across kinks

    def pick(self, mask: Numbers) -> Piece:
        """The curves where ``mask`` is true."""
        starts, guide = (None if part is None else part[..., mask, :, :] for part in (self.starts, self.guide))
        return Piece(self.rows[mask], self.solver, starts, guide, *(part[mask] for part in self[4:]))


def known(*values: object) -> bool:
    """Whether there are numbers behind these values: not under ``jit``, ``vmap`` or ``scan``."""
    leaves = jax.tree.leaves(jax.lax.stop_gradient(values))
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def pieces(solver: Solver, metric: Metric, z: Array, y: Array, checked: bool = False) -> list[Piece]:
    """Curves between two lists of points: one piece to solve where nothing is checked, else solved pieces.

    Raises:
        RuntimeError: where pairs did not converge and ``on_failure="raise"``.
    """
    starts, rows = solver.starts(metric, z, y), np.arange(z.shape[0])
    if z.shape[0] == 0 or not known(metric, z, y) or (solver.on_failure == "ignore" and not checked):
        return [Piece(rows, solver, starts, None, *np.zeros((2, len(rows))), *np.zeros((3, len(rows)), bool))]
    metric, z, y = jax.lax.stop_gradient((metric, z, y))
    interior, *verdict = _solve_first(solver, metric, z, y, starts)
    first = Piece(rows, _final(solver), interior[None], None, *(np.asarray(part) for part in verdict))
    found = _measured(metric, z, y, first)
    if solver.on_failure != "ignore" and solver.max_iterations > 0 and solver.max_polish > 0:
        trusted = np.where(first.error < KNOWN, first.length, np.inf)
        rival = _rivals(solver, metric, z, y, trusted) if _refine.unguided(metric) else None
        if rival is not None:
            found = _challenged(solver, metric, z, y, found, *rival)
        for factor in factors(solver.num_knots * metric.dim):
            if not all(piece.converged.all() for piece in found):
                found = _tried_again(solver, metric, z, y, found, factor)
        if rival is not None:
            found = _challenged(solver, metric, z, y, found, *rival)
        found = [part for piece in found for part in _measured(metric, z, y, piece, last=True)]
    report(np.concatenate([piece.converged for piece in found]), solver.on_failure)
    return found


def gather(pieces: list[Piece], function: Callable[[Piece, Array, Array], Array], z: Array, y: Array) -> Array:
    """Results of ``function(piece, z, y)`` for the curves of all pieces, in the order of the pairs."""
    if len(pieces) == 1:
        return function(pieces[0], z, y)
    parts = []
    for piece in pieces:
        padded, count = _padded(piece), len(piece.rows)
        parts.append(function(padded, z[padded.rows], y[padded.rows])[:count])
    return jnp.concatenate(parts)[np.argsort(np.concatenate([piece.rows for piece in pieces]))]


def _rivals(solver: Solver, metric: Metric, z: Array, y: Array, length: Numbers) -> tuple[Numbers, Numbers]:
    """Other ways between the pairs, control points ``(P, C, d)`` and lengths ``(P,)``, infinite where there is none.

    Ways that begin much longer than what was found, of ``length (P,)``, are not followed: in a flat metric that is all.
    """
    best, least = np.array(_spline.line(solver.num_knots, z, y)), np.full(len(length), np.inf)
    bend, row = np.nonzero(np.asarray(_bent(metric, z, y)) <= _refine.HOPE * length)  # not for NaN
    if len(row):
        padding = np.zeros((1 << (len(row) - 1).bit_length()) - len(row), int)
        rows = np.concatenate([row, padding])
        axes, turns = zip(*(_refine.rival_bends(z)[at] for at in (*bend, *padding)), strict=True)
        which = jnp.asarray(np.array(axes)), jnp.asarray(np.array(turns), z.dtype)
        control, reached = (np.asarray(part)[: len(row)] for part in _follow(solver, metric, z[rows], y[rows], *which))
        order = np.argsort(-np.nan_to_num(reached, nan=np.inf))  # the shortest comes last and stays
        best[row[order]], least[row[order]] = control[order], np.nan_to_num(reached, nan=np.inf)[order]
    return best, least


def _challenged(
    solver: Solver, metric: Metric, z: Array, y: Array, found: list[Piece], control: Numbers, length: Numbers
) -> list[Piece]:
    """Replace curves that others, of this ``length``, undercut by the geodesics to which these lead.

    What stays although it is undercut by more than a distance may err has not converged.
    """
    finer, result = _finer(solver, 2), []
    for piece in found:
        beaten = (piece.error < KNOWN) & (length[piece.rows] < (1 - 4 * TOLERANCE) * piece.length)
        result.append(piece.pick(~beaten))
        if not beaten.any():
            continue
        old = piece.pick(beaten)
        old = old._replace(converged=np.zeros_like(old.converged))
        rows = _padded(old).rows
        path = _refine.polygon(solver.num_knots, jnp.asarray(control[rows]))
        new = _laid(finer, metric, z, y, old, path, np.zeros(len(rows), bool))
        better = new.length < old.length  # false for NaN
        result += [new.pick(better), old.pick(~better)]
    return [piece for piece in result if len(piece.rows)]


def _tried_again(solver: Solver, metric: Metric, z: Array, y: Array, found: list[Piece], factor: int) -> list[Piece]:
    """Replace the curves that failed by finer ones, where these pass or err less."""
    finer, result = _finer(solver, factor), []
    for piece in found:
        result.append(piece.pick(piece.converged))
        old = piece.pick(~piece.converged)
        if len(old.rows) == 0:
            continue
        padded = _padded(old)
        assert padded.starts is not None
        ends = z[padded.rows], y[padded.rows]
        path = _refine.polygon(old.solver.num_knots, _spline.with_ends(padded.starts[0], *ends))
        if factor > 2:
            least = np.where(padded.error < KNOWN, padded.length, np.inf)
            if metric.landmarks is not None:
                path, least = _along_landmarks(metric, *ends, path, least)
            path = _best_start(metric, *ends, path, jnp.asarray(least, z.dtype))
        near = (padded.error < KNOWN) & (factor == 2)  # these have their pace; the others must find theirs
        new = _laid(finer, metric, z, y, old, path, near)
        better = _better(new, old)
        result += [*_measured(metric, z, y, new.pick(better)), old.pick(~better)]
    return [piece for piece in result if len(piece.rows)]


def _laid(finer: Solver, metric: Metric, z: Array, y: Array, old: Piece, path: Array, near: Numbers) -> Piece:
    """Curves for the pairs of ``old`` from polygons, of which there are as many as in the padded piece."""
    count, rows = len(old.rows), _padded(old).rows
    rounds = 0 if near.all() else _refine.ROUNDS
    guide, interior, *verdict = _relax(finer, metric, z[rows], y[rows], path, near, rounds)
    numbers = (np.asarray(part)[:count] for part in verdict)
    return Piece(old.rows, _final(finer), interior[None, :count], guide[:count], *numbers)


def _measured(metric: Metric, z: Array, y: Array, piece: Piece, last: bool = False) -> list[Piece]:
    """Curves that failed for the kinks of an immersion, by chords and Gauss nodes so many that kinks do not tell.

    Across kinks, as a decoder with ReLU has them, neither a spline's speed nor Newton's method comes to rest, and
    chords converge by their number alone. Here each passes in proportion to its length, so that the energy is that of
    the curve's length, and what the curve could save is asked for. What fails here too stays as it is; at ``last`` all
    that failed is measured, and has the length that was.
    """
    chosen = ~piece.converged & (piece.error < KNOWN) & (piece.kinked | last)
    if not isinstance(metric.energy(piece.solver), ChordEnergy) or not chosen.any():
        return [piece]
    old = piece.pick(chosen)
    padded, count = _padded(old), len(old.rows)
    assert padded.starts is not None
    control = _spline.with_ends(padded.starts[0], z[padded.rows], y[padded.rows])
    dense = piece.solver.replace(num_segments=DENSE, richardson=False)
    length, error, passed, kinked = (np.asarray(part)[:count] for part in _measure(dense, metric, control))
    converged = passed & old.settled
    new = Piece(old.rows, dense, old.starts, control[:count], length, error, converged, old.settled, kinked)
    better = converged | ((error < old.error) & last)
    chosen[np.flatnonzero(chosen)[~better]] = False
    return [part for part in (new.pick(better), piece.pick(~chosen)) if len(part.rows)]


def _finer(solver: Solver, factor: int) -> Solver:
    return solver.replace(
        num_knots=factor * solver.num_knots,
        num_segments=factor * max(solver.num_segments, 4 * solver.num_knots),
        max_polish=2 * solver.max_polish,
    )


def _better(new: Piece, old: Piece) -> Numbers:
    """Whether curves are to replace others, which failed.

    The length of any curve bounds the distance: the shorter one is nearer to it, where both lengths are known.
    """
    are_known = (new.error < KNOWN) & (old.error < KNOWN)
    shorter = new.length < np.where(new.converged, 1 + TOLERANCE, 1.0) * old.length
    return np.where(are_known, shorter, new.converged | (new.error < old.error))


def _along_landmarks(metric: Metric, z: Array, y: Array, path: Array, least: Numbers) -> tuple[Array, Numbers]:
    knots = _refine.POINTS // 32
    other = _refine.polygon(knots, _spline.with_ends(_graph.neighbour_curves(metric, z, y, knots), z, y))
    length = np.asarray(_lengths(metric, other))
    wins = length < least
    longest = min(path.shape[1], other.shape[1])
    path, other = path[:, :: (path.shape[1] - 1) // (longest - 1)], other[:, :: (other.shape[1] - 1) // (longest - 1)]
    return jnp.where(jnp.asarray(wins)[:, None, None], other, path), np.where(wins, length, least)


def _final(solver: Solver) -> Solver:
    return solver.replace(max_iterations=0, max_polish=0)


def _padded(piece: Piece) -> Piece:
    """The piece with its first curve repeated up to a power of two: few sizes, few compilations."""
    count = len(piece.rows)
    index = np.concatenate([np.arange(count), np.zeros((1 << max(count - 1, 0).bit_length()) - count, int)])
    return piece.pick(index)


# ---------------------------------------------------------------- compiled


@jax.jit
def _solve_first(solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None) -> tuple[Array, ...]:
    interior, converged = search(solver, metric, z, y, starts)
    length, error, passed, kinked = judged(solver, metric, z, y, interior, converged == 1)
    return interior, length, error, passed, converged > 0, kinked


def judged(
    solver: Solver, metric: Metric, z: Array, y: Array, interior: Array, converged: Array, guide: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Lengths, errors, which of the curves passed, and which cross kinks."""
    metric, control = metric.condensed, _spline.with_ends(interior, z, y)
    length, error, kinked = by_curves(solver, metric, audit, metric.energy(solver, guide), control)
    return length, error, (converged & (error <= TOLERANCE)) | (z == y).all(-1), kinked


@jax.jit
def _relax(
    solver: Solver, metric: Metric, z: Array, y: Array, path: Array, near: Array, rounds: Array
) -> tuple[Array, ...]:
    metric = metric.condensed
    guide, solution = _refine.relax(solver, metric, path, near, rounds)
    interior = solution.control[:, 1:-1]
    length, error, passed, kinked = judged(solver, metric, z, y, interior, solution.converged, guide)
    return guide, interior, length, error, passed, solution.settled, kinked


@jax.jit
def _measure(dense: Solver, metric: Metric, control: Array) -> tuple[Array, ...]:
    metric, (z, y) = metric.condensed, (control[:, 0], control[:, -1])
    return judged(dense, metric, z, y, control[:, 1:-1], jnp.ones_like(z[:, 0], bool), control)


_bent, _follow = jax.jit(_refine.bent), jax.jit(_refine.rivals)


@jax.jit
def _best_start(metric: Metric, z: Array, y: Array, path: Array, least: Array) -> Array:
    stride = (path.shape[1] - 1) // _refine.POINTS
    return _refine.best_start(metric.condensed, z, y, path[:, ::stride], least)


@jax.jit
def _lengths(metric: Metric, path: Array) -> Array:
    return _refine._steps(metric, path).sum(-1)
