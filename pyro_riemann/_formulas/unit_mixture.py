"""Gaussian mixtures with a uniform part on the unit box: proposals for a function with bumps."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas import Array, Namespace, places
from pyro_riemann._formulas.runtime import Runtime, triangle

UNIFORM_SHARE = 0.05  # of the defensive part: bounds the weight of a point that no Gaussian knows of
LARGEST_SHARE = 0.95
_ENTRIES = 2**18  # of one table of points and parts: it stays in the cache


class UnitMixture(NamedTuple):
    r"""Gaussian parts, some of whose draws lie outside the box, and a uniform part.

    .. math:: q(z) = \sum_i w_i N(z; \mu_i, C_i) + w_u

    Whoever weighs draws refuses those outside the box, where the target has density 0.

    Attributes:
        loc: means, ``(m, d)``; m may be 0.
        precision: inverse variances ``(m, d)``, or inverse covariances ``(m, d, d)``.
        root: standard deviations, or Cholesky factors of the covariances.
        log_share: log probabilities of the parts and, last, of the uniform part, ``(m + 1)``.
        log_peak: log density of each part at its mean, ``(m)``.

    Source: Hesterberg (1995), *Weighted average importance sampling and defensive mixture distributions*.
    """

    loc: Array
    precision: Array
    root: Array
    log_share: Array
    log_peak: Array

    def terms(self, runtime: Runtime, unit: Array) -> Array:
        """Log of share times density of each part and of the uniform one at ``(n, d)``, ``(n, m + 1)``."""
        xp = runtime.xp
        flat = self.log_share[-1] + 0 * unit[:, :1]
        if len(self.loc) == 0:
            return flat
        squared = runtime.squared_distances(unit, self.loc, self.precision)
        return xp.concatenate([self.log_share[:-1] + self.log_peak - 0.5 * squared, flat], -1)

    def log_prob(self, runtime: Runtime, unit: Array) -> Array:
        """Log density at points ``(n, d)`` of the box, ``(n)``."""
        return runtime.in_pieces(lambda z: _total(runtime.xp, self.terms(runtime, z)), self.rows, unit)

    def slopes(self, runtime: Runtime, unit: Array) -> tuple[Array, Array]:
        """Log density ``(n)`` and its gradient ``(n, d)``."""
        xp, (count, dim) = runtime.xp, self.loc.shape
        if count == 0:
            return self.log_share[-1] + 0 * unit[:, 0], 0 * unit
        rates, (row, column, entry) = self.precision, self._triangle(xp, dim)
        if rates.ndim == 3:
            pulls, rates = (rates @ self.loc[:, :, None])[:, :, 0], rates[:, row, column]
        else:
            pulls = rates * self.loc

        def piece(z: Array) -> tuple[Array, Array]:
            terms = self.terms(runtime, z)
            value = _total(xp, terms)
            owner = xp.exp(xp.clip(terms[:, :-1] - value[:, None], -80, None))  # exponentials that underflow are slow
            rate = owner @ rates
            push = rate * z if self.precision.ndim == 2 else (rate[:, entry] @ z[:, :, None])[:, :, 0]
            return value, owner @ pulls - push

        result: tuple[Array, Array] = runtime.in_pieces(piece, self.rows, unit)
        return result

    def _triangle(self, xp: Namespace, dim: int) -> tuple[Array, Array, Array]:
        above = triangle(dim)
        row, column, entry = (places(xp, part, self.loc) for part in (above.row, above.column, above.entry))
        return row, column, entry

    @property
    def rows(self) -> int:
        """How many points may be in work at a time."""
        return max(64, _ENTRIES // (len(self.loc) + 1))

    def place(self, runtime: Runtime, uniform: Array) -> Array:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)``."""
        xp, count, flat = runtime.xp, len(self.loc), uniform[:, 1:]
        if count == 0:
            return flat
        edges = xp.exp(self.log_share).cumsum(0)
        part = xp.searchsorted(edges / edges[-1], uniform[:, 0] + 0, side="right")
        chosen = xp.clip(part, 0, count - 1)
        smallest = float(xp.finfo(uniform.dtype).eps)
        white, root = runtime.ndtri(xp.clip(flat, smallest, 1 - smallest)), self.root[chosen]
        step = root * white if self.root.ndim == 2 else (root @ white[:, :, None])[:, :, 0]
        return xp.where((part < count)[:, None], self.loc[chosen] + step, flat)

    def scale(self, runtime: Runtime) -> Array:
        """Length scale in each coordinate, ``(d)``: that within a part, or of the box."""
        xp = runtime.xp
        if len(self.loc) == 0:
            return 12**-0.5 + 0 * self.log_share[:1] + 0 * self.loc.sum(0)
        variance = self.root**2 if self.root.ndim == 2 else (self.root**2).sum(-1)
        weight = xp.exp(self.log_share[:-1] - xp.amax(self.log_share[:-1]))
        return xp.sqrt((weight / weight.sum()) @ variance)

    def widened(self) -> UnitMixture:
        """A wider law of arrays of NumPy, half of it uniform, its parts of more equal weights: a sequence's start."""
        if len(self.loc) == 0:
            return self
        flat = 0.5 * self.log_share[:-1]
        shares = np.append(flat - np.logaddexp.reduce(flat) + math.log(0.5), math.log(0.5))
        wide, dim = 1.5, self.loc.shape[1]
        return UnitMixture(
            self.loc, self.precision / wide, wide**0.5 * self.root, shares, self.log_peak - 0.5 * dim * math.log(wide)
        )


