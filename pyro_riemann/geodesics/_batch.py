"""Curves in work: which of them are still open, and the steps of Newton's method for all."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._interface import Energy, System

_SETTLED = 1e-3  # Newton decrement, in energies, that moves a length by 0.05 %


class Solution(NamedTuple):
    """Curves after the last iteration."""

    control: Tensor  # (P, C, d)
    converged: Tensor  # (P,) bool
    iterations: Tensor  # (P,) int64
    settled: Tensor  # (P,) bool: converged, or no more than a distance may err from where Newton's method would end


class Batch:
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

    def judge(self, definite: Tensor, decrement: Tensor, energy: Tensor, enough: float | None) -> None:
        """What the curves that are still open are worth: settled, and done where ``enough`` is asked for."""
        self.settled[self.rows] = definite & (decrement <= 2 * _SETTLED * energy)
        if enough is not None:
            self.done[self.rows] = definite & (decrement <= 2 * enough * energy)

    def close(self, control: Tensor) -> Solution:
        """All curves, those that are still open as ``control``."""
        if torch.jit.is_tracing():
            return Solution(control, self.done, self.iterations, self.done)
        whole = self.control.index_put((self.rows,), control)
        return Solution(whole, self.done, self.iterations, self.settled | self.done)


def refresh(energy: Energy, control: Tensor, model: System, stale: Tensor, exact: bool) -> System:
    """Evaluate the Hessian, the full or the tangential one, where it is stale; everywhere under tracing."""
    if torch.jit.is_tracing():  # which cannot branch
        return _evaluate(energy, control, exact)
    rows = stale.nonzero().squeeze(-1)
    if rows.numel() == 0:
        return model
    fresh = _evaluate(energy.rows(rows), control[rows], exact)
    if rows.numel() == stale.numel():
        return fresh
    return System(*(old.index_put((rows,), new) for old, new in zip(model, fresh, strict=True)))


def _evaluate(energy: Energy, control: Tensor, exact: bool) -> System:
    return energy.exact_system(control) if exact else energy.system(control)


def precision(control: Tensor, tolerance: float) -> tuple[float, float]:
    """The tolerance that the dtype can reach, and the rounding of an energy."""
    eps = torch.finfo(control.dtype).eps
    return max(tolerance, 4 * eps), 4 * eps


def factorise(model: System, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor over the interior control points, the identity where it does not exist."""
    inner = slice(dim := model.gradient.shape[-1], -dim)
    hessian, stiffening = (matrix[:, inner, inner] for matrix in model[2:])
    factor, info = torch.linalg.cholesky_ex(torch.addcmul(hessian, damping[:, None, None], stiffening))
    definite = info == 0
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.where(definite[:, None, None], factor, unit), definite


def newton_step(factor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Step of all control points (the ends stay) and Newton decrement."""
    interior = gradient[:, 1:-1]
    step = -torch.cholesky_solve(interior.flatten(1).unsqueeze(-1), factor).squeeze(-1)
    step = step.unflatten(1, interior.shape[1:])
    return torch.nn.functional.pad(step, (0, 0, 1, 1)), -(interior * step).sum((-1, -2))


def choose(mask: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Curve by curve, the ``new`` values where the mask is true."""
    if not torch.jit.is_tracing() and bool(mask.all()):
        return new
    pairs = zip(new, old, strict=True)
    return tuple(torch.where(mask.reshape(-1, *(1,) * (after.dim() - 1)), after, before) for after, before in pairs)
