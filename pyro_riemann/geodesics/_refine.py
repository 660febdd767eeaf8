"""A second attempt at curves that did not converge: a parameter laid along the curve, and starts that bend."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._checks import holds
from pyro_riemann._formulas import splines
from pyro_riemann._formulas.audit import TOLERANCE
from pyro_riemann._formulas.shortest_paths import TRACK
from pyro_riemann._interface import Energy, Metric, Solver
from pyro_riemann.geodesics import _graph, _spline
from pyro_riemann.geodesics._batch import Solution
from pyro_riemann.geodesics._newton import descend, polish
from pyro_riemann.geodesics._quasi_newton import quasi_newton

ROUNDS, _STEPS = 4, 12
_POINTS = 256  # segments of a polygon that stands for a start
_TURNS = (0.5, 0.9, 1.3, 1.6, 1.85)  # half turns of the arcs that are tried beside the straight line
_NORMALS = 4  # axes into which these bend, both ways
_RIVALS = (0.9, 1.6)  # of these arcs, after as many rough steps, the shortest challenges what was found
_RIVAL_STEPS, _RIVAL_NORMALS, _RIVAL_POINTS = 5, 2, 64
_HOPE = 1.3  # times the length that was found, up to which an arc is followed; 56 of 57 that won began below 1.2
_ENOUGH = 1e-8  # relative error of an energy that will do where rounding or a thin wall slows the last iterations


def relax(solver: Solver, metric: Metric, path: Tensor, rounds: int = ROUNDS) -> tuple[Energy, Solution]:
    """Least energy from polygons ``path``, ``(P, M + 1, d)``, at a pace that follows the curve.

    A spline that must run at constant speed cannot follow a curve through far regions of a chart, where a short
    way is a long run of coordinates. Here half of the parameter passes with the length in the metric, half with that
    in the chart; it is laid anew as the curve moves, in ``rounds`` rounds, none where the path is nearly right.
    """
    control = _lay(metric, path, solver.num_knots)
    for turn in range(rounds):
        if turn:
            control = _lay(metric, polygon(solver.num_knots, control), solver.num_knots)
        energy = solver.energy(metric, control)
        rough = quasi_newton if energy.frugal else descend
        control = rough(energy, control, min(solver.max_iterations, _STEPS), 1e-2).control
    energy = solver.energy(metric, control)
    fine = quasi_newton if energy.frugal else polish
    return energy, fine(energy, control, solver.max_polish, solver.tolerance, enough=_ENOUGH)


def best_start(metric: Metric, z: Tensor, y: Tensor, best: Tensor, least: Tensor) -> Tensor:
    """The shortest of ``best``, the straight line, arcs that bend off it, and a path along ``metric.landmarks``.

    ``least`` is the length of ``best``, ``(P,)``, infinite where it is not to be trusted: a polygon of a curve that
    jumped a wall may jump it again.
    """
    count = best.shape[1] - 1
    starts = list(_arcs(z, y, count))
    if metric.landmarks is not None:
        knots = count // (4 * TRACK)
        starts.append(_spline.uniform_basis(knots, count, z) @ _graph.neighbour_curves(metric, z, y, knots))
    for path in starts:
        length = _steps(metric, path).sum(-1)
        shorter = length < least  # false for NaN
        best = torch.where(shorter[:, None, None], path, best)
        least = torch.where(shorter, length, least)
    return best


def unguided(metric: Metric) -> bool:
    """Whether a metric knows nothing but itself: no surface, table or landmarks to look for shortest paths on."""
    return metric.dim > 1 and metric.immersed() is None and metric.tabulated() is None and metric.landmarks is None


def rivals(solver: Solver, metric: Metric, z: Tensor, y: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """A way between each pair that bends off the straight line, its control points ``(P, C, d)`` and length ``(P,)``.

    Newton's method ends at the nearest geodesic, and no check of that curve tells that it is not the shortest: another
    curve that is shorter does. Ways that begin much longer than what was found, of ``length (P,)``, are not followed:
    in a flat metric that is all of them. The length is infinite where there is no way, or two polygons disagree about
    it, as beside a pole of the metric, which they may jump.
    """
    best, least = _spline.line(solver.num_knots, z, y), torch.full_like(length, torch.inf)
    for path in _arcs(z, y, _RIVAL_POINTS, _RIVALS, _RIVAL_NORMALS)[1:]:
        try:
            hopeful = (_steps(metric, path).sum(-1) <= _HOPE * length).nonzero().squeeze(-1)  # not for NaN
            for part in hopeful.split(solver.room(metric, best)):
                laid = _lay(metric, path[part], solver.num_knots)
                control = descend(solver.energy(metric, laid), laid, _RIVAL_STEPS, 1e-2).control
                reached = _steps(metric, polygon(solver.num_knots, control)).sum(-1)
                wins = reached < least[part]  # false for NaN
                best[part[wins]], least[part[wins]] = control[wins], reached[wins]
        except ValueError:  # a curve left the metric's domain
            continue
    known = least.isfinite().nonzero().squeeze(-1)
    finer = _steps(metric, polygon(solver.num_knots, best[known], 3)).sum(-1)
    agree = (finer / least[known] - 1).abs() <= TOLERANCE
    return best, torch.full_like(least, torch.inf).index_put((known[agree],), least[known[agree]])


def polygon(num_knots: int, control: Tensor, finer: int = 1) -> Tensor:
    """Points of splines, ``(P, M + 1, d)``, for :func:`relax`."""
    return _spline.uniform_basis(num_knots, finer * max(_POINTS, TRACK * num_knots), control) @ control


def _lay(metric: Metric, path: Tensor, num_knots: int) -> Tensor:
    """Control points of splines along polygons, the parameter spread over both kinds of length."""
    near, far = _steps(metric, path), path.diff(dim=1).norm(dim=-1)
    near, far = (part / part.sum(-1, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny) for part in (near, far))
    passed = torch.nn.functional.pad((near + far).nan_to_num(0.0).cumsum(-1), (1, 0))
    count = TRACK * num_knots + 1
    wanted = torch.linspace(0, 1, count, dtype=path.dtype, device=path.device) * passed[:, -1:]
    after = torch.searchsorted(passed, wanted).clamp(1, path.shape[1] - 1)
    low, high = passed.gather(1, after - 1), passed.gather(1, after)
    share = ((wanted - low) / (high - low).clamp(min=torch.finfo(path.dtype).tiny)).clamp(0, 1)[..., None]
    left, right = (path.gather(1, at[..., None].expand(-1, -1, path.shape[-1])) for at in (after - 1, after))
    track = torch.lerp(left, right, share)
    track[:, 0], track[:, -1] = path[:, 0], path[:, -1]
    matrix = torch.from_numpy(splines.fit_matrix(num_knots, count)).to(path)
    interior = matrix @ torch.cat([track, track[:, :1], track[:, -1:]], dim=1)
    return torch.cat([path[:, :1], interior, path[:, -1:]], dim=1)


def _steps(metric: Metric, path: Tensor) -> Tensor:
    """Riemannian lengths of the segments of polygons, ``(P, M)``."""
    if (surface := metric.immersed()) is not None:
        return surface.embed(path).diff(dim=1).norm(dim=-1)
    if (known := metric.covers(path)) is not None and not holds(known):
        inside = torch.where(known.unsqueeze(-1), path, path[:, :1])
        return torch.where(known[:, 1:] & known[:, :-1], _steps(metric, inside), torch.inf)
    step = path.diff(dim=1)
    ends, middle = (path[:, 1:], path[:, :-1]), path[:, :-1] + step / 2
    simpson: Tensor = (4 * metric.norm(middle, step) + sum(metric.norm(end, step) for end in ends)) / 6
    return simpson


def _arcs(z: Tensor, y: Tensor, count: int, turns: tuple[float, ...] = _TURNS, normals: int = _NORMALS) -> list[Tensor]:
    """The straight line and circular arcs of ``count`` segments, ``(P, count + 1, d)``; none bends in one dimension."""
    middle, half = (z + y) / 2, (y - z) / 2
    radius = half.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    along, times = half / radius, torch.linspace(-1, 1, count + 1, dtype=z.dtype, device=z.device)[:, None]
    paths = [middle[:, None] + times * half[:, None]]
    # Householder: the reflection that carries the first axis to `along` carries the others to its normals
    first = torch.zeros_like(along)
    first[:, 0] = -torch.where(along[:, 0] < 0, -1.0, 1.0)
    mirror = torch.nn.functional.normalize(along - first, dim=-1)
    for axis in range(1, min(z.shape[-1], normals + 1)):
        normal = -2 * mirror[:, axis, None] * mirror
        normal[:, axis] += 1
        for turn in turns:
            angle = turn * math.pi / 2
            size = radius / math.sin(angle)
            for side in (normal, -normal):
                centre = middle - size * math.cos(angle) * side
                turned = torch.sin(times * angle) * along[:, None] + torch.cos(times * angle) * side[:, None]
                paths.append(centre[:, None] + size[:, None] * turned)
    return paths