def mixture(xp: Namespace, loc: Array, covariance: Array, log_share: Array) -> UnitMixture:
    """The mixture of Gaussians with variances ``(m, d)`` or covariances ``(m, d, d)``."""
    if covariance.ndim == 2:
        root, precision = xp.sqrt(covariance), 1 / covariance
        scales = root
    else:
        root = xp.linalg.cholesky(covariance)
        inverse = xp.linalg.inv(root)
        precision = xp.swapaxes(inverse, -1, -2) @ inverse
        scales = xp.diagonal(root, 0, -2, -1)
    return UnitMixture(loc, precision, root, log_share, -log_area(xp, scales))


def log_area(xp: Namespace, scales: Array) -> Array:
    """Log of the integral of Gaussian bumps of height 1, by the diagonals of their Cholesky factors ``(m, d)``."""
    return 0.5 * scales.shape[-1] * math.log(2 * math.pi) + xp.log(scales).sum(-1)


def shares(xp: Namespace, log_mass: Array, log_total: Array, log_rest: Array) -> Array:
    """Log probabilities of parts in proportion to their masses, and of a uniform part for the rest, at least 5 %."""
    share = xp.clip(xp.exp(log_rest - xp.logaddexp(log_total, log_rest)), UNIFORM_SHARE, LARGEST_SHARE)
    return xp.concatenate([log_mass - log_total + xp.log1p(-share), xp.log(share)[None]])


def weigh(runtime: Runtime, value: Array, proposal: UnitMixture, unit: Array) -> Array:
    """Log importance weights ``(n)`` of a function ``value`` of points of the box; minus infinity outside of it."""
    xp = runtime.xp
    inside = ((unit >= 0) & (unit <= 1)).all(-1)
    point = xp.where(inside[:, None], unit, 0.5)  # outside the box the function need not be defined
    return xp.where(inside, value(point) - proposal.log_prob(runtime, point), -math.inf)


def effective_share(runtime: Runtime, log_weight: Array) -> Array:
    """Effective sample size per draw, ``(sum w)^2 / (n sum w^2)``, over the last axis; 0 if every weight is 0."""
    xp = runtime.xp
    largest = xp.amax(log_weight, -1)
    some = largest > -math.inf
    weight = xp.exp(log_weight - xp.where(some, largest, 0.0)[..., None])
    squares = xp.where(some, (weight**2).sum(-1), 1.0)
    return weight.sum(-1) ** 2 / squares / log_weight.shape[-1]


def log_mean(runtime: Runtime, log_weight: Array) -> tuple[Array, Array]:
    """Log of the mean of weights ``(n)``, and its standard error."""
    xp, count = runtime.xp, log_weight.shape[0]
    mean = runtime.logsumexp(log_weight, 0) - math.log(count)
    relative = xp.exp(log_weight - mean)
    return mean, xp.sqrt(((relative - relative.mean()) ** 2).sum() / (count - 1) / count)


def _total(xp: Namespace, terms: Array) -> Array:
    """``logsumexp(-1)`` of finite terms, without exponentials that underflow, which are slow."""
    largest = xp.amax(terms, -1)
    return largest + xp.log(xp.exp(xp.clip(terms - largest[:, None], -80, None)).sum(-1))
