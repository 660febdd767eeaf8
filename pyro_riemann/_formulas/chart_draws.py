r"""Integrals over a chart by weighed draws, where few rays have all the mass; on the host.

.. math:: \log \int p(z)\,dz = \log E_q[p(z) / q(z)],

q a mixture of Gaussians on draws of a process whose law is near p. It is fitted where p is cheap, and then to p itself;
its last draws, which no fit has seen, are what is weighed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from pyro_riemann._formulas import Array, Namespace, table
from pyro_riemann._formulas.climbs import Vector
from pyro_riemann._formulas.ray_rule import DIRECTIONS_BOUND, ERROR_BOUND
from pyro_riemann._formulas.runtime import HOST, Runtime
from pyro_riemann._formulas.unit_fit import capped, reconciled
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean, mixture

LogDensity: TypeAlias = Callable[[Vector], Vector]

STARTS = 256
"""Draws of a process near the target with which each of two fits begins."""
STEPS = 64
"""Of Brownian motion, where that is the process."""
MOST_CENTRES = 4
"""Whose mass is drawn or summed over the chart: some ten seconds each."""
_DRAWS = 512  # of a round
_DOUBT = 3.0  # errors of rays are up to that many times what they say: behind walls none has gone where the mass is
_CHEAP_ROUNDS, _ROUNDS = 3, 4  # at most
_ENOUGH = 0.4  # share of effective draws at which a fit ends
_RIDGE = 1e-6  # of the mean variance: draws may lie in a plane
_MATTERS = 1e-6  # of the mean weight, below which a point has no kernel
_WIDEST = 0.9  # variance of a kernel, in multiples of the law's
_WIDE = (2.0, 4.0, 8.0)  # variances of the defensive parts, in multiples of the law's
_WIDE_SHARE = 0.15


class Verdict(NamedTuple):
    """A log mass from rays, from draws, or from a sum over the chart.

    Attributes:
        value: it.
        error: of it.
        num_effective: effective number of directions, or of draws; infinite for a sum.
    """

    value: float
    error: float
    num_effective: float

    def is_good(self) -> bool:
        """Whether nobody needs to be warned."""
        return self.error <= ERROR_BOUND and self.num_effective >= DIRECTIONS_BOUND

    def is_sure(self) -> bool:
        """Whether one of rays needs no second route."""
        return self._replace(error=_DOUBT * self.error).is_good()

    def beside(self, other: Verdict) -> tuple[Verdict, bool]:
        """This one of rays, or a better one by another route, and whether it is the other.

        Where they exclude each other neither error is what it says: what they are apart is. The error of few rays, or
        of few draws, that have all the mass says nothing.
        """
        heard = self.num_effective >= DIRECTIONS_BOUND
        if not math.isfinite(other.error) or (heard and other.num_effective < DIRECTIONS_BOUND):
            return self, False
        doubted, gap = _DOUBT * self.error, abs(other.value - self.value)
        taken = not heard or other.error < doubted
        better = other if taken else self
        return (better._replace(error=gap) if heard and gap > 2 * (doubted + other.error) else better), taken


class Proposal(NamedTuple):
    """A mixture in coordinates in which the draws that it comes from are white.

    Attributes:
        mean: of these draws, ``(d,)``.
        covariance: ``(d, d)``.
        root: a root of it, ``(d, d)``.
        parts: the mixture.
    """

    mean: Array
    covariance: Array
    root: Array
    parts: UnitMixture

    def on(self, xp: Namespace, like: Array) -> Proposal:
        """In arrays of a face, of the dtype and device of ``like``."""
        mean, covariance, root = (table(xp, part, like) for part in self[:3])
        return Proposal(mean, covariance, root, UnitMixture(*(table(xp, part, like) for part in self.parts)))

    def place(self, runtime: Runtime, luck: Array) -> Array:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)``."""
        return self.mean + self.parts.place(runtime, luck) @ self.root.T

    def log_prob(self, runtime: Runtime, z: Array) -> Array:
        """Log density ``(n)`` at points ``(n, d)``."""
        xp = runtime.xp
        white = xp.linalg.solve(self.root, (z - self.mean).T).T
        return self.parts.log_prob(runtime, white) - xp.log(xp.diagonal(self.root)).sum()


