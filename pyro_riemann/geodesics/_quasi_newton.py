"""Quasi-Newton iterations for many curves at once, where gradients cost much less than Hessians."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._interface import Energy, System
from pyro_riemann.geodesics._batch import Batch, Solution, choose, factorise, newton_step, precision, refresh

_PAIRS = 6  # steps that are remembered
_ROUNDING = 1e-4  # Newton decrement, in energies, below which what a step gains tells nothing


class Memory(NamedTuple):
    """What the last steps told of the Hessian, the last step first."""

    steps: Tensor  # (P, 6, n)
    changes: Tensor  # (P, 6, n), of the gradient
    weights: Tensor  # (P, 6, 1), 1 / (step . change), 0 where nothing was told

    def add(self, step: Tensor, change: Tensor, believed: Tensor) -> Memory:
        """Remember a step where it is to be believed and the energy bends upward along it."""
        product = (step * change).sum(-1, keepdim=True)
        size = step.norm(dim=-1, keepdim=True) * change.norm(dim=-1, keepdim=True)
        told = (believed[:, None] & (product > 1e-8 * size))[..., None]
        weight = 1 / torch.where(told[:, 0], product, 1.0)
        new = (step, change, weight)
        shifted = (torch.cat([one[:, None], kept[:, :-1]], 1) for one, kept in zip(new, self, strict=True))
        return Memory(*(torch.where(told, after, before) for after, before in zip(shifted, self, strict=True)))

    def forget(self, mask: Tensor) -> Memory:
        """Nothing is told where the mask is true."""
        return self._replace(weights=torch.where(mask[:, None, None], 0.0, self.weights))

    def step(self, factor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Step of all control points (the ends stay) and decrement, by the two loops of L-BFGS."""
        pull, shares = gradient[:, 1:-1].flatten(1), []
        for step, change, weight in zip(*(part.unbind(1) for part in self), strict=True):
            shares.append(weight * (step * pull).sum(-1, keepdim=True))
            pull = pull - shares[-1] * change
        moved = torch.cholesky_solve(pull.unsqueeze(-1), factor).squeeze(-1)
        for step, change, weight, share in zip(
            *(part.flip(1).unbind(1) for part in self), reversed(shares), strict=True
        ):
            moved = moved + step * (share - weight * (change * moved).sum(-1, keepdim=True))
        moved = torch.nn.functional.pad(-moved.unflatten(1, gradient[:, 1:-1].shape[1:]), (0, 0, 1, 1))
        return moved, -(gradient * moved).sum((-1, -2))


def quasi_newton(
    energy: Energy, control: Tensor, max_iterations: int, tolerance: float, enough: float | None = None
) -> Solution:
    """L-BFGS with a tangential Hessian that is evaluated as rarely as it can be.

    A step costs one gradient. The Hessian, damped as in :func:`~pyro_riemann.geodesics._newton.descend`, is what the
    remembered steps correct; it is evaluated anew, and they are forgotten, where a step does not lower the energy or
    as many steps as one evaluation pays for have not shrunk the decrement tenfold. The damping follows what the energy
    fell, beside what the model had promised. Curves are done, and judged where they are not, as by Newton's method.
    With the tangential Hessian no end tells a minimum from a saddle: begin off any symmetry.

    Source: Liu and Nocedal (1989), *On the limited memory BFGS method for large scale optimization*; Nielsen (1999),
    *Damping parameter in Marquardt's method*.
    """
    tolerance, slack = precision(control, tolerance)
    model, dim = energy.system(control), control.shape[-1]
    patience = max(3, dim // 6)  # a Hessian costs as much as dim / 6 gradients and one
    damping = torch.ones_like(model.energy)
    fresh, since, mark = damping.bool(), torch.zeros_like(damping), damping.new_full(damping.shape, torch.inf)
    size = (control.shape[1] - 2) * dim
    memory = Memory(*(control.new_zeros(len(control), _PAIRS, n) for n in (size, size, 1)))
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
        kept = 2 * (model.energy - value) / decrement.clamp(min=torch.finfo(value.dtype).tiny)  # of the promise
        kept = torch.where(decrement < _ROUNDING * model.energy, 1.0, kept.clamp(0, 1))
        control, value, gradient = choose(better, (trial, value, gradient), (control, model.energy, model.gradient))
        model = model._replace(energy=value, gradient=gradient)
        damping = torch.where(better, damping * (1 - (2 * kept - 1) ** 3).clamp(min=0.2), (4 * damping).clamp(min=1.0))
        since = since + 1
        due = since >= patience
        stale = (~better | (due & (decrement > 0.1 * mark))) & (better | ~fresh)
        mark = torch.where(stale, torch.inf, torch.where(due | mark.isinf(), decrement, mark))
        since = torch.where(due | stale, 0.0, since)
        fresh = (fresh & ~better) | stale
        model, memory = refresh(own, control, model, stale, exact=False), memory.forget(stale)
    if not batch.empty:
        factor, definite = factorise(model, torch.zeros_like(damping))
        batch.judge(definite, newton_step(factor, model.gradient)[1], model.energy, enough)
    return batch.close(control)
