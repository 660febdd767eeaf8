"""Samplers from a mixture proposal: independence Metropolis, importance resampling, and tempered Monte Carlo."""

from __future__ import annotations

import math
from typing import Any

import torch

from pyro_riemann._formulas.unit_laws import steps_to_forget
from pyro_riemann._formulas.unit_mixture import log_mean, weigh
from pyro_riemann._formulas.unit_samplers import LOWEST, Weighed, by_weights, check_count, importance, spread, tempered
from pyro_riemann._formulas.unit_tempering import NUM_MOVES
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._law import independence_chain
from pyro_riemann.sampling._result import SamplingResult, result
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import target_of

_BIAS, _MOST_STEPS = 0.01, 1024


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
    target, generator = target_of(metric, low, high, seed)
    fitted = target.proposal()
    proposal, dim = target.on_device(fitted.mixture), metric.dim
    if thinning is None:
        thinning = math.ceil(4 / max(fitted.efficiency, LOWEST) - 3)
    each = check_count("thinning", thinning) * -(-num_samples // num_chains)
    with torch.no_grad():
        z = proposal.place(RUNTIME, RUNTIME.uniform(generator, (num_chains * each, dim + 1), target.origin))
        log_weight = weigh(RUNTIME, target.value, proposal, z)
        mean = log_mean(RUNTIME, log_weight)[0]
        warm_up = int(steps_to_forget(RUNTIME, log_weight - mean, _BIAS, _MOST_STEPS))
        early = proposal.place(RUNTIME, RUNTIME.uniform(generator, (num_chains * warm_up, dim + 1), target.origin))
        early_weight = weigh(RUNTIME, target.value, proposal, early).view(num_chains, warm_up)
        points = torch.cat([early.view(num_chains, warm_up, dim), z.view(num_chains, each, dim)], dim=1)
        weights = torch.cat([early_weight, log_weight.view(num_chains, each)], dim=1)
        path = independence_chain(weights, generator)
        moved = (path[:, warm_up:] != path[:, warm_up - 1 : -1]).double().mean()
        kept = path[:, warm_up + thinning - 1 :: thinning]
        drawn = Weighed(points.gather(1, kept.unsqueeze(-1).expand(-1, -1, dim)), weights, moved)
        scale = proposal.scale(RUNTIME)
        drawn, extra = spread(RUNTIME, target.slopes, drawn, scale, num_moves, generator)
    drawn, how = drawn._replace(acceptance=moved), f"one state in {thinning} kept"
    return result(target, by_weights(target, "metropolis", how, drawn, extra), num_samples)


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
    target, generator = target_of(metric, low, high, seed)
    drawn = importance(target, num_samples, num_populations, num_proposals, num_moves, generator)
    return result(target, drawn, num_samples)


@full_precision
def tempered_smc(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_islands: int = 8,
    num_particles: int | None = None,
    num_moves: int = NUM_MOVES,
    seed: int | None = None,
) -> SamplingResult:
    r"""Populations led from the fitted proposal q to the uniform law p along :math:`q^{1-b} p^b`, b rising to 1.

    For metrics that no mixture fits. Each rise of b is as large as 70 % of the particles allow; populations are
    resampled systematically and moved on by Hamiltonian Monte Carlo in the box.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_islands: independent populations, whose spread is the error of the volume.
        num_particles: particles in each; by default as many as n needs, and at least 256.
        num_moves: Hamiltonian moves at each temperature.
        seed: of all random numbers; by default drawn from the global generator.

    Returns:
        The last populations, thinned to n; ``chains`` holds the islands.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if 200 temperatures do not suffice.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.

    Example:
        >>> metric = KernelMetric(torch.randn(5, 3), torch.full((5, 3), 4.0), bandwidth=1.0)
        >>> result = tempered_smc(metric, 400, seed=0)
        >>> result.draws.shape, bool(result.log_volume.standard_error < 0.1)
        (torch.Size([400, 3]), True)
    """
    check_count("num_samples", num_samples)
    target, generator = target_of(metric, low, high, seed)
    drawn = tempered(target, num_samples, num_islands, num_particles, num_moves, generator)
    return result(target, drawn, num_samples)
