"""Quasi-Newton iterations for many curves at once, where gradients cost much less than Hessians."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas.quasi_newton import PAIRS, damped, direction, patience, told
from pyro_riemann._interface import Energy, System
from pyro_riemann.geodesics._batch import Batch, Solution, choose, factorise, newton_step, precision, refresh


class Memory(NamedTuple):
    """What the last steps told of the Hessian, the last step first."""

    steps: Tensor  # (P, 6, n)
    changes: Tensor  # (P, 6, n), of the gradient
    weights: Tensor  # (P, 6), 1 / (step . change), 0 where nothing was told

    def add(self, step: Tensor, change: Tensor, believed: Tensor) -> Memory:
        """Remember a step ``(P, n)`` where it tells something."""
        mask, weight = told(torch, step, change, believed)
        shifted = [
            torch.cat([new[:, None], old[:, :-1]], 1) for new, old in zip((step, change, weight), self, strict=True)
        ]
        return Memory(*choose(mask, tuple(shifted), self))

    def forget(self, mask: Tensor) -> Memory:
        """Nothing is told where the mask is true."""
        return self._replace(weights=torch.where(mask[:, None], 0.0, self.weights))

    def step(self, factor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Step of all control points (the ends stay) and decrement."""
        inner = gradient[:, 1:-1]
        moved = direction(lambda pull: torch.cholesky_solve(pull[..., None], factor)[..., 0], *self, inner.flatten(1))
        moved = moved.unflatten(1, inner.shape[1:])
        return torch.nn.functional.pad(-moved, (0, 0, 1, 1)), (inner * moved).sum((-1, -2)).abs()  # rounding


def quasi_newton(
    energy: Energy, control: Tensor, max_iterations: int, tolerance: float, enough: float | None = None
) -> Solution:
    """L-BFGS with a tangential Hessian that is evaluated as rarely as it can be.

    A step costs one gradient. The Hessian, damped as in :func:`~pyro_riemann.geodesics._newton.descend`, is what the
    remembered steps correct; it is evaluated anew, and they are forgotten, where a step does not lower the energy or
    as many steps as one evaluation pays for have not shrunk the decrement tenfold. The damping follows what the energy
    fell, beside what the model had promised. Curves are done, and judged where they are not, as by Newton's method.
    With the tangential Hessian no end tells a minimum from a saddle: begin off any symmetry.
    """
    tolerance, slack = precision(control, tolerance)
    model, dim = energy.system(control), control.shape[-1]
    damping = torch.ones_like(model.energy)
    fresh, since, mark = damping.bool(), torch.zeros_like(damping), torch.full_like(damping, torch.inf)
    size = (control.shape[1] - 2) * dim
    memory = Memory(*(control.new_zeros(len(control), PAIRS, *shape) for shape in ((size,), (size,), ())))
    batch = Batch(control)
    for _ in range(max_iterations):
        factor, definite = factorise(model, damping)
        step, decrement = memory.step(factor, model.gradient)
        finished = definite & (decrement <= 2 * tolerance * model.energy) & (damping < 0.5)
        trial = control + step
        finished, control, trial, definite, decrement, damping, fresh, since, mark, *parts = batch.release(
            finished, trial, (control, trial, definite, decrement, damping, fresh, since, mark, *memory, *model)
        )
        if batch.empty:
            break
        memory, model, own = Memory(*parts[:3]), System(*parts[3:]), energy.rows(batch.rows)
        value, gradient = own.first_order(trial)
        better = (definite & (value <= model.energy * (1 + slack))) | finished
        moved, change = ((new - old)[:, 1:-1].flatten(1) for new, old in ((trial, control), (gradient, model.gradient)))
        memory = memory.add(moved, change, better)
        damping = damped(torch, damping, better, model.energy - value, decrement, model.energy)
        control, value, gradient = choose(better, (trial, value, gradient), (control, model.energy, model.gradient))
        model = model._replace(energy=value, gradient=gradient)
        since = since + 1
        due = since >= patience(dim)
        stale = (~better | (due & (decrement > 0.1 * mark))) & (better | ~fresh)
        mark = torch.where(stale, torch.inf, torch.where(due | mark.isinf(), decrement, mark))
        since = torch.where(due | stale, 0.0, since)
        fresh = (fresh & ~better) | stale
        model, memory = refresh(own, control, model, stale, exact=False), memory.forget(stale)
    if not batch.empty:
        factor, definite = factorise(model, torch.zeros_like(damping))
        batch.judge(definite, newton_step(factor, model.gradient)[1], model.energy, enough)
    return batch.close(control)
