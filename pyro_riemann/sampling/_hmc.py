"""Hamiltonian Monte Carlo for the Riemannian uniform: Algorithm 2 of C22, made right."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._formulas.unit_mixture import weigh
from pyro_riemann._formulas.unit_moves import JITTER, HamiltonianState, Moves, move, tuned
from pyro_riemann._formulas.unit_samplers import Drawn, Volume, check_count
from pyro_riemann._modes import full_precision
from pyro_riemann._result import judged
from pyro_riemann.metrics import KernelMetric, RiemannianMetric
from pyro_riemann.sampling._result import SamplingResult, result
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import Target, target_of

_ITERATIONS = 1000
_BRIDGE = 4096  # states, of all chains, that estimate the volume
_TRIALS = 20  # proposals for every start of a chain that is drawn from them


@full_precision
def hmc(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_chains: int | None = None,
    num_steps: int = 100,
    warm_up: int | None = None,
    num_leapfrog: int = 10,
    step_size: float | None = 0.01,
    start: str | Tensor = "centroids",
    seed: int | None = None,
) -> SamplingResult:
    r"""Hamiltonian Monte Carlo, all chains in one batch, with the settings of Chadebec & Allassonniere (2022).

    The target is :math:`\sqrt{\det G}` on the box, its gradient :math:`\tfrac12 \nabla \log\det G`; momenta are
    standard normal with kinetic energy :math:`|v|^2 / 2`; at a wall of the box the particle bounces, so that no
    proposal is lost.

    With the settings of the paper each draw is the end of a chain of its own of 100 steps, started at a random
    centroid. Such a chain does not leave its bump in d >= 8: the draws have the right law only if the bumps do not
    overlap, so that all have equal mass. R-hat shows that the chains do not mix; the other samplers do.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_chains: number of chains; n by default (at least 8). Fewer chains give several draws each, equally spaced.
        num_steps: moves of every chain.
        warm_up: first moves, not kept; half of them by default.
        num_leapfrog: leapfrog steps in a move.
        step_size: of the leapfrog, in units of the chart. None tunes it to an acceptance of about 0.8, with a diagonal
            mass that matches the bumps, before the chains start; steps are then jittered.
        start: ``"centroids"`` of a kernel metric, drawn uniformly as in the paper; ``"proposal"``, draws of the fitted
            mixture resampled by their weights; ``"box"``, uniform in the box; or points ``(num_chains, d)``.
        seed: of all random numbers; by default drawn from the global generator.

    Returns:
        The draws. ``log_volume`` comes from bridge sampling (Meng & Wong 1996) between them and the fitted proposal.

    Raises:
        TypeError, ValueError, ImportError: naming the argument at fault, or the extra that is missing.

    Source: Chadebec & Allassonniere (2022), appendix C, Algorithm 2.

    Example:
        >>> metric = KernelMetric(torch.randn(5, 3), torch.full((5, 3), 4.0), bandwidth=1.0)
        >>> hmc(metric, 50, num_steps=10, step_size=0.1, seed=0).draws.shape
        torch.Size([50, 3])
    """
    check_count("num_samples", num_samples)
    num_chains = max(8, num_samples) if num_chains is None else check_count("num_chains", num_chains, 2)
    check_count("num_leapfrog", num_leapfrog)
    check_count("num_steps", num_steps, 8)  # R-hat splits a chain in two of at least four states
    warm_up = num_steps // 2 if warm_up is None else check_count("warm_up", warm_up, 0)
    each = -(-num_samples // num_chains)
    if num_steps - warm_up < max(4, each):
        raise ValueError(
            f"`num_steps` - `warm_up` = {num_steps - warm_up} states of each of {num_chains} chains are too few for "
            f"{num_samples} draws: at least {max(4, each)} are needed."
        )
    if step_size is not None and not 0 < step_size < float("inf"):
        raise ValueError(f"`step_size` must be positive or None, got {step_size}.")
    target, generator = target_of(metric, low, high, seed)
    z, jitter, tries = target.unit(_starts(target, start, num_chains, generator)), 0.0, 0
    if step_size is None:
        proposal, jitter = target.on_device(target.proposal().mixture), JITTER
        moves = Moves.in_unit_box(torch, proposal.scale(RUNTIME))
        some = z[:: max(1, num_chains // 256)]
        moves, _, points = tuned(RUNTIME, target.slopes, moves, generator, some, num_leapfrog)
        tries = int(points)
    else:
        unit = 1 / (target.high - target.low).double()
        moves = Moves.in_unit_box(torch, unit)._replace(step=torch.full_like(unit[0], step_size))
    history, rates, state = [], [], HamiltonianState(z, *target.slopes(z))
    for step in range(num_steps):
        state, info = move(RUNTIME, target.slopes, moves, generator, state, num_leapfrog, jitter)
        if step >= warm_up:
            history.append(state.position)
            rates.append(float(info.acceptance.mean()))
    chains = torch.stack(history, dim=1)
    kept = torch.linspace(chains.shape[1] / each - 1, chains.shape[1] - 1, each, device="cpu").round().long()
    states = chains.flatten(0, 1)
    states = states[:: -(-len(states) // _BRIDGE)]
    effective = float(judged(chains)["ess_bulk"].min())
    volume = bridge_log_volume(target, states, min(effective, len(states)), generator)
    count = num_chains * num_steps
    reason = f"{num_chains} chains of {num_steps} moves, {num_leapfrog} leapfrog steps of {float(moves.step):.2g}"
    reason += " bump widths" if step_size is None else ""
    share, rate = min(1.0, effective / count), sum(rates) / len(rates)
    asked = num_chains + count * num_leapfrog + tries + 2 * len(states)  # the last for the volume
    if isinstance(start, str) and start == "proposal":
        asked += _TRIALS * num_chains
    drawn = Drawn("hmc", reason, chains, share, rate, Volume(volume, target.land), asked)
    found = result(target, drawn, num_samples)
    last = found.chains[:, kept.to(z.device)].transpose(0, 1).flatten(0, 1)[:num_samples]
    return replace(found, draws=last)


def _starts(target: Target, start: str | Tensor, count: int, generator: torch.Generator) -> Tensor:
    low, high = target.low, target.high
    dim = low.shape[0]
    if isinstance(start, Tensor):
        if start.shape != (count, dim):
            raise ValueError(f"`start` must have shape ({count}, {dim}), one row a chain, got {tuple(start.shape)}.")
        inside = ((start >= low) & (start <= high)).all(-1)
        if not bool(inside.all()):
            raise ValueError(f"`start` has {int((~inside).sum())} points outside the box.")
        return start.detach().to(low)
    if start == "box":
        return low + (high - low) * torch.rand(count, dim, generator=generator, dtype=low.dtype, device=low.device)
    if start == "centroids":
        if not isinstance(target.metric, KernelMetric):
            raise ValueError(
                f'`start="centroids"` needs a KernelMetric, not a {type(target.metric).__name__}: use "box", or points.'
            )
        places = target.metric.centroids.detach()
        places = places[((places >= low) & (places <= high)).all(-1)]
        if len(places) == 0:
            raise ValueError("No centroid lies in the box from `low` to `high`: widen it, or start from points.")
        return places[torch.randint(len(places), (count,), generator=generator, device=low.device)]
    if start == "proposal":
        with torch.no_grad():
            proposal = target.on_device(target.proposal().mixture)
            z = proposal.place(RUNTIME, RUNTIME.uniform(generator, (_TRIALS * count, dim + 1), target.origin))
            weights = weigh(RUNTIME, target.value, proposal, z).softmax(0)
            return target.points(z[torch.multinomial(weights, count, replacement=True, generator=generator)])
    raise ValueError(f'`start` must be "centroids", "proposal", "box" or a tensor of points, got {start!r}.')


def bridge_log_volume(
    target: Target, draws: Tensor, effective: float, generator: torch.Generator
) -> tuple[float, float]:
    r"""Log of :math:`\int_{box} \sqrt{\det G}\,dz` by the optimal bridge between target and fitted proposal.

    Meng & Wong (1996), *Simulating ratios of normalizing constants via a simple identity*; the error is that of
    Fruhwirth-Schnatter (2004), with the draws counted as ``effective`` many. It takes the draws to have the
    right law.

    Args:
        target: the law.
        draws: of the target, in the unit box, ``(n, d)``.
        effective: their effective number.
        generator: of the draws of the proposal.
    """
    with torch.no_grad():
        proposal = target.on_device(target.proposal().mixture)
        others = proposal.place(RUNTIME, RUNTIME.uniform(generator, (len(draws), draws.shape[1] + 1), draws))
        of_target, of_proposal = (weigh(RUNTIME, target.value, proposal, z) for z in (draws, others))
        share = math.log(effective / (effective + len(draws))), math.log(len(draws) / (effective + len(draws)))

        def terms(log_volume: Tensor) -> tuple[Tensor, Tensor]:
            """Logs of p / (s_1 p + s_2 q) at draws of q and of q / (s_1 p + s_2 q) at draws of p, p normalised."""
            at_proposal, at_target = of_proposal - log_volume, of_target - log_volume
            one = torch.full_like(at_proposal, share[1])
            return (
                at_proposal - torch.logaddexp(at_proposal + share[0], one),
                -torch.logaddexp(at_target + share[0], one),
            )

        def mean(log_terms: Tensor) -> Tensor:
            return log_terms.logsumexp(0) - math.log(len(log_terms))

        log_volume = mean(of_proposal)
        if not bool(torch.isfinite(log_volume)):
            log_volume = of_target.median()
        for _ in range(_ITERATIONS):
            first, second = terms(log_volume)
            step = mean(first) - mean(second)
            log_volume = log_volume + step
            if not abs(float(step)) > 1e-10:
                break
        first, second = terms(log_volume)
        variance = (first - mean(first)).exp().var() / len(draws) + (second - mean(second)).exp().var() / effective
    return float(log_volume), float(variance.sqrt())
