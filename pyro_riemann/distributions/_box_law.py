"""Uniform laws on a box where there is no table: a mixture proposal, or a tempered population where none fits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.distributions._box import SamplerReport, VolumeRule, log_volume_slope
from pyro_riemann.distributions._box_fit import Fitted, steps_to_forget
from pyro_riemann.distributions._box_mixture import effective_share
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.distributions._box_tempered import NUM_MOVES, temper
from pyro_riemann.metrics import RiemannianMetric

_REPLICATES = 16  # of randomised quasi Monte Carlo: their spread is the error
_BIAS = 0.005  # total variation left by the independence Metropolis chain
_MAX_STEPS = 512
_NUM_MOVES = 2


class MixtureLaw:
    """Importance sampling from a mixture; draws by independence Metropolis and Hamiltonian moves.

    Args:
        metric: the metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        fitted: the mixture, and another estimate of the volume.
        num_points: quasi Monte Carlo points in each of the replicates.
    """

    def __init__(
        self, metric: RiemannianMetric, low: Tensor, high: Tensor, fitted: Fitted, num_points: int = 1024
    ) -> None:
        self._metric, self._low, self.proposal = metric, low, fitted.proposal
        proposal = fitted.proposal
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
        volume, self.doubt = fitted.checked(Estimate(mean.to(low), spread.to(low)), weighed=True)
        self.rule = VolumeRule(*volume, z[inside].to(low), weights.to(low))
        self._num_steps = steps_to_forget(log_weight, _BIAS, _MAX_STEPS)
        generator = torch.Generator(low.device).manual_seed(0)
        start = torch.multinomial(weights, 256, replacement=True, generator=generator)
        moves = BoxMoves(low, high, proposal.scale().to(low))
        self._moves, acceptance = moves.tuned(self._slopes, self.rule.nodes[start], generator)
        self.report = SamplerReport(
            "mixture",
            effective_share(log_weight),
            acceptance,
            self._num_steps,
            fitted.reason,
            self.rule.on_floor(metric),
        )

    def _slopes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return log_volume_slope(self._metric, z)

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
            draws, _ = self._moves(self._slopes, draws)
        return draws


class TemperedLaw:
    """A tempered population as the law of a box.

    A draw is a random particle, moved on by Hamiltonian Monte Carlo; draws of one law share the population, so
    that its error (that of the volume) does not average out over draws.

    Args:
        metric: the metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        fitted: a mixture, and its estimate of the volume.
        budget: points of the sequence at most.
    """

    def __init__(
        self, metric: RiemannianMetric, low: Tensor, high: Tensor, fitted: Fitted, budget: float = math.inf
    ) -> None:
        generator = torch.Generator(low.device).manual_seed(0)
        # not the start of the sequence that checks this one
        population = temper(
            metric, low, high, fitted.proposal, islands=16, particles=256, generator=generator, budget=budget
        )
        z = population.particles.flatten(0, 1)
        log_volume, error = population.log_volume()
        share = low.new_full((z.shape[0],), 1 / z.shape[0])
        self._metric, self._moves = metric, population.moves
        volume, self.doubt = fitted.checked(Estimate(log_volume.to(low), error.to(low)), weighed=False)
        self.rule = VolumeRule(*volume, z, share)
        reason = fitted.reason
        if population.short:
            reason += f"; cut short after {population.evaluations} points, of {budget:.0f} allowed"
        self.report = SamplerReport(
            "tempered", population.efficiency(), population.acceptance, 1, reason, self.rule.on_floor(metric)
        )

    def draw(self, count: int) -> Tensor:
        nodes = self.rule.nodes
        draws = nodes[torch.randint(nodes.shape[0], (count,), device=nodes.device)]
        for _ in range(2 * NUM_MOVES):
            draws, _ = self._moves(lambda z: log_volume_slope(self._metric, z), draws)
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
