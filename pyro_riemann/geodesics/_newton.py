"""Damped Newton iterations for many curves at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._interface import Energy, System

_TRUST = 0.1  # largest Newton decrement, in energies, that the full Hessian is believed
_SETTLED = 1e-3  # Newton decrement, in energies, that moves a length by 0.05 %


class Solution(NamedTuple):
    """Curves after the last iteration."""

    control: Tensor  # (P, C, d)
    converged: Tensor  # (P,) bool
    iterations: Tensor  # (P,) int64
    settled: Tensor  # (P,) bool: converged, or no more than a distance may err from where Newton's method would end


def descend(energy: Energy, control: Tensor, max_iterations: int, tolerance: float, constant: bool = False) -> Solution:
    """Newton's method with the tangential Hessian: from far away, always downhill.

    A step solves ``(hessian + damping * stiffening) step = -gradient``; the damping of a curve shrinks
    when its energy falls and grows when it does not. A curve is done when the Newton decrement,
    which bounds the relative error of its energy, is below ``tolerance``: the gradient of a distance
    is a first-order quantity, so stopping on small changes of the energy would bias it.

    With ``constant`` the Hessian is that of a constant metric: an iteration needs one Jacobian a curve.
    Curves that are done leave the batch, except under ``torch.jit.trace``, where every curve runs
    ``max_iterations`` iterations so that the recorded program has no branch on data.
    """
    tolerance, slack = _precision(control, tolerance)
    model = (energy.constant_system if constant else energy.system)(control)
    damping = torch.full_like(model.energy, 0.25 if constant else 1.0)
    batch = _Batch(control)
    for remaining in reversed(range(max_iterations)):
        factor, definite = _factorise(model, damping)
        step, decrement = _newton_step(factor, model.gradient)
        # close enough: the step lands well within the tolerance, no need to look
        finished = definite & (decrement <= 2 * tolerance * model.energy) & (damping < 0.5)
        trial = control + step
        finished, control, trial, definite, damping, *parts = batch.release(
            finished, trial, (control, trial, definite, damping, *model)
        )
        if batch.empty:
            break
        model, own = System(*parts), energy.rows(batch.rows)
        evaluate = own.constant_system if constant else own.system
        # no step follows the last one: its energy alone is needed
        new = evaluate(trial) if remaining else model._replace(energy=own.value(trial))
        better = (definite & (new.energy <= model.energy * (1 + slack))) | finished
        control, *parts = _choose(better, (trial, *new), (control, *model))
        model = System(*parts)
        damping = torch.where(better, 0.3 * damping, (4 * damping).clamp(min=1.0))
    return batch.close(control)


def polish(
    energy: Energy,
    control: Tensor,
    max_iterations: int,
    tolerance: float,
    model: System | None = None,
    enough: float | None = None,
) -> Solution:
    """Newton's method with the full Hessian, which it evaluates as rarely as it can.

    A Hessian serves as long as each step with it shrinks the decrement tenfold; such steps need only
    the gradient. A first ``model`` (of a tabulated metric, say) can stand in for the true Hessian.
    Definiteness of the last Hessian certifies a strict local minimum. A curve that has used up its iterations counts as
    converged where the decrement is below the tolerance ``enough``. Where an immersion has kinks, as a decoder with
    ReLU has, the minimum may lie on one, the gradient jumps there, and a curve is settled at best.
    """
    tolerance, slack = _precision(control, tolerance)
    if model is None:
        model = energy.exact_system(control)
        own = torch.ones_like(model.energy, dtype=torch.bool)
    else:
        first, gradient = energy.first_order(control)
        model = model._replace(energy=first, gradient=gradient)
        own = torch.zeros_like(model.energy, dtype=torch.bool)
    damping = torch.zeros_like(model.energy)
    batch = _Batch(control)
    for _ in range(max_iterations):
        factor, definite = _factorise(model, damping)
        step, decrement = _newton_step(factor, model.gradient)
        finished = definite & (decrement <= 2 * tolerance * model.energy) & (damping < 0.5)
        # a Hessian close to singular throws the curve far away, where the metric may be dear or not defined
        definite = definite & (decrement <= _TRUST * model.energy)
        trial = torch.where(definite[:, None, None], control + step, control)
        finished, control, trial, definite, decrement, factor, damping, own, *parts = batch.release(
            finished, trial, (control, trial, definite, decrement, factor, damping, own, *model)
        )
        if batch.empty:
            break
        model, open_energy = System(*parts), energy.rows(batch.rows)
        value, gradient = open_energy.first_order(trial)
        better = (definite & (value <= model.energy * (1 + slack))) | finished
        contracts = better & ((_newton_step(factor, gradient)[1] <= 0.1 * decrement) | finished)
        control, value, gradient = _choose(better, (trial, value, gradient), (control, model.energy, model.gradient))
        model = model._replace(energy=value, gradient=gradient)
        # a step that fails with a Hessian of this very point needs damping, otherwise a fresh Hessian
        damped = torch.where(better | ~own, 0.1 * damping, (4 * damping).clamp(min=0.05))
        damping = torch.where(damped < 1e-3, torch.zeros_like(damped), damped)
        stale = ~contracts & (better | ~own)
        own = (own & ~better) | stale
        model = _refresh(open_energy, control, model, stale)
    if not batch.empty and not torch.jit.is_tracing():
        factor, definite = _factorise(model, torch.zeros_like(damping))
        decrement = _newton_step(factor, model.gradient)[1]
        batch.settled[batch.rows] = definite & (decrement <= 2 * _SETTLED * model.energy)
        if enough is not None:
            batch.done[batch.rows] = definite & (decrement <= 2 * enough * model.energy)
    return batch.close(control)


class _Batch:
    """Which curves are still open, and what became of the others."""

    def __init__(self, control: Tensor) -> None:
        self.control = control
        self.rows = torch.arange(control.shape[0], device=control.device)
        self.done = torch.zeros_like(self.rows, dtype=torch.bool)
        self.settled = self.done.clone()
        self.iterations = torch.zeros_like(self.rows)
        self.empty = control.shape[0] == 0

    def release(self, finished: Tensor, last: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Let the ``finished`` curves leave as ``last``; gives ``finished`` and the ``state`` of those that stay.

        Under tracing all stay.
        """
        if torch.jit.is_tracing():
            self.iterations, self.done = self.iterations + 1, finished
            return finished, *state
        _work.stage("geodesics", len(self.done) - len(self.rows), len(self.done))
        self.iterations[self.rows] += 1
        if not bool(finished.any()):
            return finished, *state
        gone, stay = self.rows[finished], (~finished).nonzero().squeeze(-1)
        self.control = self.control.index_put((gone,), last[finished])
        self.done[gone] = True
        self.rows, self.empty = self.rows[stay], stay.numel() == 0
        return tuple(part[stay] for part in (finished, *state))

    def close(self, control: Tensor) -> Solution:
        """All curves, those that are still open as ``control``."""
        if torch.jit.is_tracing():
            return Solution(control, self.done, self.iterations, self.done)
        whole = self.control.index_put((self.rows,), control)
        return Solution(whole, self.done, self.iterations, self.settled | self.done)


