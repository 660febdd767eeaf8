"""A second attempt at curves that did not converge: a parameter laid along the curve, and starts that bend."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.audit import TOLERANCE
from pyro_riemann._formulas.shortest_paths import TRACK
from pyro_riemann.numpyro._interface import Metric, Solver
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._newton import Solution, descend, polish
from pyro_riemann.numpyro.geodesics._path import chunk_size
from pyro_riemann.numpyro.geodesics._quasi_newton import quasi_newton

ROUNDS, _STEPS = 4, 12
POINTS = 256  # segments of a polygon that stands for a start
_TURNS = (0.5, 0.9, 1.3, 1.6, 1.85)  # half turns of the arcs that are tried beside the straight line
_NORMALS = 4  # axes into which these bend, both ways
_RIVALS = (0.9, 1.6)  # of these arcs, after as many rough steps, the shortest challenges what was found
_RIVAL_STEPS, _RIVAL_NORMALS, _RIVAL_POINTS = 5, 2, 64
HOPE = 1.3  # times the length that was found, up to which an arc is followed; 56 of 57 that won began below 1.2
_ENOUGH = 1e-8  # relative error of an energy that will do where rounding or a thin wall slows the last iterations


def relax(solver: Solver, metric: Metric, path: Array, near: Array, rounds: Array) -> tuple[Array, Solution]:
    """Least energy from polygons ``path``, ``(P, M + 1, d)``, at the pace of a guide, which comes first.

    A spline that must run at constant speed cannot follow a curve through far regions of a chart, where a short
    way is a long run of coordinates. Here half of the parameter passes with the length in the metric, half with that
    in the chart; it is laid anew as the curve moves, in some ``rounds``, but not where ``near (P)`` says that the path
    is nearly right.
    """

    def again(_: Array, control: Array) -> Array:
        laid = _lay(metric, polygon(solver.num_knots, control), solver.num_knots)
        energy, chunk = metric.energy(solver, laid), chunk_size(solver, metric, laid)
        rough = quasi_newton if energy.frugal else descend
        moved = rough(energy, laid, min(solver.max_iterations, _STEPS), 1e-2, chunk).control
        return jnp.where(near[:, None, None], control, moved)

    control = jax.lax.fori_loop(0, rounds, again, _lay(metric, path, solver.num_knots))
    energy, chunk = metric.energy(solver, control), chunk_size(solver, metric, control)
    fine = quasi_newton if energy.frugal else polish
    return control, fine(energy, control, solver.max_polish, solver.tolerance, chunk, enough=_ENOUGH)


def best_start(metric: Metric, z: Array, y: Array, best: Array, least: Array) -> Array:
    """The shortest of ``best``, the straight line, and arcs that bend off it.

    ``least`` is the length of ``best``, ``(P,)``, infinite where it is not to be trusted: a polygon of a curve that
    jumped a wall may jump it again.
    """

    def shorter(kept: tuple[Array, Array], bend: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        path = _arc(z, y, *bend, best.shape[1] - 1)
        length = _steps(metric, path).sum(-1)
        wins = length < kept[1]  # false for NaN
        return (jnp.where(wins[:, None, None], path, kept[0]), jnp.where(wins, length, kept[1])), None

    bends = [(1, 0.0), *_bends(z, _TURNS, _NORMALS)]
    return jax.lax.scan(shorter, (best, least), _columns(bends, z))[0][0]


def unguided(metric: Metric) -> bool:
    """Whether a metric knows nothing but itself: no surface, table or landmarks to look for shortest paths on."""
    return metric.dim > 1 and metric.immersed() is None and metric.tabulated() is None and metric.landmarks is None


def bent(metric: Metric, z: Array, y: Array) -> Array:
    """Lengths of the arcs :func:`rival_bends` between all pairs, ``(A, P)``."""

    def length(bend: tuple[Array, Array]) -> Array:
        return _steps(metric, _arc(z, y, *bend, _RIVAL_POINTS)).sum(-1)

    return jax.lax.map(length, _columns(rival_bends(z), z))


def rivals(solver: Solver, metric: Metric, z: Array, y: Array, axis: Array, turn: Array) -> tuple[Array, Array]:
    """The ways to which arcs of their own ``axis (P,)`` and ``turn (P,)`` lead: ``(P, C, d)``, and lengths ``(P,)``.

    Newton's method ends at the nearest geodesic, and no check of that curve tells that it is not the shortest: another
    curve that is shorter does. The length is infinite where two polygons disagree about it, as beside a pole of the
    metric, which they may jump.
    """

    def start(z: Array, y: Array, axis: Array, turn: Array) -> Array:
        return _arc(z[None], y[None], axis, turn, _RIVAL_POINTS)[0]

    laid = _lay(metric, jax.vmap(start)(z, y, axis, turn), solver.num_knots)
    chunk = chunk_size(solver, metric, laid)
    control = descend(metric.energy(solver, laid), laid, _RIVAL_STEPS, 1e-2, chunk).control
    length, finer = (_steps(metric, polygon(solver.num_knots, control, times)).sum(-1) for times in (1, 3))
    return control, jnp.where(jnp.abs(finer / length - 1) <= TOLERANCE, length, jnp.inf)


def rival_bends(z: Array) -> list[tuple[int, float]]:
    """Axes and turns of the arcs that may challenge what was found."""
    return _bends(z, _RIVALS, _RIVAL_NORMALS)


def polygon(num_knots: int, control: Array, finer: int = 1) -> Array:
    """Points of splines, ``(P, M + 1, d)``, for :func:`relax`."""
    return _spline.follow(_spline.uniform_basis(num_knots, finer * max(POINTS, TRACK * num_knots), control), control)


def _bends(z: Array, turns: tuple[float, ...], normals: int) -> list[tuple[int, float]]:
    """Axes and turns of the arcs that bend off a line, both ways."""
    axes = range(1, min(z.shape[-1], normals + 1))
    return [(axis, side * turn) for axis in axes for turn in turns for side in (1, -1)]


def _columns(bends: list[tuple[int, float]], z: Array) -> tuple[Array, Array]:
    which, turns = (np.array(column) for column in zip(*bends, strict=True))
    return jnp.asarray(np.minimum(which, z.shape[-1] - 1)), jnp.asarray(turns, z.dtype)


def _lay(metric: Metric, path: Array, num_knots: int) -> Array:
    """Control points of splines along polygons, the parameter spread over both kinds of length."""
    tiny = jnp.finfo(path.dtype).tiny
    near, far = _steps(metric, path), jnp.sqrt(jnp.square(jnp.diff(path, axis=1)).sum(-1))
    near, far = (part / jnp.maximum(part.sum(-1, keepdims=True), tiny) for part in (near, far))
    passed = jnp.pad(jnp.nan_to_num(near + far).cumsum(-1), ((0, 0), (1, 0)))
    count = TRACK * num_knots + 1
    wanted = jnp.linspace(0, 1, count, dtype=path.dtype) * passed[:, -1:]
    after = jnp.clip(jax.vmap(jnp.searchsorted)(passed, wanted), 1, path.shape[1] - 1)
    low, high = (jnp.take_along_axis(passed, at, 1, mode="clip") for at in (after - 1, after))
    share = jnp.clip((wanted - low) / jnp.maximum(high - low, tiny), 0, 1)[..., None]
    left, right = (jnp.take_along_axis(path, at[..., None], 1, mode="clip") for at in (after - 1, after))
    track = (left + share * (right - left)).at[:, 0].set(path[:, 0]).at[:, -1].set(path[:, -1])
    matrix = jnp.asarray(splines.fit_matrix(num_knots, count), path.dtype)
    interior = matrix @ jnp.concatenate([track, track[:, :1], track[:, -1:]], axis=1)
    return _spline.with_ends(interior, path[:, 0], path[:, -1])


def _steps(metric: Metric, path: Array) -> Array:
    """Riemannian lengths of the segments of polygons, ``(P, M)``."""
    if (surface := metric.immersed()) is not None:
        return jnp.sqrt(jnp.square(jnp.diff(surface.embed(path), axis=1)).sum(-1))
    step = jnp.diff(path, axis=1)
    ends, middle = (path[:, 1:], path[:, :-1]), path[:, :-1] + step / 2
    simpson: Array = (4 * metric.norm(middle, step) + sum(metric.norm(end, step) for end in ends)) / 6
    return simpson


def _arc(z: Array, y: Array, axis: Array, turn: Array, count: int) -> Array:
    """Circular arcs of ``turn`` half turns, ``(P, count + 1, d)``, bent into an axis normal to the straight line."""
    middle, half = (z + y) / 2, (y - z) / 2
    tiny = jnp.finfo(z.dtype).tiny
    radius = jnp.maximum(jnp.sqrt(jnp.square(half).sum(-1, keepdims=True)), tiny)
    along, times = half / radius, jnp.linspace(-1, 1, count + 1, dtype=z.dtype)[:, None]
    # Householder: the reflection that carries the first axis to `along` carries the others to its normals
    mirror = along.at[:, 0].add(jnp.where(along[:, 0] < 0, -1.0, 1.0))
    mirror = mirror / jnp.sqrt(jnp.square(mirror).sum(-1, keepdims=True))
    normal = jax.nn.one_hot(axis, z.shape[-1], dtype=z.dtype) - 2 * mirror[:, axis, None] * mirror
    angle = jnp.where(turn == 0, 1.0, turn) * math.pi / 2
    size = radius / jnp.sin(angle)
    turned = jnp.sin(times * angle) * along[:, None] + (jnp.cos(times * angle) - jnp.cos(angle)) * normal[:, None]
    return middle[:, None] + jnp.where(turn == 0, times * half[:, None], size[:, None] * turned)
