"""Samplers that weigh draws of a mixture proposal: independence Metropolis and importance resampling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._modes import full_precision
from pyro_riemann.distributions._box_fit import steps_to_forget, weighed_volume
from pyro_riemann.distributions._box_law import independence_chain
from pyro_riemann.distributions._box_mixture import effective_share
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.distributions._box_tempered import systematic
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._result import SamplingResult, Unchecked, floor_share
from pyro_riemann.sampling._target import Target, check_count, target_of

_BIAS, _MOST_STEPS = 0.01, 1024
_LOWEST = 1e-2  # efficiency assumed where less was measured: bounds the work


@full_precision
def independence_metropolis(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_chains: int = 8,
    thinning: int | None = None,
    num_moves: int = 0,
    seed: int | None = None,
) -> SamplingResult:
    """Metropolis chains that propose from the fitted :class:`MixtureProposal`, all chains in one batch.

    The proposals of every chain are drawn and weighed at once; the chain itself costs nothing. The warm-up is as
    long as the weights say that a chain started anywhere needs.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_chains: number of chains.
        thinning: proposals for each state that is kept; by default 4 / efficiency - 3, somewhat more than the
            autocorrelation time of such a chain, so that the draws kept are nearly independent.
        num_moves: Hamiltonian moves of every draw at the end; they spread copies of one proposal.
        seed: of all random numbers; by default drawn from the global generator.

    Returns:
        The draws; ``log_volume`` is the importance estimate from all proposals.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Tierney (1994), *Markov chains for exploring posterior distributions*.

    Example:
        >>> metric = KernelMetric(torch.randn(5, 3), torch.full((5, 3), 4.0), bandwidth=1.0)
        >>> result = independence_metropolis(metric, 400, seed=0)
        >>> result.draws.shape, result.efficiency > 0.5
        (torch.Size([400, 3]), True)
    """
    check_count("num_samples", num_samples)
    check_count("num_chains", num_chains)
    check_count("num_moves", num_moves, 0)
    target = target_of(metric, low, high, seed)
    fitted = target.proposal()
    proposal, efficiency = fitted.proposal, fitted.efficiency
    if thinning is None:
        thinning = math.ceil(4 / max(efficiency, _LOWEST) - 3)
    length = -(-num_samples // num_chains)
    with torch.no_grad():
        z = proposal.draw(num_chains * (check_count("thinning", thinning) * length), target.generator)
        log_weight = proposal.weigh(metric, z, target.low.dtype)
        warm_up = steps_to_forget(log_weight, _BIAS, _MOST_STEPS)
        early = proposal.draw(num_chains * warm_up, target.generator)
        early_weight = proposal.weigh(metric, early, target.low.dtype).view(num_chains, warm_up)
        points = torch.cat([early.view(num_chains, warm_up, -1), z.view(num_chains, -1, z.shape[-1])], dim=1)
        all_weights = torch.cat([early_weight, log_weight.view(num_chains, -1)], dim=1)
        path = independence_chain(all_weights, target.generator)
        acceptance = float((path[:, warm_up:] != path[:, warm_up - 1 : -1]).double().mean())
        kept = path[:, warm_up + thinning - 1 :: thinning]
        chains = points.gather(1, kept.unsqueeze(-1).expand(-1, -1, z.shape[-1])).to(target.low)
    evaluations = all_weights.numel()
    if num_moves:
        chains, _ = spread(target, chains, proposal.scale(), num_moves)
        evaluations += num_moves * chains[..., 0].numel() * 6
    draws = interleaved(chains, num_samples)
    return SamplingResult(
        "metropolis",
        f"{fitted.reason}; one state in {thinning} kept",
        draws,
        chains,
        target.low,
        target.high,
        effective_share(all_weights),
        acceptance,
        Unchecked(weighed_volume(all_weights.flatten(), target.low), fitted, weighed=True),
        floor_share(metric, draws),
        evaluations,
    )


@full_precision
def importance_resampling(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_populations: int = 8,
    num_proposals: int | None = None,
    num_moves: int = 0,
    seed: int | None = None,
) -> SamplingResult:
    """Draws of the fitted :class:`MixtureProposal`, resampled by their importance weights.

    Independent populations are resampled systematically, each for itself. Copies of one proposal stay next to each
    other, so that the bulk ESS of ``chains`` counts them as what they are.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_populations: number of independent populations.
        num_proposals: draws of the proposal, all populations together; by default 2 n / efficiency.
        num_moves: Hamiltonian moves of every draw at the end; they spread copies of one proposal.
        seed: of all random numbers; by default drawn from the global generator.

    Returns:
        The draws; ``log_volume`` is the importance estimate.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if no draw of the proposal lies in the box.

    Source: Rubin (1988), *Using the SIR algorithm to simulate posterior distributions*; Douc, Cappe & Moulines (2005),
    *Comparison of resampling schemes for particle filtering*.

    Example:
        >>> metric = KernelMetric(torch.randn(5, 3), torch.full((5, 3), 4.0), bandwidth=1.0)
        >>> importance_resampling(metric, 400, seed=0).draws.shape
        torch.Size([400, 3])
    """
    check_count("num_samples", num_samples)
    check_count("num_populations", num_populations)
    check_count("num_moves", num_moves, 0)
    target = target_of(metric, low, high, seed)
    fitted = target.proposal()
    proposal, efficiency = fitted.proposal, fitted.efficiency
    length = -(-num_samples // num_populations)
    if num_proposals is None:
        each = math.ceil(2 * length / max(efficiency, _LOWEST))
    else:
        each = -(-check_count("num_proposals", num_proposals, num_populations) // num_populations)
    with torch.no_grad():
        z = proposal.draw(num_populations * each, target.generator)
        log_weight = proposal.weigh(metric, z, target.low.dtype).view(num_populations, each)
        if not bool((log_weight > -torch.inf).any(1).all()):
            raise RuntimeError(
                f"No draw of the proposal lies in the box in one of {num_populations} populations of {each}: raise "
                "`num_proposals`, or widen the box."
            )
        chosen = systematic(log_weight.softmax(1), length, target.generator)
        points = z.view(num_populations, each, -1)
        chains = points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, z.shape[-1])).to(target.low)
    acceptance, evaluations = 1.0, log_weight.numel()
    if num_moves:
        chains, acceptance = spread(target, chains, proposal.scale(), num_moves)
        evaluations += num_moves * chains[..., 0].numel() * 6
    draws = interleaved(chains, num_samples)
    return SamplingResult(
        "importance",
        f"{fitted.reason}; {log_weight.numel()} proposals",
        draws,
        chains,
        target.low,
        target.high,
        effective_share(log_weight),
        acceptance,
        Unchecked(weighed_volume(log_weight.flatten(), target.low), fitted, weighed=True),
        floor_share(metric, draws),
        evaluations,
    )


def spread(target: Target, chains: Tensor, scale: Tensor, num_moves: int) -> tuple[Tensor, float]:
    """Hamiltonian moves of every draw, tuned on some of them."""
    flat = chains.flatten(0, 1)
    moves = BoxMoves(target.low, target.high, scale.to(flat))
    moves, rate = moves.tuned(target.slopes, flat[:: max(1, len(flat) // 256)], target.generator)
    for _ in range(num_moves):
        flat, rate = moves(target.slopes, flat, target.generator)
    return flat.view_as(chains), rate


def interleaved(chains: Tensor, count: int) -> Tensor:
    """The first ``count`` draws, chain by chain in turn."""
    return chains.transpose(0, 1).flatten(0, 1)[:count]