def _refresh(energy: Energy, control: Tensor, model: System, stale: Tensor) -> System:
    """Evaluate the Hessian where it is stale; everywhere under tracing, which cannot branch."""
    if torch.jit.is_tracing():
        return energy.exact_system(control)
    rows = stale.nonzero().squeeze(-1)
    if rows.numel() == 0:
        return model
    fresh = energy.rows(rows).exact_system(control[rows])
    if rows.numel() == stale.numel():
        return fresh
    return System(*(old.index_put((rows,), new) for old, new in zip(model, fresh, strict=True)))


def _precision(control: Tensor, tolerance: float) -> tuple[float, float]:
    """The tolerance that the dtype can reach, and the rounding of an energy."""
    eps = torch.finfo(control.dtype).eps
    return max(tolerance, 4 * eps), 4 * eps


def _factorise(model: System, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor over the interior control points, the identity where it does not exist."""
    inner = slice(dim := model.gradient.shape[-1], -dim)
    hessian, stiffening = (matrix[:, inner, inner] for matrix in model[2:])
    factor, info = torch.linalg.cholesky_ex(torch.addcmul(hessian, damping[:, None, None], stiffening))
    definite = info == 0
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.where(definite[:, None, None], factor, unit), definite


def _newton_step(factor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Step of all control points (the ends stay) and Newton decrement."""
    interior = gradient[:, 1:-1]
    step = -torch.cholesky_solve(interior.flatten(1).unsqueeze(-1), factor).squeeze(-1)
    step = step.unflatten(1, interior.shape[1:])
    return torch.nn.functional.pad(step, (0, 0, 1, 1)), -(interior * step).sum((-1, -2))


def _choose(mask: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Curve by curve, the ``new`` values where the mask is true."""
    if not torch.jit.is_tracing() and bool(mask.all()):
        return new
    pairs = zip(new, old, strict=True)
    return tuple(torch.where(mask.reshape(-1, *(1,) * (after.dim() - 1)), after, before) for after, before in pairs)
