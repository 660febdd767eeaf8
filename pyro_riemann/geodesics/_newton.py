"""Damped Newton iterations for many curves at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann.geodesics._energy import Energy, System


class Solution(NamedTuple):
    """Curves after the last iteration."""

    control: Tensor  # (P, C, d)
    converged: Tensor  # (P,) bool
    iterations: Tensor  # (P,) int64


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
    evaluate = energy.constant_system if constant else energy.system
    model = evaluate(control)
    damping = torch.full_like(model.energy, 0.25 if constant else 1.0)
    done = torch.zeros_like(model.energy, dtype=torch.bool)
    iterations = torch.zeros_like(done, dtype=torch.int64)
    for remaining in reversed(range(max_iterations)):
        rows = _open_rows(done)
        if rows is not None and rows.numel() == 0:
            break
        here, alpha = _pick(control, rows), _pick(damping, rows)
        now = System(*(_pick(part, rows) for part in model))
        factor, definite = _factorise(now.hessian + alpha[:, None, None] * now.stiffening, now.gradient.shape[-1])
        step, decrement = _newton_step(factor, now.gradient)
        finished = definite & (decrement <= 2 * tolerance * now.energy) & (alpha < 0.5)
        trial = here + step
        # no step follows the last one: its energy alone is needed
        new = evaluate(trial) if remaining else now._replace(energy=energy.value(trial))
        better = (definite & (new.energy <= now.energy * (1 + slack))) | finished
        control = _put(control, rows, _choose(better, trial, here))
        fresh = (_choose(better, after, before) for after, before in zip(new, now, strict=True))
        model = System(*(_put(part, rows, part_new) for part, part_new in zip(model, fresh, strict=True)))
        damping = _put(damping, rows, torch.where(better, 0.3 * alpha, (4 * alpha).clamp(min=1.0)))
        done = _put(done, rows, finished)
        iterations = _put(iterations, rows, _pick(iterations, rows) + 1)
    return Solution(control, done, iterations)


def polish(
    energy: Energy, control: Tensor, max_iterations: int, tolerance: float, model: System | None = None
) -> Solution:
    """Newton's method with the full Hessian, which it evaluates as rarely as it can.

    A Hessian serves as long as each step with it shrinks the decrement tenfold; such steps need only
    the gradient. A first ``model`` (of a tabulated metric, say) can stand in for the true Hessian.
    Definiteness of the last Hessian certifies a strict local minimum.
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
    done = torch.zeros_like(own)
    iterations = torch.zeros_like(done, dtype=torch.int64)
    for _ in range(max_iterations):
        rows = _open_rows(done)
        if rows is not None and rows.numel() == 0:
            break
        here, alpha, exact = _pick(control, rows), _pick(damping, rows), _pick(own, rows)
        now = System(*(_pick(part, rows) for part in model))
        factor, definite = _factorise(now.hessian + alpha[:, None, None] * now.stiffening, now.gradient.shape[-1])
        step, decrement = _newton_step(factor, now.gradient)
        # close enough: the step lands well within the tolerance, no need to look
        finished = definite & (decrement <= 2 * tolerance * now.energy) & (alpha < 0.5)
        trial = here + step
        value, gradient = energy.first_order(trial)
        better = (definite & (value <= now.energy * (1 + slack))) | finished
        _, after = _newton_step(factor, gradient)
        contracts = better & ((after <= 0.1 * decrement) | finished)
        control = _put(control, rows, _choose(better, trial, here))
        now = now._replace(
            energy=torch.where(better, value, now.energy), gradient=_choose(better, gradient, now.gradient)
        )
        model = System(*(_put(part, rows, part_new) for part, part_new in zip(model, now, strict=True)))
        # a step that fails with a Hessian of this very point needs damping, otherwise a fresh Hessian
        damped = torch.where(better | ~exact, 0.1 * alpha, (4 * alpha).clamp(min=0.05))
        damping = _put(damping, rows, torch.where(damped < 1e-3, torch.zeros_like(damped), damped))
        done = _put(done, rows, finished)
        stale = ~contracts & (better | ~exact)
        own = _put(own, rows, (exact & ~better) | stale)
        iterations = _put(iterations, rows, _pick(iterations, rows) + 1)
        model = _refresh(energy, control, model, rows, stale)
    return Solution(control, done, iterations)


def _refresh(energy: Energy, control: Tensor, model: System, rows: Tensor | None, stale: Tensor) -> System:
    """Evaluate the Hessian where it is stale; everywhere under tracing, which cannot branch."""
    if rows is None:
        return energy.exact_system(control)
    rows = rows[stale]
    if rows.numel() == 0:
        return model
    fresh = energy.exact_system(control[rows])
    return System(*(_put(part, rows, part_new) for part, part_new in zip(model, fresh, strict=True)))


def _precision(control: Tensor, tolerance: float) -> tuple[float, float]:
    """The tolerance that the dtype can reach, and the rounding of an energy."""
    eps = torch.finfo(control.dtype).eps
    return max(tolerance, 4 * eps), 4 * eps


def _factorise(matrix: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Cholesky factor over the interior control points, the identity where it does not exist."""
    factor, info = torch.linalg.cholesky_ex(matrix[:, dim:-dim, dim:-dim])
    definite = info == 0
    return torch.where(definite[:, None, None], factor, torch.eye(factor.shape[-1]).to(factor)), definite


def _newton_step(factor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Step of all control points (the ends stay) and Newton decrement."""
    interior = gradient[:, 1:-1]
    step = -torch.cholesky_solve(interior.flatten(1).unsqueeze(-1), factor).squeeze(-1)
    step = step.unflatten(1, interior.shape[1:])
    return torch.nn.functional.pad(step, (0, 0, 1, 1)), -(interior * step).sum((-1, -2))


def _open_rows(done: Tensor) -> Tensor | None:
    return None if torch.jit.is_tracing() else (~done).nonzero().squeeze(-1)


def _pick(whole: Tensor, rows: Tensor | None) -> Tensor:
    return whole if rows is None or rows.numel() == whole.shape[0] else whole[rows]


def _put(whole: Tensor, rows: Tensor | None, part: Tensor) -> Tensor:
    if rows is None or rows.numel() == whole.shape[0]:
        return part
    whole = whole.clone()
    whole[rows] = part
    return whole


def _choose(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *(1,) * (new.dim() - 1)), new, old)
