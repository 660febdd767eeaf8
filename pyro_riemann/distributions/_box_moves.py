"""Hamiltonian Monte Carlo in a box, all chains in one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# log density (n) and its gradient (n, d); the moves are right whatever the gradient, which only guides them
Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]


class BoxMoves:
    """Leapfrog moves that bounce off the walls of a box.

    The free flight of a particle with a diagonal mass in a box is a straight line folded at the walls: exact,
    reversible and volume preserving, so that the acceptance rule is the usual one and no chain is ever stuck
    outside.

    Args:
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        scale: length scale of the target in each coordinate, ``(d)``; the mass is ``scale ** -2``.
        step: step size in units of ``scale``.
        num_leapfrog: leapfrog steps a move.
        jitter: each chain shortens its steps in each move by a random share of up to this much. With equal steps a
            Gaussian coordinate whose period is the length of the move comes back to where it was, and never mixes.
    """

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        scale: Tensor,
        step: float = 0.5,
        num_leapfrog: int = 5,
        jitter: float = 0.4,
    ) -> None:
        self.low, self.high, self.scale, self.step = low, high, scale, step
        self.num_leapfrog, self.jitter = num_leapfrog, jitter

    def __call__(self, slopes: Slopes, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, float]:
        """One move of every chain ``(n, d)``; the chains and the acceptance rate."""
        momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
        threshold = torch.rand(z.shape[0], generator=generator, dtype=z.dtype, device=z.device).log()
        shorter = torch.rand(z.shape[0], 1, generator=generator, dtype=z.dtype, device=z.device)
        step = self.step * (1 - self.jitter * shorter)
        value, slope = slopes(z)
        start = value - 0.5 * momentum.square().sum(-1)
        point = z
        for _ in range(self.num_leapfrog):
            momentum = momentum + 0.5 * step * self.scale * slope
            point, momentum = self._fly(point, momentum, step)
            value, slope = slopes(point)
            momentum = momentum + 0.5 * step * self.scale * slope
        gain = value - 0.5 * momentum.square().sum(-1) - start
        accepted = threshold < gain  # false where the gain is NaN
        rate = float(gain.nan_to_num(nan=-torch.inf).clamp(max=0).exp().mean())
        return torch.where(accepted.unsqueeze(-1), point, z), rate

    def _fly(self, z: Tensor, momentum: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        phase = torch.remainder((z + step * self.scale * momentum - self.low) / width, 2)
        bounced = phase > 1
        folded = torch.where(bounced, 2 - phase, phase)
        return self.low + width * folded, torch.where(bounced, -momentum, momentum)

    def tuned(
        self, slopes: Slopes, z: Tensor, generator: torch.Generator | None, rounds: int = 8
    ) -> tuple[BoxMoves, float]:
        """Moves with a step size that is accepted about four times in five, and that rate."""
        step, rate = self.step, 0.0
        for _ in range(rounds):
            moves = BoxMoves(self.low, self.high, self.scale, step, self.num_leapfrog, self.jitter)
            z, rate = moves(slopes, z, generator)
            if 0.65 <= rate <= 0.95:
                break
            step = step * (1.5 if rate > 0.95 else 0.6)
        return moves, rate
