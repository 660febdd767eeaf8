"""The choice of a mixture proposal for the uniform law of any metric, and a second opinion of the volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import climbs
from pyro_riemann._memo import Probe
from pyro_riemann.distributions._box_mixture import GaussianParts, MixtureProposal, effective_share, known_parts
from pyro_riemann.distributions._box_peaks import LOOK, Landscape, Seen
from pyro_riemann.distributions._box_tempered import temper
from pyro_riemann.metrics import KernelMetric, RiemannianMetric

LOWEST_EFFICIENCY = 0.05  # below it a mixture gives way to a tempered sequence
_GOOD = 0.5  # efficiency above which nothing is adapted
_ENOUGH = 0.45  # efficiency at which another round would cost more than it saves
_ROUNDS = 8
_CAP = 0.3
_POINTS = 16384, 4096  # of a round: as many as keep the table of points and centroids small, but no fewer
_STARTS = 256  # climbs that start from heavy draws
_MOST = 256  # Gaussians that are fitted
_KNOWN_SHARE = 0.1  # of the known bumps in a fitted mixture: none is ever out of reach
_CLIMBED, _TURNS = 512, 4  # climbs at once, and how often while there seem to be peaks that none has found
_UNSEEN = 0.03  # what these may add to the log volume without a word
_MISSED = 4.0  # a peak whose density is so many times what the proposal expects is one that it misses
_CHECK = 8, 128, 2, 2**17  # islands, particles, moves and points of the second opinion
_EXPLAINED = 2.5  # joint standard errors that a difference of two routes may have by chance


@dataclass(frozen=True, eq=False)
class Fitted:
    """A proposal and how it came about.

    Attributes:
        metric: the metric of the volume.
        probe: the metric as it was then.
        proposal: the mixture.
        efficiency: effective sample size per draw, on fresh points.
        reason: one clause in words.
        weighed: log volume by importance sampling from the proposal.
        unseen: what peaks that no climb has found may add to the log volume.
    """

    metric: RiemannianMetric
    probe: Probe
    proposal: MixtureProposal
    efficiency: float
    reason: str
    weighed: Estimate
    unseen: float

    @cached_property
    def tempered(self) -> Estimate:
        """Log volume by a tempered sequence from the uniform law and the peaks: no draw in common with ``weighed``.

        It costs more than all else, and only the error of a volume needs it.

        Raises:
            RuntimeError: if the metric is no longer what it was.
        """
        with torch.no_grad():
            low, high = self.proposal.low.to(self.probe.nodes), self.proposal.high.to(self.probe.nodes)
            if not self.probe.meets(self.metric):
                raise RuntimeError(
                    "the metric has changed since the draws were made, so that the error of its volume then can no "
                    "longer be found: read `log_volume` before the metric changes, or draw again."
                )
            return _tempered(self.metric, self.proposal, low, high)

    def checked(self, own: Estimate, weighed: bool) -> tuple[Estimate, str]:
        """A log volume after a look at the other route and at peaks not found, and why to doubt it.

        Args:
            own: the log volume.
            weighed: whether it is a mean of importance weights. Those of a proposal that does not fit check nothing.
        """
        other = self.tempered if weighed or self.efficiency < LOWEST_EFFICIENCY else self.weighed
        volume, doubt = reconciled(own, other)
        if self.unseen > max(_UNSEEN, 5 * float(own.standard_error)):
            doubt = "some of its peaks were found by one climb alone, so that others are likely to have been missed"
        return volume._replace(standard_error=volume.standard_error.clamp(min=self.unseen)), doubt


def fit_proposal(metric: RiemannianMetric, low: Tensor, high: Tensor) -> Fitted:
    r"""The best mixture found for the uniform law of ``metric`` on a box; deterministic.

    Bumps that the metric knows of (``metric.peaks()``) are tried first, with a uniform part. Then
    :math:`\log\sqrt{\det G}` is climbed from many starts. If a climb ends where the proposal does not expect it, or if
    less than half of the draws count, Gaussians are put at the ends of the climbs and fitted by population Monte Carlo;
    the known bumps stay in with a tenth of the mass.
    """
    land = Landscape(metric, low, high)
    seen = land.look()
    rest = float(np.nanmedian(seen[1])) + float((high - low).double().log().sum())
    known = known_parts(metric, low, high)
    blocks = [] if known is None else [known]
    best = MixtureProposal.of_parts(blocks, low, high, rest)
    z, log_weight, _ = pool(metric, best, low, 0)
    efficiency = effective_share(log_weight)
    found, missed, log_unseen = _found(metric, land, seen, best, z, log_weight)
    fitted = 0
    if found is not None and (missed or efficiency < _GOOD):
        candidate = MixtureProposal.of_parts([found, *blocks], low, high, rest, _KNOWN_SHARE)
        first = pool(metric, candidate, low, 1)
        if missed:  # what has missed a peak cannot judge itself
            efficiency = _judged(best, *first)
        best, efficiency = _adapted(metric, candidate, low, best, efficiency, first)
        fitted = 0 if len(best.blocks) == len(blocks) else len(best.blocks[0].loc)
        # fresh: the best of several noisy figures flatters itself
        log_weight = pool(metric, best, low, _ROUNDS + 1)[1]
        efficiency = effective_share(log_weight)
    reason = f"{_in_words(known, fitted)}, efficiency {efficiency:.2g}"
    if known is None and metric.dim > 2:
        reason += f"; volume that no climb from {LOOK} points found is not counted"
    weighed = weighed_volume(log_weight, low)
    unseen = float(np.logaddexp(0, log_unseen - float(weighed.value)))
    return Fitted(metric, _probe(metric, best, low, high), best, efficiency, reason, weighed, unseen)


def _probe(metric: RiemannianMetric, proposal: MixtureProposal, low: Tensor, high: Tensor) -> Probe:
    seeds = torch.quasirandom.SobolEngine(metric.dim, scramble=True, seed=0).draw(32).to(low)
    nodes = torch.cat([low + (high - low) * seeds, *(block.loc.to(low)[:32] for block in proposal.blocks)])
    nodes = nodes.clamp(low, high)
    return Probe(nodes, metric.metric(nodes).detach())


def _in_words(known: GaussianParts | None, fitted: int) -> str:
    name = "uniform proposal" if known is None else f"one Gaussian for each of {len(known.loc)} known peaks"
    return f"{fitted} Gaussians fitted to the peaks of the volume beside {name}" if fitted else name


def _found(
    metric: RiemannianMetric, land: Landscape, seen: Seen, proposal: MixtureProposal, z: Tensor, log_weight: Tensor
) -> tuple[GaussianParts | None, bool, float]:
    """Gaussians at peaks that ``proposal`` does not expect.

    Returns:
        The Gaussians; whether one of the peaks is far above what is expected; log mass of peaks that were not found.
    """
    good = effective_share(log_weight) >= _GOOD
    begin = land.unit(_starts(metric, proposal, z, log_weight))
    ends = land.climb_from(begin, *land(begin))
    noted = math.log(_UNSEEN) + float(log_weight.logsumexp(0)) - math.log(len(z))
    for turn in range(_TURNS):
        ends = ends.joined(land.climb(land.look(turn) if turn else seen, _CLIMBED))
        excess = _excess(land, proposal, ends.unit, ends.value, log_weight)
        ends = ends.take(excess > (_MISSED if good else 1.0))
        bumps = climbs.bumps(land, ends, _MOST)
        excess = _excess(land, proposal, bumps.unit, bumps.value, log_weight)
        log_unseen = climbs.unseen(bumps.take(excess > _MISSED), ends.unit) + land.log_width
        if not log_unseen > noted:
            break
    if not (excess > 1.0).any():
        return None, False, -math.inf
    return GaussianParts(*land.chart(bumps.take(excess > 1.0))), bool((excess > _MISSED).any()), log_unseen


def _starts(metric: RiemannianMetric, proposal: MixtureProposal, z: Tensor, log_weight: Tensor) -> Tensor:
    """Where climbs start besides random points: heavy draws and parts of a proposal that does not fit; landmarks."""
    generator = torch.Generator(z.device).manual_seed(0)
    starts = [z[:0]]
    if effective_share(log_weight) < _GOOD:
        places = [z, *(block.loc for block in proposal.blocks)]
        weights = [log_weight, *(block.log_weight for block in proposal.blocks)]
        for place, weight in zip(places, weights, strict=True):
            if bool((weight > -torch.inf).any()):
                picked = torch.multinomial(weight.softmax(0), _STARTS // 2, replacement=True, generator=generator)
                starts.append(place[picked])
    landmarks = metric.landmarks
    if landmarks is not None and not proposal.blocks:
        starts.append(landmarks[:_STARTS].to(z))
    return torch.cat(starts).unique(dim=0)


def _excess(
    land: Landscape, proposal: MixtureProposal, unit: climbs.Vector, value: climbs.Vector, log_weight: Tensor
) -> climbs.Vector:
    """Importance weight at points of the unit box, in multiples of the mean weight."""
    expected = proposal.log_prob(land.points(unit).double()).cpu().numpy()
    mean = float(log_weight.logsumexp(0)) - math.log(len(log_weight))
    excess: climbs.Vector = np.exp(np.minimum(np.nan_to_num(value - expected - mean, nan=-np.inf), 700.0))
    return excess


def _judged(proposal: MixtureProposal, z: Tensor, log_weight: Tensor, table: Tensor) -> float:
    """Efficiency of ``proposal``, the integral of p^2 / q, by the :func:`pool` of another one."""
    own = log_weight + table.logsumexp(-1) - proposal.log_prob(z)
    second = (log_weight + own).logsumexp(0)
    return float((2 * log_weight.logsumexp(0) - second - math.log(len(z))).exp().nan_to_num(nan=0.0))


def _adapted(
    metric: RiemannianMetric,
    candidate: MixtureProposal,
    low: Tensor,
    best: MixtureProposal,
    efficiency: float,
    first: tuple[Tensor, Tensor, Tensor],
) -> tuple[MixtureProposal, float]:
    """The best iterate of population Monte Carlo from ``candidate``, or ``best`` where none is better.

    ``first`` is the :func:`pool` of the candidate.
    """
    for turn in range(1, _ROUNDS + 1):
        z, log_weight, table = first if turn == 1 else pool(metric, candidate, low, turn)
        if (reached := effective_share(log_weight)) > efficiency:
            best, efficiency = candidate, reached
        if efficiency > _ENOUGH or turn == _ROUNDS or not bool((log_weight > -torch.inf).any()):
            break
        candidate = candidate.adapted(z, _capped(log_weight), table, _KNOWN_SHARE)
    return best, efficiency


def weighed_volume(log_weight: Tensor, low: Tensor) -> Estimate:
    """Log of the mean weight and its standard error."""
    mean = log_weight.logsumexp(0) - math.log(len(log_weight))
    error = (log_weight - mean).exp().std() / len(log_weight) ** 0.5
    return Estimate(mean.to(low), error.to(low))


def _tempered(metric: RiemannianMetric, proposal: MixtureProposal, low: Tensor, high: Tensor) -> Estimate:
    """The log volume by a small tempered sequence that starts wide of the proposal."""
    generator = torch.Generator(low.device).manual_seed(1)
    islands, particles, moves, points = _CHECK
    population = temper(metric, low, high, proposal.widened(), islands, particles, generator, moves, points, True)
    value, error = population.log_volume()
    # a sequence that was cut short tells nothing, its error included
    return Estimate(value.to(low), torch.full_like(low[0], torch.inf) if population.short else error.to(low))


def reconciled(own: Estimate, other: Estimate) -> tuple[Estimate, str]:
    """``own``, its error raised to the difference from ``other`` where both errors do not explain that.

    Args:
        own: the log volume by one route.
        other: the same by another one.

    Returns:
        The estimate, and why to doubt it: the routes differ by more than five joint standard errors and 0.02, or the
        other one has not arrived.
    """
    gap = float((own.value - other.value).abs())
    joint = math.hypot(float(own.standard_error), float(other.standard_error))
    smallest = 4 * torch.finfo(own.value.dtype).eps * max(1.0, abs(float(own.value)))
    error = float(own.standard_error) if gap <= _EXPLAINED * joint else max(gap, float(own.standard_error))
    doubt = ""
    if not math.isfinite(joint):
        doubt = "no second route to it arrived within its budget"
    elif gap > max(5 * joint, 0.02):
        doubt = f"two routes to it differ by {gap:.2g}, more than each of them allows"
    return own._replace(standard_error=torch.full_like(own.value, max(error, smallest))), doubt


def _capped(log_weight: Tensor) -> Tensor:
    """Normalised weights, the largest cut to ``n ** 0.3`` times the mean: one heavy draw must not shape the fit.

    Ionides (2008), *Truncated importance sampling*.
    """
    size = math.log(len(log_weight))
    ceiling = float(log_weight.logsumexp(0)) - size + _CAP * size
    return log_weight.clamp(max=ceiling).softmax(0)


def pool(metric: RiemannianMetric, proposal: MixtureProposal, low: Tensor, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scrambled Sobol draws of the proposal, their log importance weights, and the table behind them."""
    most, least = _POINTS
    count = most if isinstance(metric, KernelMetric) else least
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
