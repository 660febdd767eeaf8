"""Tempered sequences of particle populations, from a proposal to the uniform law of a box."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann.distributions._box import log_volume_slope
from pyro_riemann.distributions._box_mixture import MixtureProposal
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.metrics import RiemannianMetric

NUM_MOVES = 3
_KEEP = 0.7  # effective sample size that a change of temperature may cost
_MAX_STAGES = 200
_WELL = 0.65, 0.95  # acceptance at which moves need no other step size


class Population(NamedTuple):
    """What a tempered sequence ends with.

    Attributes:
        particles: ``(islands, n, d)``, of equal weight.
        log_mass: log volume that each island estimates, ``(islands)``; independent of each other.
        moves: the Hamiltonian moves tuned to the last population.
        acceptance: rate of the last moves.
        stages: temperatures used.
        evaluations: points at which the volume element was asked for, its gradients included.
        short: whether the budget cut the sequence short.
    """

    particles: Tensor
    log_mass: Tensor
    moves: BoxMoves
    acceptance: float
    stages: int
    evaluations: int
    short: bool = False

    def log_volume(self) -> tuple[Tensor, Tensor]:
        """Log of the mean over islands, and its standard error."""
        mean = self.log_mass.logsumexp(0) - math.log(len(self.log_mass))
        return mean, (self.log_mass - mean).exp().std() / len(self.log_mass) ** 0.5

    def efficiency(self) -> float:
        """Share of the particles that independent draws as good as these would need."""
        relative = self.log_volume()[1] * len(self.log_mass) ** 0.5
        return 1 / (1 + self.particles.shape[1] * float(relative) ** 2)


def temper(
    metric: RiemannianMetric,
    low: Tensor,
    high: Tensor,
    proposal: MixtureProposal,
    islands: int,
    particles: int,
    generator: torch.Generator | None = None,
    num_moves: int = NUM_MOVES,
    budget: float = math.inf,
    volume_alone: bool = False,
) -> Population:
    """Sequential Monte Carlo from a proposal to the uniform law, along ``proposal^(1 - b) density^b``.

    The next exponent b is the largest that leaves 70 % of every island effective. Resampling is systematic;
    moves are Hamiltonian, tuned to the population. Where the next stage would take more than ``budget`` points, one
    jump to the end takes its place: right, and as inaccurate as the islands then differ. The moves of the last stage do
    not change the volume: with ``volume_alone`` they are left out.

    Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.
    """
    dim, count = low.shape[0], islands * particles
    # the mass inside the box is an estimate too: each island has its own, or the islands would share its error
    starts = [_starts(proposal, particles, generator) for _ in range(islands)]
    z = torch.cat([points for points, _ in starts]).to(low)
    log_mass = torch.tensor([inside for _, inside in starts], dtype=torch.float64, device=low.device).log()
    moves, heat, acceptance = BoxMoves(low, high, z.std(0)), 0.0, 1.0
    evaluations = 0
    for stage in range(1, _MAX_STAGES + 1):
        log_ratio = proposal.weigh(metric, z.double(), low.dtype).view(islands, particles)
        cost = count * (1 + (num_moves + 1) * (moves.num_leapfrog + 1))  # at most
        short = evaluations + 2 * cost > budget  # no stage would fit after this one
        rise = 1 - heat if short else _next_rise(log_ratio, 1 - heat)
        heat = 1.0 if rise == 1 - heat else heat + rise
        log_mass = log_mass + (rise * log_ratio).logsumexp(1) - math.log(particles)
        if heat >= 1 and volume_alone:
            return Population(z.view(islands, particles, dim), log_mass, moves, acceptance, stage, evaluations, short)
        chosen = systematic((rise * log_ratio).softmax(1), particles, generator)
        z = z.view(islands, particles, dim).gather(1, chosen.unsqueeze(-1).expand(-1, -1, dim)).flatten(0, 1)

        def target(point: Tensor, heat: float = heat) -> tuple[Tensor, Tensor]:
            value, slope = log_volume_slope(metric, point)
            if heat >= 1:
                return value.double(), slope
            other, push = proposal.with_slope(point.double())
            return heat * value.double() + (1 - heat) * other, heat * slope + (1 - heat) * push.to(slope)

        moves.scale = z.std(0)
        if heat >= 1 or not _WELL[0] <= acceptance <= _WELL[1]:  # else the last temperature's steps will do
            moves, acceptance = moves.tuned(target, z[:: max(1, count // 512)], generator, rounds=3)
        for _ in range(num_moves):
            z, acceptance = moves(target, z, generator)
        evaluations += cost
        if heat >= 1:
            return Population(z.view(islands, particles, dim), log_mass, moves, acceptance, stage, evaluations, short)
    raise RuntimeError(
        f"The tempered sequence reached only {heat:.2e} of the way from the proposal to the uniform law in "
        f"{_MAX_STAGES} stages: `metric` varies too fast in the box. Use a smaller box or a smoother metric."
    )


def _starts(proposal: MixtureProposal, count: int, generator: torch.Generator | None) -> tuple[Tensor, float]:
    """``count`` draws of the proposal inside the box, and the share of the first draws that are."""
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        z = proposal.draw(2 * count, generator)
        kept.append(z[((z >= proposal.low) & (z <= proposal.high)).all(-1)])
    # what is drawn until there are enough says nothing new: such a share is biased
    return torch.cat(kept)[:count], max(len(kept[0]), 1) / (2 * count)


def systematic(weights: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices ``(rows, count)``, in order, by systematic resampling of ``weights (rows, n)``, each row summing to 1."""
    offset = torch.rand(len(weights), 1, generator=generator, dtype=weights.dtype, device=weights.device)
    ticks = (torch.arange(count, dtype=weights.dtype, device=weights.device) + offset) / count
    edges = weights.cumsum(1)
    return torch.searchsorted(edges / edges[:, -1:], ticks, right=True).clamp(max=weights.shape[1] - 1)


def _next_rise(log_ratio: Tensor, remaining: float) -> float:
    """Largest change of temperature that keeps the effective sample size of every island at ``_KEEP``."""

    def kept(rise: float) -> float:
        log_weight = rise * log_ratio
        size = 2 * log_weight.logsumexp(1) - (2 * log_weight).logsumexp(1) - math.log(log_ratio.shape[1])
        return float(size.exp().min())

    if kept(remaining) >= _KEEP:
        return remaining
    below, above = 0.0, remaining
    for _ in range(40):
        middle = 0.5 * (below + above)
        below, above = (middle, above) if kept(middle) >= _KEEP else (below, middle)
    return max(below, 1e-6)
