"""Uniform laws by a mixture proposal: importance sampling for the volume, an independence chain for the draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann.distributions._box import SamplerReport, VolumeRule, rows_at_once
from pyro_riemann.distributions._box_fit import steps_to_forget
from pyro_riemann.distributions._box_mixture import MixtureProposal, effective_share
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.metrics import RiemannianMetric

_REPLICATES = 8  # of randomised quasi Monte Carlo: their spread is the error
_BIAS = 0.005  # total variation left by the independence Metropolis chain
_MAX_STEPS = 512
_NUM_MOVES = 2


class MixtureLaw:
    """Importance sampling from a mixture; draws by independence Metropolis and Hamiltonian moves.

    Args:
        metric: the metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        proposal: the mixture.
        num_points: quasi Monte Carlo points in each of the replicates.
    """

    def __init__(
        self, metric: RiemannianMetric, low: Tensor, high: Tensor, proposal: MixtureProposal, num_points: int = 2048
    ) -> None:
        self._metric, self._low, self.proposal = metric, low, proposal
        dim = low.shape[0]
        engines = [torch.quasirandom.SobolEngine(dim + 1, scramble=True, seed=seed) for seed in range(_REPLICATES)]
        uniform = torch.cat([engine.draw(num_points, dtype=torch.float64) for engine in engines]).to(low.device)
        z = proposal.place(uniform)
        log_weight = proposal.weigh(metric, z, low.dtype)
        mean = log_weight.logsumexp(0) - math.log(log_weight.numel())
        replicates = log_weight.reshape(_REPLICATES, num_points).logsumexp(1) - math.log(num_points)
        spread = (replicates - mean).exp().std() / _REPLICATES**0.5
        inside = log_weight > -torch.inf
        weights = log_weight[inside].softmax(0)
        self.rule = VolumeRule(mean.to(low), spread.to(low), z[inside].to(low), weights.to(low))
        self._num_steps = steps_to_forget(log_weight, _BIAS, _MAX_STEPS)
        generator = torch.Generator(low.device).manual_seed(0)
        start = torch.multinomial(weights, 256, replacement=True, generator=generator)
        moves = BoxMoves(low, high, proposal.scale().to(low), rows=rows_at_once(metric))
        self._moves, acceptance = moves.tuned(self._log_density, self.rule.nodes[start], generator)
        self.report = SamplerReport("mixture", effective_share(log_weight), acceptance, self._num_steps)

    def _log_density(self, z: Tensor) -> Tensor:
        return 0.5 * self._metric.logdet(z)

    def draw(self, count: int) -> Tensor:
        rows = max(1, 131072 // self._num_steps)
        pieces = [self._draw(min(rows, count - done)) for done in range(0, count, rows)]
        return torch.cat(pieces) if pieces else self._low.new_empty(0, self._low.shape[0])

    def _draw(self, count: int) -> Tensor:
        z = self.proposal.draw(count * self._num_steps)
        log_weight = self.proposal.weigh(self._metric, z, self._low.dtype).reshape(count, -1)
        end = independence_chain(log_weight)[:, -1]
        chosen = end + self._num_steps * torch.arange(count, device=end.device)
        draws = z[chosen].to(self._low)
        # a chain that has met no point of the box yet, too rare to matter, starts from the pool
        lost = log_weight.flatten()[chosen] == -torch.inf
        if bool(lost.any()):
            chosen = torch.multinomial(self.rule.weights, int(lost.sum()), replacement=True)
            draws[lost] = self.rule.nodes[chosen]
        for _ in range(_NUM_MOVES):
            draws, _ = self._moves(self._log_density, draws)
        return draws


def independence_chain(log_weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Metropolis chains that propose their row of points in order; where each chain is after every step.

    Args:
        log_weight: log importance weights of the proposals, ``(chains, steps)``; the first is the start.
        generator: of the uniform numbers.

    Returns:
        Index of the current proposal, ``(chains, steps)``.
    """
    count, steps = log_weight.shape
    threshold = torch.rand(count, steps, generator=generator, dtype=log_weight.dtype, device=log_weight.device).log()
    row = torch.arange(count, device=log_weight.device)
    current = torch.zeros_like(row)
    history = [current]
    for step in range(1, steps):
        gain = log_weight[:, step] - log_weight[row, current]  # NaN, and refused, if both are outside
        current = torch.where((threshold[:, step] < gain) | (log_weight[row, current] == -torch.inf), step, current)
        history.append(current)
    return torch.stack(history, dim=1)
