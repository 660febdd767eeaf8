"""Mixtures by groups of Gaussians: bumps that are known, and such as were found and are fitted; on the host."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas import climbs
from pyro_riemann._formulas.climbs import Slopes, Vector
from pyro_riemann._formulas.peaks import variances
from pyro_riemann._formulas.runtime import HOST, triangle
from pyro_riemann._formulas.unit_mixture import LARGEST_SHARE, UNIFORM_SHARE, UnitMixture, log_area, mixture

KNOWN_SHARE = 0.1  # of the known bumps in a fitted mixture: none is ever out of reach
_MATRICES = 2**25  # numbers of all covariances above which their diagonals take their place
_REACH = 5.0  # standard deviations beyond the box at which a known peak no longer matters


def known_bumps(slopes: Slopes, loc: Vector, covariance: Vector) -> climbs.Bumps | None:
    """Those of peaks ``(m, d)`` with covariances ``(m, d, d)``, or ``(m, d)``, that reach into the unit box."""
    real = np.isfinite(loc).all(-1) & np.isfinite(covariance).reshape(len(loc), -1).all(-1)
    loc, covariance = loc[real], covariance[real]
    reach = _REACH * np.sqrt(variances(np, covariance))
    near = ((loc > -reach) & (loc < 1 + reach)).all(-1)
    if not near.any():
        return None
    loc, covariance = loc[near], covariance[near]
    # outside the box the function need not be defined: a peak there counts by what it is at the wall
    unit = loc.clip(0, 1)
    value = slopes(unit)[0]
    scales = np.sqrt(covariance) if covariance.ndim == 2 else np.einsum("mii->mi", np.linalg.cholesky(covariance))
    return climbs.Bumps(unit, value, loc, covariance, value + log_area(np, scales))


class Groups(NamedTuple):
    """A mixture by groups of Gaussians, of which only the first is adapted.

    Attributes:
        parts: means ``(m, d)``, covariances ``(m, d, d)`` and log weights ``(m)``, normalised, of each group.
        shares: probabilities of the groups and, last, of the uniform part.
    """

    parts: tuple[tuple[Vector, Vector, Vector], ...]
    shares: Vector

    @classmethod
    def of_bumps(cls, groups: list[climbs.Bumps], log_rest: float, smallest: float = 0.0) -> Groups:
        """Groups in proportion to their masses, and a uniform part for the rest of the integral, at least 5 %.

        Args:
            groups: the bumps.
            log_rest: log of what the groups leave over.
            smallest: share of each group at least, of what the groups have.
        """
        if not groups:
            return cls((), np.ones(1))
        masses = np.array([*(np.logaddexp.reduce(group.log_mass) for group in groups), log_rest])
        shares = np.exp(masses - np.logaddexp.reduce(masses))
        shares[-1] = shares[-1].clip(UNIFORM_SHARE, LARGEST_SHARE)
        shares[:-1] = (shares[:-1] / max(shares[:-1].sum(), 1e-300)).clip(smallest) * (1 - shares[-1])
        parts = tuple((g.loc, g.covariance, g.log_mass - m) for g, m in zip(groups, masses, strict=False))
        return cls(parts, shares / shares.sum())

    def mixture(self, dim: int) -> UnitMixture:
        """All Gaussians in one."""
        if not self.parts:
            return mixture(np, np.zeros((0, dim)), np.zeros((0, dim)), np.zeros(1))
        loc, old = np.concatenate([part[0] for part in self.parts]), [part[1] for part in self.parts]
        weights = [math.log(s) + part[2] for s, part in zip(self.shares, self.parts, strict=False)]
        if loc.size * dim > _MATRICES or all(map(_is_diagonal, old)):  # a tenth of the work
            covariance = np.concatenate([variances(np, part) for part in old])
        else:
            covariance = np.concatenate([part[:, :, None] * np.eye(dim) if part.ndim == 2 else part for part in old])
        return mixture(np, loc, covariance, np.concatenate([*weights, np.log(self.shares[-1:])]))

    def adapted(self, whole: UnitMixture, z: Vector, weights: Vector) -> Groups:
        """One step of population Monte Carlo on the first group; the others change their share only.

        Cappe, Douc, Guillin, Marin & Robert (2008), *Adaptive importance sampling in general mixture classes*.

        Args:
            whole: the mixture of these groups.
            z: its draws, ``(n, d)``.
            weights: normalised importance weights, ``(n)``.
        """
        (loc, old, _), dim = self.parts[0], z.shape[1]
        edges = np.cumsum([0, *(len(part[0]) for part in self.parts)])  # the uniform part is the last, alone

        def owners(piece: Vector) -> tuple[Vector, Vector]:
            terms = whole.terms(HOST, piece)
            owner = np.exp(np.maximum(terms - terms.max(1, keepdims=True), -80))
            owner /= owner.sum(1, keepdims=True)
            return owner[:, : len(loc)], np.add.reduceat(owner, edges, axis=1)

        share, by_group = HOST.in_pieces(owners, whole.rows, z)
        share, shares = weights[:, None] * share, weights @ by_group
        shares[1:-1] = shares[1:-1].clip(KNOWN_SHARE)
        shares[-1] = shares[-1].clip(UNIFORM_SHARE, LARGEST_SHARE)
        mass = share.sum(0)
        seen, used = np.maximum(mass, 1e-12), mass > 1e-6  # a part that met no draw keeps its place
        mean = share.T @ z / seen[:, None]
        above = triangle(dim)
        square = (share.T @ (z[:, above.row] * z[:, above.column]))[:, above.entry]
        spread = square / seen[:, None, None] - mean[:, :, None] * mean[:, None]
        # half of the old shape stays in: few draws never collapse a part; 5 % wider, as weights are large in the tails
        covariance = np.where(used[:, None, None], 0.525 * (spread + old), old)
        log_weight = np.log(np.maximum(mass, 1e-8))
        first = np.where(used[:, None], mean, loc), covariance, log_weight - np.logaddexp.reduce(log_weight)
        return Groups((first, *self.parts[1:]), shares / shares.sum())


def _is_diagonal(covariance: Vector) -> bool:
    if covariance.ndim == 2:
        return True
    return not (covariance - variances(np, covariance)[:, :, None] * np.eye(covariance.shape[-1])).any()
