"""Uniform laws where no proposal fits: a tempered sequence of particle populations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann.distributions._box import SamplerReport, VolumeRule, log_volume_element
from pyro_riemann.distributions._box_mixture import BoxMixture
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.metrics import RiemannianMetric

_ISLANDS = 8  # independent populations: the spread of their volumes is the error
_PARTICLES = 512
_NUM_MOVES = 3
_KEEP = 0.7  # effective sample size that a change of temperature may cost
_MAX_STAGES = 200


class TemperedLaw:
    """Sequential Monte Carlo from a proposal to the law, along ``proposal^(1 - b) density^b``.

    Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*. A draw is a random particle of the last
    population, moved on by Hamiltonian Monte Carlo; draws of one law share that population, so
    that its error (that of the volume) does not average out over draws.

    Args:
        metric: the metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        proposal: where the sequence starts.
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor, proposal: BoxMixture) -> None:
        self._metric, self._low = metric, low
        dim, device = low.shape[0], low.device
        generator = torch.Generator(device).manual_seed(0)
        uniform = torch.rand(
            4 * _ISLANDS * _PARTICLES, dim + 1, generator=generator, dtype=torch.float64, device=device
        )
        start = proposal.place(uniform)
        start = start[((start >= proposal.low) & (start <= proposal.high)).all(-1)]
        inside = start.shape[0] / uniform.shape[0]
        z = start.to(low).repeat(4, 1)[: _ISLANDS * _PARTICLES]
        log_mass = torch.full((_ISLANDS,), math.log(inside), dtype=torch.float64, device=device)
        moves = BoxMoves(low, high, z.std(0))
        heat, acceptance = 0.0, 1.0

        def gap(point: Tensor) -> Tensor:
            return 0.5 * metric.logdet(point).double() - proposal.log_prob(point.double())

        for _ in range(_MAX_STAGES):
            with torch.no_grad():
                log_ratio = (log_volume_element(metric, z).double() - proposal.log_prob(z.double())).view(_ISLANDS, -1)
            rise = _next_rise(log_ratio, 1 - heat)
            heat = heat + rise
            log_mass = log_mass + (rise * log_ratio).logsumexp(1) - math.log(_PARTICLES)
            chosen = torch.multinomial((rise * log_ratio).softmax(1), _PARTICLES, replacement=True, generator=generator)
            z = z.view(_ISLANDS, _PARTICLES, dim).gather(1, chosen.unsqueeze(-1).expand(-1, -1, dim)).flatten(0, 1)

            def target(point: Tensor, heat: float = heat) -> Tensor:
                return proposal.log_prob(point.double()) + heat * gap(point)

            moves.scale = z.std(0)
            moves, acceptance = moves.tuned(target, z[::8], generator, rounds=3)
            for _ in range(_NUM_MOVES):
                z, acceptance = moves(target, z, generator)
            if heat >= 1:
                break
        else:
            raise RuntimeError(
                f"RiemannianUniform reached only {heat:.2e} of the way from the proposal to the law in {_MAX_STAGES} "
                "stages: `metric` varies too fast in the box. Use a smaller box or a smoother metric."
            )
        log_volume = log_mass.logsumexp(0) - math.log(_ISLANDS)
        relative = (log_mass - log_volume).exp().std()
        error = (relative / _ISLANDS**0.5).to(low)
        share = torch.full((z.shape[0],), 1 / z.shape[0]).to(low)
        self.rule = VolumeRule(log_volume.to(low), error, z, share)
        self._moves = moves
        efficiency = 1 / (1 + _PARTICLES * float(relative) ** 2)
        self.report = SamplerReport("tempered", efficiency, acceptance, 1)

    def draw(self, count: int) -> Tensor:
        nodes = self.rule.nodes
        draws = nodes[torch.randint(nodes.shape[0], (count,), device=nodes.device)]
        for _ in range(2 * _NUM_MOVES):
            draws, _ = self._moves(lambda z: 0.5 * self._metric.logdet(z), draws)
        return draws


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
