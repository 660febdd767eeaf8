"""The choice of a mixture proposal: the bumps of a kernel metric as they are, or fitted to its peaks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann.distributions._box_mixture import MixtureProposal, effective_share
from pyro_riemann.distributions._box_modes import peaks_of
from pyro_riemann.metrics import KernelMetric, RiemannianMetric

_GOOD = 0.5  # efficiency above which nothing is adapted
_ENOUGH = 0.45  # efficiency at which another round would cost more than it saves
_ROUNDS = 8
_CAP = 0.3
_POINTS = 16384, 4096  # of a round: as many as keep the table of points and centroids small, but no fewer
_STARTS = 256
_KERNEL_SHARE = 0.1  # of the bumps in the fitted mixture: no centroid is ever out of reach


class Fitted(NamedTuple):
    """A proposal and how it came about.

    Attributes:
        proposal: the mixture.
        efficiency: effective sample size per draw, on fresh points.
        reason: one clause in words.
    """

    proposal: MixtureProposal
    efficiency: float
    reason: str


def fit_proposal(metric: RiemannianMetric, low: Tensor, high: Tensor) -> Fitted:
    """The best mixture found for the uniform law of ``metric`` on a box; deterministic.

    A kernel metric's bumps are tried first. If they overlap so much that less than half of the
    draws count, the peaks of the volume are found and a few Gaussians are fitted to them by population Monte Carlo; the
    bumps stay in with a tenth of the mass. Other metrics get the uniform proposal.
    """
    if not isinstance(metric, KernelMetric):
        proposal = MixtureProposal.uniform(low, high)
        reached = effective_share(_pool(metric, proposal, low, 0)[1])
        return Fitted(proposal, reached, f"uniform proposal, efficiency {reached:.2g}")
    bumps = MixtureProposal.of_kernel(metric, low, high)
    z, log_weight, _ = _pool(metric, bumps, low, 0)
    best, efficiency = bumps, effective_share(log_weight)
    if efficiency >= _GOOD:
        return Fitted(bumps, efficiency, f"one Gaussian a centroid, efficiency {efficiency:.2g}")
    candidate = _with_peaks(metric, bumps, z, log_weight)
    for turn in range(1, _ROUNDS + 1):
        z, log_weight, table = _pool(metric, candidate, low, turn)
        if (reached := effective_share(log_weight)) > efficiency:
            best, efficiency = candidate, reached
        if efficiency > _ENOUGH or turn == _ROUNDS or not bool((log_weight > -torch.inf).any()):
            break
        candidate = candidate.adapted(z, _capped(log_weight), table, _KERNEL_SHARE)
    # the best of several noisy figures flatters itself: measure it again
    efficiency = effective_share(_pool(metric, best, low, _ROUNDS + 1)[1])
    name = "one Gaussian a centroid"
    if best is not bumps:
        name = f"{len(best.blocks[0].loc)} fitted to the peaks of the volume beside {name}"
    return Fitted(best, efficiency, f"{name}, efficiency {efficiency:.2g}")


def _with_peaks(metric: KernelMetric, bumps: MixtureProposal, z: Tensor, log_weight: Tensor) -> MixtureProposal:
    """The bumps, joined by Gaussians at the peaks uphill of the heaviest draws and centroids."""
    generator = torch.Generator(z.device).manual_seed(0)
    weights = [bumps.blocks[0].log_weight.exp()]
    places = [bumps.blocks[0].loc]
    if bool((log_weight > -torch.inf).any()):
        weights.append(log_weight.softmax(0))
        places.append(z)
    starts = [
        place[torch.multinomial(weight, _STARTS // 2, replacement=True, generator=generator)]
        for place, weight in zip(places, weights, strict=True)
    ]
    peaks = peaks_of(metric, torch.cat(starts).unique(dim=0))
    uniform = float(bumps.shares[-1])
    shares = torch.tensor([1 - uniform - _KERNEL_SHARE * (1 - uniform), _KERNEL_SHARE * (1 - uniform), uniform])
    return MixtureProposal((peaks, *bumps.blocks), shares.to(bumps.shares), bumps.low, bumps.high)


def _capped(log_weight: Tensor) -> Tensor:
    """Normalised weights, the largest cut to ``n ** 0.3`` times the mean: one heavy draw must not shape the fit.

    Ionides (2008), *Truncated importance sampling*.
    """
    size = math.log(len(log_weight))
    ceiling = float(log_weight.logsumexp(0)) - size + _CAP * size
    return log_weight.clamp(max=ceiling).softmax(0)


def _pool(metric: RiemannianMetric, proposal: MixtureProposal, low: Tensor, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scrambled Sobol draws of the proposal, their log importance weights, and the table behind them."""
    most, least = _POINTS
    count = most
    while count > least and isinstance(metric, KernelMetric) and count * len(metric.centroids) > 2**22:
        count //= 2
    engine = torch.quasirandom.SobolEngine(low.shape[0] + 1, scramble=True, seed=1000 + turn)
    z = proposal.place(engine.draw(count, dtype=torch.float64).to(low.device))
    return z, *proposal.weigh_with_table(metric, z, low.dtype)


def steps_to_forget(log_weight: Tensor, bias: float, most: int) -> int:
    """Steps after which an independence chain, started at any of its proposals, is within ``bias`` of its law.

    The chain leaves a point of weight w (mean 1) with probability at least 1/w a step.
    """
    log_weight = log_weight[log_weight > -torch.inf]
    relative = log_weight - (log_weight.logsumexp(0) - math.log(log_weight.numel()))
    share, rate = log_weight.softmax(0), 1 - 1 / relative.exp().clamp(min=1)
    steps = 4
    while steps < most and float((share * rate**steps).sum()) > bias:
        steps *= 2
    return steps