class Pair(NamedTuple):
    """Two proposals as one.

    Attributes:
        one: of the first half of the draws.
        other: of the rest.
    """

    one: Proposal
    other: Proposal

    def on(self, xp: Namespace, like: Array) -> Pair:
        """In arrays of a face, of the dtype and device of ``like``."""
        one, other = (half.on(xp, like) for half in self)
        return Pair(one, other)

    def place(self, runtime: Runtime, luck: Array) -> Array:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 2)``."""
        one, other = (half.place(runtime, luck[:, 1:]) for half in self)
        return runtime.xp.where(luck[:, :1] < 0.5, one, other)

    def log_prob(self, runtime: Runtime, z: Array) -> Array:
        """Log density ``(n)`` at points ``(n, d)``."""
        return runtime.xp.logaddexp(*(half.log_prob(runtime, z) for half in self)) - math.log(2)


class WeighedDraws(NamedTuple):
    """Draws of a proposal and what they say of an integral.

    Attributes:
        value: its logarithm.
        error: of that.
        num_effective: effective number of draws, the less of both fits.
        points: ``(n, d)``.
        weights: normalised, ``(n)``.
        proposal: that of all of them; None if there are none.
        log_weights: log of the integrand relative to it, ``(n)``.
    """

    value: float
    error: float
    num_effective: float
    points: Vector
    weights: Vector
    proposal: Pair | None
    log_weights: Vector

    def verdict(self) -> Verdict:
        """To be held against that of rays."""
        return Verdict(self.value, self.error, self.num_effective)


def log_integral(cheap: LogDensity, exact: LogDensity, starts: tuple[Vector, Vector]) -> WeighedDraws:
    """Log integral of ``exact`` by two proposals that have nothing in common but what they are fitted to.

    The error is that of the weights, or the difference of the two where that is more than these explain.

    Args:
        cheap: log density ``(n)`` at points ``(n, d)``, near the target's: for the first rounds of a fit.
        exact: log density of the target; NaN and minus infinity where there is none.
        starts: where the fits begin, ``(n, d)`` each.
    """
    halves = [_weighed(cheap, exact, start, seed) for seed, start in enumerate(starts)]
    proposals, *parts = zip(*halves, strict=True)
    points, log_densities, log_proposals = map(np.concatenate, parts)
    pair, log_weights = Pair(*proposals), log_densities - log_proposals
    log_ratios = log_densities - pair.log_prob(HOST, points)
    by_half = np.split(log_weights, [len(parts[0][0])])
    if any(log_weight.max() == -math.inf for log_weight in by_half):
        return WeighedDraws(-math.inf, math.inf, 0.0, points, np.zeros(len(points)), pair, log_ratios)
    value, error = map(float, log_mean(HOST, log_weights))
    (one, its_error), other = (tuple(map(float, log_mean(HOST, log_weight))) for log_weight in by_half)
    if (gap := reconciled(one, its_error, *other)[0]) > its_error:
        error = max(error, gap)
    effective = min(len(log_weight) * float(effective_share(HOST, log_weight)) for log_weight in by_half)
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    return WeighedDraws(value, error, effective, points, weights, pair, log_ratios)


def _weighed(cheap: LogDensity, exact: LogDensity, start: Vector, seed: int) -> tuple[Proposal, Vector, Vector, Vector]:
    """A proposal that was fitted from a start, draws of it ``(n, d)``, and at them the log densities of target and it.

    A round whose draws are effective enough for the target itself is the last: no fit has seen them.
    """
    luck = np.random.default_rng(seed)
    last = _fitted(start, np.full(len(start), 1 / len(start)))
    for density, rounds in ((cheap, _CHEAP_ROUNDS), (exact, _ROUNDS)):
        for _ in range(rounds):
            proposal = last
            z = proposal.place(HOST, luck.random((_DRAWS, start.shape[1] + 1)))
            log_proposal = proposal.log_prob(HOST, z)
            log_density = np.nan_to_num(density(z), nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
            log_weight = log_density - log_proposal
            if effective_share(HOST, log_weight) > _ENOUGH or log_weight.max() == -math.inf:
                break
            last = _fitted(z, capped(log_weight), proposal.covariance)
    return proposal, z, log_density, log_proposal


def _fitted(z: Vector, weights: Vector, before: Vector | None = None) -> Proposal:
    """Kernels on weighed points, drawn together as much as their width spreads them, beside a few wide Gaussians.

    The covariance ``before`` stays in as much as the points are few: one heavy draw never collapses a proposal.

    West (1993), *Approximating posterior distributions by mixtures*; its rule for the width.
    """
    dim = z.shape[1]
    mean = weights @ z
    centred = z - mean
    covariance = (weights * centred.T) @ centred
    if before is not None:
        rest = dim / (dim + 1 / (weights**2).sum())
        covariance = (1 - rest) * covariance + rest * before
    ridge = max(_RIDGE * np.diagonal(covariance).mean(), np.finfo(covariance.dtype).tiny)
    root = np.linalg.cholesky(covariance + ridge * np.eye(dim))
    used = weights > _MATTERS / len(weights)
    white, share = np.linalg.solve(root, centred[used].T).T, weights[used]
    width = min(_WIDEST, (4 * (share**2).sum() / (dim + 2)) ** (2 / (dim + 4)))
    loc = np.concatenate([(1 - width) ** 0.5 * white, np.zeros((len(_WIDE), dim))])
    variance = np.concatenate([np.full(len(white), width), _WIDE])[:, None] * np.ones(dim)
    wide = np.full(len(_WIDE), _WIDE_SHARE / len(_WIDE))
    shares = np.concatenate([(1 - _WIDE_SHARE) * share / share.sum(), wide])
    return Proposal(mean, covariance, root, mixture(np, loc, variance, np.append(np.log(shares), -math.inf)))
