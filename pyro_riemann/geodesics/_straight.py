"""Pairs of points between which the straight line of the chart is the geodesic of a pullback, as near ones have it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann._interface import Immersed, Solver
from pyro_riemann.geodesics._energy import ChordEnergy

_GENERIC = (0.0, 0.3571, 0.7919, 1.0)  # times on a line that no symmetry of it exchanges


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
