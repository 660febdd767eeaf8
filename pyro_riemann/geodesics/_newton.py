"""Damped Newton iterations for many curves at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann.geodesics._energy import System


class Solution(NamedTuple):
    """Curves after the last iteration."""

    control: Tensor  # (P, C, d)
    converged: Tensor  # (P,) bool
    iterations: Tensor  # (P,) int64


def minimise(
    evaluate: Callable[[Tensor], System],
    control: Tensor,
    max_iterations: int,
    tolerance: float,
    damping: float = 1.0,
) -> Solution:
    """Minimise the energy over the interior control points of every curve.

    A step solves ``(hessian + damping * stiffening) step = -gradient``; the damping of a curve shrinks
    when its energy falls and grows when it does not. A curve is done when the Newton decrement,
    which bounds the relative error of its energy, is below ``tolerance``: the gradient of a distance
    is a first-order quantity, so stopping on small changes of the energy would bias it.
    Curves that are done leave the batch, except under ``torch.jit.trace``, where every curve runs
    ``max_iterations`` iterations so that the recorded program has no branch on data.
    """
    static = torch.jit.is_tracing()
    precision = torch.finfo(control.dtype).eps
    tolerance, slack = max(tolerance, 30 * precision), 4 * precision
    model = evaluate(control)
    damp = torch.full_like(model.energy, damping)
    done = torch.zeros_like(model.energy, dtype=torch.bool)
    iterations = torch.zeros_like(done, dtype=torch.int64)
    rows = torch.arange(control.shape[0], device=control.device)
    for _ in range(max_iterations):
        if not static:
            rows = (~done).nonzero().squeeze(-1)
            if rows.numel() == 0:
                break
        here, now, alpha = control[rows], System(*(part[rows] for part in model)), damp[rows]
        step, decrement, definite = _newton_step(now, alpha)
        finished = definite & (decrement <= 2 * tolerance * now.energy) & (alpha < 0.5)
        trial = here + step
        new = evaluate(trial)
        better = definite & (new.energy <= now.energy * (1 + slack)) | finished
        control = _put(control, rows, _choose(better, trial, here))
        model = System(
            *(_put(part, rows, _choose(better, fresh, old)) for part, fresh, old in zip(model, new, now, strict=True))
        )
        damp = _put(damp, rows, torch.where(better, 0.3 * alpha, (4 * alpha).clamp(min=0.05)))
        done = _put(done, rows, finished | done[rows])
        iterations = _put(iterations, rows, iterations[rows] + 1)
    return Solution(control, done, iterations)


def _newton_step(model: System, damping: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step of all control points (ends stay), Newton decrement, and whether the matrix was positive definite."""
    dim = model.gradient.shape[-1]
    gradient = model.gradient[:, 1:-1].flatten(1)
    matrix = model.hessian + damping[:, None, None] * model.stiffening
    matrix = matrix[:, dim:-dim, dim:-dim]
    factor, info = torch.linalg.cholesky_ex(matrix)
    definite = info == 0
    factor = torch.where(definite[:, None, None], factor, torch.eye(factor.shape[-1]).to(factor))
    step = -torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
    decrement = -(gradient * step).sum(-1)
    step = torch.where(definite[:, None], step, torch.zeros_like(step))
    step = step.unflatten(1, (model.gradient.shape[1] - 2, dim))
    return torch.nn.functional.pad(step, (0, 0, 1, 1)), decrement, definite


def _choose(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *(1,) * (new.dim() - 1)), new, old)


def _put(whole: Tensor, rows: Tensor, part: Tensor) -> Tensor:
    if part.shape == whole.shape:
        return part
    whole = whole.clone()
    whole[rows] = part
    return whole
