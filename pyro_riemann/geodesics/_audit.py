"""What a solved curve is worth, judged at nodes that the energy which was minimised has never seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _autodiff, _linalg
from pyro_riemann._formulas import splines
from pyro_riemann._formulas.audit import (
    CLOSER,
    DENSE,
    bubble_saving,
    bubbles,
    chord_error,
    failure,
    gap,
    kinks,
    positive,
)
from pyro_riemann._interface import Energy
from pyro_riemann._warn import warn
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._energy import ChordEnergy, QuadratureEnergy
from pyro_riemann.geodesics._spline import solve_small


class Verdict(NamedTuple):
    """Lengths of curves and the estimated relative error of their least energies as distances."""

    length: Tensor  # (P,)
    error: Tensor  # (P,)
    kinked: Tensor  # (P,) bool: the chords approach the length as slowly as across kinks


@torch.no_grad()
def audit(energy: Energy, control: Tensor) -> Verdict:
    r"""Length and error of solved curves, ``(P, C, d)``, from Gauss nodes twice as dense as the energy's and others.

    The error has two parts. The discrete energy must be that of the curve: ``sqrt(2 E)`` is compared with the length
    :math:`\int |\gamma'|_G\,dt`, which tells chords that jumped a wall, nodes that missed one, and a speed that is
    not constant. And the spline must be able to follow the geodesic: the energy that a bubble on every knot
    interval, which no spline contains, could still save is added. (For chords, whose bubbles need a pass of their own,
    only where they are :data:`DENSE`.)
    """
    if isinstance(energy, ChordEnergy):
        value, length, error, kinked = _by_chords(energy, control)
    else:
        value = energy.value(control)
        finer = 2 * energy.num_segments + energy.num_knots
        guide = energy.guide if isinstance(energy, QuadratureEnergy) else None
        length, saving = _by_quadrature(QuadratureEnergy(energy.metric, energy.num_knots, finer, guide), control)
        error = gap(torch, value, length) + saving / (2 * positive(torch, value))
        kinked = torch.zeros_like(error, dtype=torch.bool)
    return Verdict(length, torch.where(value <= 0, torch.zeros_like(error), error), kinked)


def _by_chords(energy: ChordEnergy, control: Tensor) -> tuple[Tensor, ...]:
    """Energy, length, error, and whether kinks are crossed."""
    metric, nodes, dense = energy.metric, energy.nodes(control), energy.num_segments == DENSE
    finer = energy.num_segments if dense else 2 * energy.num_segments + energy.num_knots
    weights, values, slopes = _spline.gauss_rule(energy.num_knots, finer, control)
    speed = _autodiff.directional(metric.embed, values @ control, slopes @ control)[1].norm(dim=-1)
    length, saving = (speed * weights).sum(-1), None
    if dense:
        images, force = _autodiff.pull_back(metric.embed, nodes, energy.image_force)
        stride = energy.num_segments // bubbles(energy.num_knots, energy.num_segments)
        rates = energy.rates_of(images).expand(len(control), energy.num_segments)
        middle = metric.metric(nodes[:, stride // 2 :: stride])
        saving = bubble_saving(torch, _linalg.solve, force[:, 1:], rates, middle)
    else:
        images = metric.embed(nodes)
    value, (lacking, kinked) = energy.of(images), kinks(torch, images, length)
    if not dense and (rows := kinked.nonzero().squeeze(-1)).numel():
        closer = _spline.uniform_basis(energy.num_knots, CLOSER * energy.num_segments, control) @ control[rows]
        kinked = kinked.index_put((rows,), kinks(torch, metric.embed(closer), length[rows], CLOSER)[1])
    error = chord_error(torch, value, length, energy.richardson, torch.where(kinked, lacking, 0.0), saving)
    return value, length, error, kinked


def _by_quadrature(fine: QuadratureEnergy, control: Tensor) -> tuple[Tensor, Tensor]:
    """Length and what the bubbles could save of the energy, both ``(P,)``."""
    curve = fine.curve(control)
    weights, *bubble = splines.bubbles(fine.num_knots, fine.num_segments)
    value, slope = (torch.from_numpy(numbers).to(control)[:, None] for numbers in bubble)
    metric, derivative, _ = fine.metric.metric_derivatives(curve.points, curve.velocity)
    momentum = torch.einsum("pqij,pqj->pqi", metric, curve.velocity)
    force = 0.5 * torch.einsum("pqji,pqj->pqi", derivative, curve.velocity)
    speed = (momentum * curve.velocity).sum(-1).clamp(min=0).sqrt()
    length = (speed * torch.from_numpy(weights).to(control)).sum(-1)
    weight, shape = curve.weights[..., None], (fine.num_knots, -1)
    gradient = (weight * (slope * momentum + value * force)).unflatten(1, shape).sum(2)
    stiffness = ((weight * slope.square())[..., None] * metric).unflatten(1, shape).sum(2)
    solved = solve_small(stiffness, gradient[..., None])[..., 0]
    return length, 0.5 * (gradient * solved).sum((-1, -2))


def report(converged: Tensor, on_failure: str, total: int) -> None:
    """Warn or raise where some of ``total`` pairs of points have no geodesic that passed."""
    if on_failure == "ignore" or torch.jit.is_tracing() or bool(converged.all()):
        return
    message = failure(int((~converged).sum()), total)
    if on_failure == "raise":
        raise RuntimeError(message)
    warn(message)
