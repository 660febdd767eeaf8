"""A proposal for the exponential of a function on the unit box, and what to think of its integral; on the host."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from pyro_riemann._formulas import climbs
from pyro_riemann._formulas.climbs import Slopes, Vector
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean
from pyro_riemann._formulas.unit_tempering import tempered_log_integral

LOOK = 2048  # quasi-random points at which climbs may start
LOWEST_EFFICIENCY = 0.05  # below it a mixture gives way to a tempered sequence
_GOOD = 0.5  # efficiency above which nothing is added
_CLIMBED, _TURNS = 512, 4  # climbs at once, and how often while there seem to be peaks that none has found
_UNSEEN = 0.03  # what these may add to the log integral without a word
_MISSED = 4.0  # a peak whose density is so many times what the proposal expects is one that it misses
_MOST = 256  # Gaussians that are added
_POINTS = 4096  # weighed at once
_EXPLAINED = 2.5  # joint standard errors that a difference of two routes may have by chance
_DIFFERENT = 5.0  # joint standard errors above which two routes do not agree


class UnitFit(NamedTuple):
    """A proposal and how it came about.

    Attributes:
        mixture: the proposal.
        efficiency: effective sample size per draw.
        reason: one clause in words.
        weighed: log integral by importance sampling, and its standard error.
        tempered: the same by a tempered sequence, which shares no draw with it.
        unseen: what peaks that no climb has found may add to the log integral.
    """

    mixture: UnitMixture
    efficiency: float
    reason: str
    weighed: tuple[float, float]
    tempered: tuple[float, float]
    unseen: float

    def checked(self, value: float, error: float, weighed: bool) -> tuple[float, str]:
        """The error of a log integral after a look at another route and at peaks not found, and why to doubt it.

        Args:
            value: the log integral.
            error: its own standard error.
            weighed: whether it is a mean of importance weights. Those of a proposal that does not fit check nothing.
        """
        other = self.tempered if weighed or self.efficiency < LOWEST_EFFICIENCY else self.weighed
        stated, doubt = reconciled(value, error, *other)
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


def fit(slopes: Slopes, dim: int, epsilon: float, known: climbs.Bumps | None, landmarks: Vector) -> UnitFit:
    """The proposal: bumps that are known, those that climbs find beside them, and a uniform part.

    Args:
        slopes: log f ``(n)`` and its gradient ``(n, d)`` at points ``(n, d)``.
        dim: d.
        epsilon: rounding error of the function's dtype.
        known: bumps that are known beforehand.
        landmarks: more points from which to climb, ``(n, d)``.
    """
    seen = _look(slopes, dim, 0)
    rest = float(np.nanmedian(seen[1]))
    parts = [] if known is None else [known]
    mixture = _mixture(parts, dim, rest)
    log_weight = _weights(slopes, mixture, dim, 0)
    efficiency, (level, _) = effective_share(log_weight), log_mean(log_weight)
    good, log_unseen = efficiency >= _GOOD, -math.inf
    ends = climbs.climb(slopes, landmarks, *slopes(landmarks), epsilon)
    for turn in range(_TURNS):
        ends = ends.joined(_climbs(slopes, _look(slopes, dim, turn) if turn else seen, epsilon))
        ends = ends.take(_excess(mixture, ends.unit, ends.value, level) > (_MISSED if good else 1.0))
        found = climbs.bumps(slopes, ends, _MOST)
        excess = _excess(mixture, found.unit, found.value, level)
        log_unseen = climbs.unseen(found.take(excess > _MISSED), ends.unit)
        if not log_unseen > level + math.log(_UNSEEN):
            break
    added = found.take(excess > 1.0)
    missed = bool((excess > _MISSED).any())
    if len(added.loc) and (missed or not good):
        candidate = _mixture([added, *parts], dim, rest)
        other = _weights(slopes, candidate, dim, 1)
        # what has missed a peak cannot judge itself
        if missed or effective_share(other) > efficiency:
            mixture, log_weight, efficiency = candidate, other, effective_share(other)
        else:
            added = added.take(np.zeros(0, dtype=int))
    name = "uniform proposal" if known is None else f"one Gaussian for each of {len(known.loc)} known peaks"
    if mixture.loc.shape[0] > sum(len(part.loc) for part in parts):
        name = f"{len(added.loc)} Gaussians at peaks of the volume beside {name}"
    reason = f"{name}, efficiency {efficiency:.2g}"
    if known is None and dim > 2:
        reason += f"; volume that no climb from {LOOK} points found is not counted"
    weighed = log_mean(log_weight)
    unseen = float(np.logaddexp(0, log_unseen - weighed[0]))
    return UnitFit(mixture, efficiency, reason, weighed, tempered_log_integral(slopes, mixture.widened()), unseen)


def narrowest(slopes: Slopes, dim: int, epsilon: float, known: climbs.Bumps | None) -> tuple[float, float, float]:
    """Half the width of the narrowest bump that matters, known or found; log integral by a mixture, and its error.

    Args:
        slopes: log f ``(n)`` and its gradient ``(n, d)`` at points ``(n, d)``.
        dim: d.
        epsilon: rounding error of the function's dtype.
        known: bumps that are known beforehand.
    """
    seen = _look(slopes, dim, 0)
    found = climbs.bumps(slopes, _climbs(slopes, seen, epsilon, 128), 64)
    parts = [found] if known is None else [found, known]
    mixture = _mixture(parts, dim, float(np.nanmedian(seen[1])))
    value, error = log_mean(_weights(slopes, mixture, dim, 0))
    finest = 1.0
    for part in parts:
        matters = part.take(part.log_mass > value + math.log(1e-4))
        if len(matters.loc):
            finest = min(finest, 0.5 * float(np.linalg.eigvalsh(matters.covariance).min()) ** 0.5)
    return finest, value, error


def _look(slopes: Slopes, dim: int, turn: int) -> tuple[Vector, Vector, Vector]:
    unit = _sobol(dim, LOOK if dim > 2 else 4 * LOOK, 7 + turn)  # what a table does not see is narrow
    return unit, *slopes(unit)


def _sobol(dim: int, count: int, seed: int) -> Vector:
    points: Vector = qmc.Sobol(dim, scramble=True, seed=np.random.default_rng(seed)).random(count)
    return points


def _climbs(slopes: Slopes, seen: tuple[Vector, Vector, Vector], epsilon: float, most: int = _CLIMBED) -> climbs.Climbs:
    """Climbs from points where a gradient is felt, a quarter of them the highest."""
    unit, value, slope = seen
    felt = np.flatnonzero(np.isfinite(slope).all(-1) & (slope != 0).any(-1) & np.isfinite(value))
    highest = felt[np.argsort(-value[felt], kind="stable")[: most // 4]]
    chosen = np.concatenate([highest, np.setdiff1d(felt, highest)[: most - len(highest)]])
    return climbs.climb(slopes, unit[chosen], value[chosen], slope[chosen], epsilon)


def _mixture(parts: list[climbs.Bumps], dim: int, log_rest: float) -> UnitMixture:
    if not parts:
        return UnitMixture.of_masses(np.zeros((0, dim)), np.zeros((0, dim, dim)), np.zeros(0), log_rest)
    both = climbs.Bumps(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return UnitMixture.of_masses(both.loc, both.covariance, both.log_mass, log_rest)


def _weights(slopes: Slopes, mixture: UnitMixture, dim: int, seed: int) -> Vector:
    """Log importance weights of quasi-random draws, minus infinity outside the box."""
    uniform = (
        _sobol(2 * dim + 1, _POINTS, 1000 + seed)
        if dim <= 32
        else np.random.default_rng(seed).random((_POINTS, 2 * dim + 1))
    )
    z = mixture.place(uniform[:, : dim + 1], ndtri(uniform[:, dim + 1 :].clip(1e-15, 1 - 1e-15)))
    inside = ((z >= 0) & (z <= 1)).all(-1)
    log_weight = np.full(len(z), -np.inf)
    log_weight[inside] = slopes(z[inside])[0] - mixture.log_prob(z[inside])[0]
    return log_weight


def _excess(mixture: UnitMixture, unit: Vector, value: Vector, level: float) -> Vector:
    """Importance weight, in multiples of the mean weight."""
    log_excess = value - mixture.log_prob(unit)[0] - level
    excess: Vector = np.exp(np.minimum(np.nan_to_num(log_excess, nan=-np.inf), 700.0))
    return excess
