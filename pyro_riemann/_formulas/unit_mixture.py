"""Gaussian mixtures with a uniform part on the unit box, on the host: proposals for a function that climbs know."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas.climbs import Vector

UNIFORM_SHARE = 0.05  # of the defensive part: bounds the weight of a point that no Gaussian knows of
_LARGEST_SHARE = 0.95
_ROWS = 256  # points at once: bounds the table of points, parts and axes


class UnitMixture(NamedTuple):
    """Gaussian parts, some of whose draws lie outside the box, and a uniform part.

    Attributes:
        loc: means, ``(m, d)``.
        root: Cholesky factors of the covariances, ``(m, d, d)``.
        log_share: log probabilities of the parts and, last, of the uniform part, ``(m + 1)``.
    """

    loc: Vector
    root: Vector
    log_share: Vector

    @classmethod
    def of_masses(cls, loc: Vector, covariance: Vector, log_mass: Vector, log_rest: float) -> UnitMixture:
        """Parts in proportion to their masses, and a uniform part for the rest, at least 5 %.

        Args:
            loc: means, ``(m, d)``; m may be 0.
            covariance: covariances, ``(m, d, d)``.
            log_mass: masses, ``(m)``.
            log_rest: mass of what is left over.
        """
        if len(loc) == 0:
            return cls(loc, covariance, np.zeros(1))
        total = np.logaddexp.reduce(log_mass)
        share = np.clip(np.exp(log_rest - np.logaddexp(log_rest, total)), UNIFORM_SHARE, _LARGEST_SHARE)
        shares = np.append(log_mass - total + math.log1p(-share), math.log(share))
        return cls(loc, np.linalg.cholesky(covariance), shares)

    def widened(self) -> UnitMixture:
        """A wider law, half of it uniform, its parts of more equal weights: where a tempered sequence starts."""
        if len(self.loc) == 0:
            return self
        flat = 0.5 * self.log_share[:-1]
        flat = flat - np.logaddexp.reduce(flat) + math.log(0.5)
        return UnitMixture(self.loc, 1.5**0.5 * self.root, np.append(flat, math.log(0.5)))

    def place(self, uniform: Vector, white: Vector) -> Vector:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)`` and standard normal ones ``(n, d)``."""
        edges = np.exp(self.log_share).cumsum()
        part = np.searchsorted(edges / edges[-1], uniform[:, 0], side="right").clip(max=len(self.loc))
        draws = uniform[:, 1:].copy()
        own = part < len(self.loc)
        draws[own] = self.loc[part[own]] + np.einsum("nij,nj->ni", self.root[part[own]], white[own])
        return draws

    def log_prob(self, unit: Vector) -> tuple[Vector, Vector]:
        """Log density at points ``(n, d)`` of the box, ``(n)``, and its gradient, ``(n, d)``."""
        if len(self.loc) == 0:
            return np.zeros(len(unit)), np.zeros_like(unit)
        whiten = np.linalg.inv(self.root)
        logdet = np.log(np.einsum("mii->mi", self.root)).sum(-1)
        peak = self.log_share[:-1] - logdet - 0.5 * unit.shape[1] * math.log(2 * math.pi)
        values, slopes = np.empty(len(unit)), np.empty_like(unit)
        for begin in range(0, len(unit), _ROWS):
            rows = slice(begin, begin + _ROWS)
            away = np.einsum("mij,nmj->nmi", whiten, unit[rows, None] - self.loc, optimize=True)
            terms = peak - 0.5 * np.square(away).sum(-1)
            values[rows] = np.logaddexp(np.logaddexp.reduce(terms, axis=1), self.log_share[-1])
            owner = np.exp(terms - values[rows, None])
            slopes[rows] = -np.einsum("nm,mij,nmi->nj", owner, whiten, away, optimize=True)
        return values, slopes


def log_mean(log_weight: Vector) -> tuple[float, float]:
    """Log of the mean weight, and its standard error."""
    mean = float(np.logaddexp.reduce(log_weight)) - math.log(len(log_weight))
    return mean, float(np.exp(log_weight - mean).std(ddof=1)) / math.sqrt(len(log_weight))


def effective_share(log_weight: Vector) -> float:
    """Effective sample size per draw; 0 if every weight is 0."""
    total = np.logaddexp.reduce(log_weight)
    if not np.isfinite(total):
        return 0.0
    return float(np.exp(2 * total - np.logaddexp.reduce(2 * log_weight)) / len(log_weight))
