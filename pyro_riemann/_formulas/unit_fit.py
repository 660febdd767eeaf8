"""A proposal for the exponential of a function on the unit box, and what to think of its integral; on the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy

from pyro_riemann._formulas import climbs
from pyro_riemann._formulas.climbs import Slopes, Vector
from pyro_riemann._formulas.runtime import HOST
from pyro_riemann._formulas.unit_groups import KNOWN_SHARE, Groups
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean, weigh
from pyro_riemann._formulas.unit_tempering import tempered_log_integral

LOOK = 2048  # quasi-random points at which climbs may start
LOWEST_EFFICIENCY = 0.05  # below it a mixture gives way to a tempered sequence
_GOOD = 0.5  # efficiency above which nothing is adapted
_ENOUGH = 0.45  # efficiency at which another round would cost more than it saves
_ROUNDS = 8
_WORTH = 1.5  # times the efficiency that Gaussians must have to be worth their cost
_CAP = 0.3
_STARTS = 256  # climbs that start from heavy draws, and from landmarks
_MOST = 256  # Gaussians that are fitted
_CLIMBED, _TURNS = 512, 4  # climbs at once, and how often while there seem to be peaks that none has found
_UNSEEN = 0.03  # what these may add to the log integral without a word
_MISSED = 4.0  # a peak whose density is so many times what the proposal expects is one that it misses
_EXPLAINED = 3.0  # joint standard errors that a difference of two routes may have by chance: once in a hundred
_DIFFERENT = 5.0  # joint standard errors above which two routes do not agree
_MATTERS = 1e-4  # share of the integral below which a bump does not matter


@dataclass(frozen=True, eq=False)
class Landscape:
    """A function on the unit box, and what is known of it beforehand.

    Attributes:
        slopes: log f ``(n)`` and its gradient ``(n, d)`` at points ``(n, d)``, arrays of NumPy.
        dim: d.
        epsilon: rounding error of the function's dtype.
        known: its bumps.
        landmarks: more points from which to climb, ``(n, d)``.
        points: where it may be evaluated in a round of a fit.
        heights: log f alone, where that is cheaper.
    """

    slopes: Slopes
    dim: int
    epsilon: float
    known: climbs.Bumps | None = None
    landmarks: Vector = field(default_factory=lambda: np.zeros((0, 0)))
    points: int = 4096
    heights: Callable[[Vector], Vector] | None = None


@dataclass(eq=False)
class UnitFit:
    """A proposal and how it came about.

    Attributes:
        mixture: the proposal.
        efficiency: effective sample size per draw, on fresh points.
        reason: one clause in words.
        weighed: log integral by importance sampling, and its standard error.
        unseen: what peaks that no climb has found may add to the log integral.
        tempered: log integral and standard error by a tempered sequence, which shares no draw with ``weighed``; None
            before it was asked for: it costs more than all else.
    """

    mixture: UnitMixture
    efficiency: float
    reason: str
    weighed: tuple[float, float]
    unseen: float
    tempered: tuple[float, float] | None = None

    @property
    def fits(self) -> bool:
        """Whether its draws are weighed; where they are not, a tempered sequence starts from it."""
        return self.efficiency >= LOWEST_EFFICIENCY

    def checked(self, slopes: Slopes, value: float, error: float, weighed: bool) -> tuple[float, str]:
        """The error of a log integral after a look at another route and at peaks not found, and why to doubt it.

        Args:
            slopes: of the function.
            value: the log integral.
            error: its own standard error.
            weighed: whether it is a mean of importance weights. Those of a proposal that does not fit check nothing.
        """
        if weighed or not self.fits:
            self.tempered = self.tempered or tempered_log_integral(slopes, self.mixture.widened())
            stated, doubt = reconciled(value, error, *self.tempered)
        else:
            stated, doubt = reconciled(value, error, *self.weighed)
        if self.unseen > max(_UNSEEN, _DIFFERENT * error):
            doubt = "some of its peaks were found by one climb alone, so that others are likely to have been missed"
        return max(stated, self.unseen), doubt


def reconciled(value: float, error: float, other: float, its_error: float) -> tuple[float, str]:
    """An error raised to the difference from another route where both errors do not explain that, and a doubt."""
    gap, joint = abs(value - other), math.hypot(error, its_error)
    if not math.isfinite(joint):
        return error, "no second route to it arrived within its budget"
    stated = error if gap <= _EXPLAINED * joint else max(gap, error)
    if gap > max(_DIFFERENT * joint, 0.02):
        return stated, f"two routes to it differ by {gap:.2g}, more than each of them allows"
    return stated, ""


def fit(land: Landscape) -> UnitFit:
    """The best mixture found; deterministic.

    Bumps that are known are tried first, with a uniform part. Then the function is climbed from many starts. If a climb
    ends where the proposal does not expect it, or if less than half of the draws count, Gaussians are put at the
    ends of the climbs and fitted by population Monte Carlo; the known bumps stay in with a tenth of the mass.
    """
    known, seen = land.known, _look(land, 0)
    rest = float(np.nanmedian(seen[1]))
    groups = [] if known is None else [known]
    best = Groups.of_bumps(groups, rest).mixture(land.dim)
    z, log_weight = _pool(land, best, 0)
    efficiency = float(effective_share(HOST, log_weight))
    found, missed, log_unseen = _found(land, seen, best, z, log_weight)
    fitted = 0
    if len(found.loc) and (missed or efficiency < _GOOD):
        candidate = Groups.of_bumps([found, *groups], rest, KNOWN_SHARE)
        whole = candidate.mixture(land.dim)
        z, other = _pool(land, whole, 1)
        if missed:  # what has missed a peak cannot judge itself
            efficiency = _judged(best, whole, z, other)
        adapted = _adapted(land, candidate, best, efficiency, z, other)
        # fresh: the best of several noisy figures flatters itself
        fresh = log_weight if adapted is best else _pool(land, adapted, _ROUNDS + 1)[1]
        if (reached := float(effective_share(HOST, fresh))) > _WORTH * efficiency:
            best, efficiency, log_weight, fitted = adapted, reached, fresh, len(found.loc)
    reason = "uniform proposal" if known is None else f"one Gaussian for each of {len(known.loc)} known peaks"
    if fitted:
        reason = f"{fitted} Gaussians fitted to the peaks of the volume beside {reason}"
    reason += f", efficiency {efficiency:.2g}"
    if known is None and land.dim > 2:
        reason += f"; volume that no climb from {LOOK} points found is not counted"
    value, error = map(float, log_mean(HOST, log_weight))
    return UnitFit(best, efficiency, reason, (value, error), float(np.logaddexp(0, log_unseen - value)))


def narrowest(land: Landscape) -> tuple[float, float, float]:
    """Half the width of the narrowest bump that matters, known or found; log integral by a mixture, and its error."""
    seen = _look(land, 0)
    found = climbs.bumps(land.slopes, _climbs(land, seen, 128), 64)
    groups = [found] if land.known is None else [found, land.known]
    groups = [group for group in groups if len(group.loc)]
    whole = Groups.of_bumps(groups, float(np.nanmedian(seen[1])), KNOWN_SHARE).mixture(land.dim)
    value, error = map(float, log_mean(HOST, _pool(land, whole, 0)[1]))
    finest = 1.0
    for group in groups:
        matters = group.take(group.log_mass > value + math.log(_MATTERS))
        if len(matters.loc):
            spread = matters.covariance
            finest = min(finest, 0.5 * float((spread if spread.ndim == 2 else np.linalg.eigvalsh(spread)).min()) ** 0.5)
    return finest, value, error


def _found(
    land: Landscape, seen: tuple[Vector, Vector, Vector], proposal: UnitMixture, z: Vector, log_weight: Vector
) -> tuple[climbs.Bumps, bool, float]:
    """Bumps that ``proposal`` does not expect; whether one is far above that; log mass of bumps that were not found."""
    good, level = effective_share(HOST, log_weight) >= _GOOD, float(log_mean(HOST, log_weight)[0])
    begin = _starts(land, proposal, z, log_weight)
    ends = climbs.climb(land.slopes, begin, *land.slopes(begin), land.epsilon)
    for turn in range(_TURNS):
        ends = ends.joined(_climbs(land, _look(land, turn) if turn else seen, _CLIMBED))
        ends = ends.take(_excess(proposal, ends.unit, ends.value, level) > (_MISSED if good else 1.0))
        bumps = climbs.bumps(land.slopes, ends, _MOST)
        excess = _excess(proposal, bumps.unit, bumps.value, level)
        log_unseen = climbs.unseen(bumps.take(excess > _MISSED), ends.unit)
        if not log_unseen > level + math.log(_UNSEEN):
            break
    some = bool((excess > 1.0).any())
    return bumps.take(excess > 1.0), bool((excess > _MISSED).any()), log_unseen if some else -math.inf


def _starts(land: Landscape, proposal: UnitMixture, z: Vector, log_weight: Vector) -> Vector:
    """Where climbs start besides random points: heavy draws and parts of a proposal that does not fit; landmarks."""
    starts, luck = [np.zeros((0, land.dim))], np.random.default_rng(0)
    if effective_share(HOST, log_weight) < _GOOD:
        for place, weight in ((z, log_weight), (proposal.loc, proposal.log_share[:-1])):
            if (weight > -math.inf).any():
                share = np.exp(weight - weight.max())
                starts.append(place[luck.choice(len(place), _STARTS // 2, p=share / share.sum())])
    if land.known is None and len(land.landmarks):
        starts.append(land.landmarks[:_STARTS])
    every = np.concatenate(starts)
    return np.unique(every[((every >= 0) & (every <= 1)).all(-1)], axis=0)


def _adapted(
    land: Landscape, candidate: Groups, best: UnitMixture, efficiency: float, z: Vector, log_weight: Vector
) -> UnitMixture:
    """The best iterate of population Monte Carlo from ``candidate``, or ``best`` where none is better.

    ``z`` and ``log_weight`` are draws of the candidate.
    """
    for turn in range(1, _ROUNDS + 1):
        whole = candidate.mixture(land.dim)
        if turn > 1:
            z, log_weight = _pool(land, whole, turn)
        if (reached := float(effective_share(HOST, log_weight))) > efficiency:
            best, efficiency = whole, reached
        if efficiency > _ENOUGH or turn == _ROUNDS or not (log_weight > -math.inf).any():
            break
        candidate = candidate.adapted(whole, z, capped(log_weight))
    return best


def capped(log_weight: Vector) -> Vector:
    """Normalised weights, the largest cut to ``n ** 0.3`` times the mean: one heavy draw must not shape the fit.

    Ionides (2008), *Truncated importance sampling*.
    """
    ceiling = np.logaddexp.reduce(log_weight) + (_CAP - 1) * math.log(len(log_weight))
    cut = np.exp(np.minimum(log_weight, ceiling) - ceiling)
    weights: Vector = cut / cut.sum()
    return weights


def _judged(proposal: UnitMixture, other: UnitMixture, z: Vector, log_weight: Vector) -> float:
    """Efficiency of ``proposal``, the integral of p^2 / q, by draws of another one and their weights."""
    inside = log_weight > -math.inf
    z, log_weight = z[inside], log_weight[inside]
    own = log_weight + other.log_prob(HOST, z) - proposal.log_prob(HOST, z)
    second = np.logaddexp.reduce(log_weight + own) + math.log(len(inside))
    return float(np.exp(2 * np.logaddexp.reduce(log_weight) - second)) if len(z) else 0.0


def _look(land: Landscape, turn: int) -> tuple[Vector, Vector, Vector]:
    unit = _sobol(land.dim, LOOK if land.dim > 2 else 4 * LOOK, 7 + turn)  # what a table does not see is narrow
    return unit, *land.slopes(unit)


def _sobol(dim: int, count: int, seed: int) -> Vector:
    points: Vector = scipy.stats.qmc.Sobol(dim, scramble=True, seed=np.random.default_rng(seed)).random(count)
    return points


def _climbs(land: Landscape, seen: tuple[Vector, Vector, Vector], most: int) -> climbs.Climbs:
    """Climbs from points where a gradient is felt, a quarter of them the highest."""
    unit, value, slope = seen
    felt = np.flatnonzero(np.isfinite(slope).all(-1) & (slope != 0).any(-1) & np.isfinite(value))
    highest = felt[np.argsort(-value[felt], kind="stable")[: most // 4]]
    chosen = np.concatenate([highest, np.setdiff1d(felt, highest)[: most - len(highest)]])
    return climbs.climb(land.slopes, unit[chosen], value[chosen], slope[chosen], land.epsilon)


def _pool(land: Landscape, proposal: UnitMixture, turn: int) -> tuple[Vector, Vector]:
    """Quasi-random draws of a proposal and their log importance weights."""
    count = land.points
    while count > 4096 and count * len(proposal.loc) > 2**22:
        count //= 2
    z = proposal.place(HOST, _sobol(land.dim + 1, count, 1000 + turn))
    return z, weigh(HOST, land.heights or (lambda unit: land.slopes(unit)[0]), proposal, z)


def _excess(proposal: UnitMixture, unit: Vector, value: Vector, level: float) -> Vector:
    """Importance weight, in multiples of the mean weight."""
    log_excess = np.nan_to_num(value - proposal.log_prob(HOST, unit) - level, nan=-np.inf)
    excess: Vector = np.exp(np.minimum(log_excess, 700.0))
    return excess
