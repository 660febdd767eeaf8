"""Damped Newton iterations for many curves at once."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._interface import Energy, System
from pyro_riemann.geodesics._batch import Batch, Solution, choose, factorise, newton_step, precision, refresh

_TRUST = 0.1  # largest Newton decrement, in energies, that the full Hessian is believed


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
    tolerance, slack = precision(control, tolerance)
    model = (energy.constant_system if constant else energy.system)(control)
    damping = torch.full_like(model.energy, 0.25 if constant else 1.0)
    batch = Batch(control)
    for remaining in reversed(range(max_iterations)):
        factor, definite = factorise(model, damping)
        step, decrement = newton_step(factor, model.gradient)
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
        control, *parts = choose(better, (trial, *new), (control, *model))
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
    tolerance, slack = precision(control, tolerance)
    if model is None:
        model = energy.exact_system(control)
        own = torch.ones_like(model.energy, dtype=torch.bool)
    else:
        first, gradient = energy.first_order(control)
        model = model._replace(energy=first, gradient=gradient)
        own = torch.zeros_like(model.energy, dtype=torch.bool)
    damping = torch.zeros_like(model.energy)
    batch = Batch(control)
    for _ in range(max_iterations):
        factor, definite = factorise(model, damping)
        step, decrement = newton_step(factor, model.gradient)
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
        contracts = better & ((newton_step(factor, gradient)[1] <= 0.1 * decrement) | finished)
        control, value, gradient = choose(better, (trial, value, gradient), (control, model.energy, model.gradient))
        model = model._replace(energy=value, gradient=gradient)
        # a step that fails with a Hessian of this very point needs damping, otherwise a fresh Hessian
        damped = torch.where(better | ~own, 0.1 * damping, (4 * damping).clamp(min=0.05))
        damping = torch.where(damped < 1e-3, torch.zeros_like(damped), damped)
        stale = ~contracts & (better | ~own)
        own = (own & ~better) | stale
        model = refresh(open_energy, control, model, stale, exact=True)
    if not batch.empty and not torch.jit.is_tracing():
        factor, definite = factorise(model, torch.zeros_like(damping))
        batch.judge(definite, newton_step(factor, model.gradient)[1], model.energy, enough)
    return batch.close(control)
