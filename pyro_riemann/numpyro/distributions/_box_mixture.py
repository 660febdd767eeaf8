"""Proposals for a Riemannian uniform on a box: Gaussian mixtures with a defensive uniform part."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp
from jax.scipy.special import ndtri
from scipy.stats import qmc

from pyro_riemann._formulas.unit_mixture import UnitMixture
from pyro_riemann.numpyro.distributions._box import in_pieces, rows_at_once
from pyro_riemann.numpyro.metrics import KernelMetric, RiemannianMetric
from pyro_riemann.numpyro.metrics._mahalanobis import exact_products, squared_distances

_UNIFORM_SHARE = 0.05  # of the defensive part: bounds the weight of a point that no Gaussian knows of
_LARGEST_SHARE = 0.95
_REACH = 5.0  # standard deviations beyond the box at which a known peak no longer matters
_NEVER = -1e6  # log mass of such a peak: no array changes its shape under `jit`


class MixtureProposal(NamedTuple):
    r"""Defensive mixture: Gaussian parts for the bumps of :math:`\sqrt{\det G}`, and a uniform part on the box.

    Draws of a Gaussian that fall outside the box have target density 0 and are refused by whoever weighs them.

    Attributes:
        loc: means ``(m, d)``; m may be 0.
        precision: inverse variances ``(m, d)`` or inverse covariances ``(m, d, d)``.
        root: standard deviations, or Cholesky factors of the covariances.
        log_share: log probabilities of the parts and, last, of the uniform part, ``(m + 1)``.
        log_peak: log density of each part at its mean, ``(m)``.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.

    Source: the bumps of C22 eq. 7; defensive mixtures are those of Hesterberg (1995), *Weighted average importance
    sampling and defensive mixture distributions*.
    """

    loc: Array
    precision: Array
    root: Array
    log_share: Array
    log_peak: Array
    low: Array
    high: Array

    @exact_products
    def log_prob(self, z: Array) -> Array:
        """Log density at points ``(n, d)`` of the box, ``(n)``."""
        uniform = jnp.broadcast_to(self.log_share[-1] - jnp.log(self.high - self.low).sum(), (len(z), 1))
        if len(self.loc) == 0:
            return uniform[:, 0]
        centre = self.loc.mean(0)
        squared = squared_distances(z - centre, self.loc - centre, self.precision)
        return logsumexp(jnp.concatenate([self.log_share[:-1] + self.log_peak - 0.5 * squared, uniform], -1), axis=-1)

    def place(self, uniform: Array) -> Array:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)``; a few lie outside the box."""
        flat = self.low + (self.high - self.low) * uniform[:, 1:]
        if len(self.loc) == 0:
            return flat
        edges = jnp.exp(self.log_share).cumsum()
        part = jnp.searchsorted(edges / edges[-1], uniform[:, 0], side="right")
        chosen = part.clip(max=len(self.loc) - 1)
        eps = jnp.finfo(uniform.dtype).eps
        white = ndtri(uniform[:, 1:].clip(eps, 1 - eps))
        step = self.root[chosen] * white if self.root.ndim == 2 else jnp.einsum("nij,nj->ni", self.root[chosen], white)
        return jnp.where((part < len(self.loc))[:, None], self.loc[chosen] + step, flat)

    def scale(self) -> Array:
        """Length scale of the target in each coordinate, ``(d)``: that within a part, or of the box."""
        if len(self.loc) == 0:
            return (self.high - self.low) / 12**0.5
        covariance = jnp.square(self.root) if self.root.ndim == 2 else jnp.square(self.root).sum(-1)
        return jnp.sqrt(jax.nn.softmax(self.log_share[:-1]) @ covariance)


def uniform_proposal(low: Array, high: Array) -> MixtureProposal:
    """Nothing but the uniform part."""
    none = jnp.zeros((0, len(low)), low.dtype)
    return MixtureProposal(none, none, none, jnp.zeros(1, low.dtype), none.sum(-1), low, high)


def known_proposal(metric: RiemannianMetric, low: Array, high: Array) -> MixtureProposal | None:
    r"""One Gaussian for each of the peaks that the metric knows of, or None; also where arrays are traced.

    Weights are proportional to :math:`\sqrt{\det G(c_i) \det C_i}`, which counts what neighbours add at the top; the
    uniform part has the share of the volume that half of the box is below, and at least 5 %.
    """
    known = metric.peaks()
    if known is None:
        return None
    loc, covariance = (leaf.astype(low.dtype) for leaf in known)
    unit = qmc.Sobol(metric.dim, scramble=True, seed=np.random.default_rng(0)).random(256)
    places = jnp.concatenate([loc.clip(low, high), low + (high - low) * jnp.asarray(unit, low.dtype)])
    height = in_pieces(lambda z: 0.5 * metric.logdet(z), rows_at_once(metric), places)
    rest = jnp.median(height[len(loc) :]) + jnp.log(high - low).sum()
    root = jnp.linalg.cholesky(covariance)
    area = _area(root)
    near = (jnp.abs(loc - loc.clip(low, high)) < _REACH * jnp.sqrt(jnp.square(root).sum(-1))).all(-1)
    log_mass = jnp.where(near, height[: len(loc)] + area, _NEVER)
    share = jnp.exp(rest - jnp.logaddexp(logsumexp(log_mass), rest)).clip(_UNIFORM_SHARE, _LARGEST_SHARE)
    log_share = jnp.append(jax.nn.log_softmax(log_mass) + jnp.log1p(-share), jnp.log(share))
    diagonal = isinstance(metric, KernelMetric) and metric.is_diagonal
    if diagonal:  # a tenth of the work
        root = jnp.diagonal(root, axis1=-2, axis2=-1)
    return MixtureProposal(loc, _precision(root), root, log_share, -area, low, high)


def fitted_proposal(mixture: UnitMixture, low: Array, high: Array) -> MixtureProposal:
    """A mixture that was fitted on the unit box."""
    if len(mixture.loc) == 0:
        return uniform_proposal(low, high)
    width = np.asarray(high - low, float)
    root = jnp.asarray(width[:, None] * mixture.root, low.dtype)
    loc = low + jnp.asarray(width * mixture.loc, low.dtype)
    if not np.tril(mixture.root, -1).any():
        root = jnp.diagonal(root, axis1=-2, axis2=-1)
    shares = jnp.asarray(mixture.log_share, low.dtype)
    return MixtureProposal(loc, _precision(root), root, shares, -_area(root), low, high)


def _precision(root: Array) -> Array:
    if root.ndim == 2:
        return 1 / jnp.square(root)
    inverse = jnp.linalg.inv(root)
    return inverse.mT @ inverse


def _area(root: Array) -> Array:
    """Log of the integral of a bump of height 1."""
    scales = root if root.ndim == 2 else jnp.diagonal(root, axis1=-2, axis2=-1)
    return 0.5 * scales.shape[-1] * math.log(2 * math.pi) + jnp.log(scales).sum(-1)


def weigh(metric: RiemannianMetric, proposal: MixtureProposal, z: Array) -> Array:
    r"""Log importance weights :math:`\log \sqrt{\det G} - \log q` at ``(n, d)``; ``-inf`` outside the box."""
    inside = ((z >= proposal.low) & (z <= proposal.high)).all(-1)
    # outside the box the metric need not be defined
    point = jnp.where(inside[:, None], z, (proposal.low + proposal.high) / 2)
    log_weight = in_pieces(lambda p: 0.5 * metric.logdet(p) - proposal.log_prob(p), rows_at_once(metric), point)
    return jnp.where(inside, log_weight, -jnp.inf)
