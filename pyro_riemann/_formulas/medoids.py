"""Moments of posteriors, centroids and bandwidth of a kernel metric, from encoded training data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyro_riemann._formulas import Array
from pyro_riemann._lazy import needs

RULES = ("posterior", "mahalanobis", "euclidean")
_NUM_SUBSETS = 3
_IN_EFFECT = 0.95  # share of the bumps
_STEP, _SMALLEST = 0.95, 0.05  # of the factor by which bumps are narrower than posteriors


def select_medoids(codes: Array, num_centroids: int, seed: int, max_codes: int) -> Array:
    """Indices ``(k,)`` of k-medoids of ``codes`` ``(N, d)`` in Euclidean distance.

    FasterPAM needs all pairwise distances. Beyond ``max_codes`` codes it runs on random subsets,
    as in CLARA, and the medoids with the smallest mean distance to all codes win.
    """
    with needs("A search for k-medoids", "kernel"):
        import kmedoids  # loads scikit-learn, which takes a second

    num_codes = codes.shape[0]
    if not 1 <= num_centroids <= min(num_codes, max_codes):
        raise ValueError(
            f"`num_centroids` must be between 1 and the number of codes searched ({min(num_codes, max_codes)}), "
            f"got {num_centroids}."
        )
    codes = codes.astype(np.float32)  # halves the memory of the distance matrix; ranks need no more
    generator = np.random.default_rng(seed)
    best, lowest = np.arange(0), float("inf")
    for trial in range(1 if num_codes <= max_codes else _NUM_SUBSETS):
        subset = np.sort(generator.permutation(num_codes)[:max_codes])
        sample = codes[subset]
        result = kmedoids.fasterpam(_distances(sample, sample), num_centroids, random_state=seed + trial, n_cpu=1)
        chosen = subset[result.medoids.astype(np.int64)]
        chunks = (codes[start : start + max_codes] for start in range(0, num_codes, max_codes))
        cost = sum(float(_distances(chunk, codes[chosen]).min(-1).sum()) for chunk in chunks)
        if cost < lowest:
            best, lowest = chosen, cost
    return np.sort(best)


def _distances(a: Array, b: Array) -> Array:
    """Euclidean distances ``(n, m)``, by one matrix product about the common mean."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    squared: Array = (a * a).sum(-1)[:, None] + (b * b).sum(-1)
    squared -= 2 * (a @ b.T)
    return np.sqrt(np.maximum(squared, 0, out=squared), out=squared)


def bandwidth_by_rule(centroids: Array, precisions: Array, rule: str) -> float:
    r"""The bandwidth of a kernel metric.

    ``"posterior"``: :math:`\sqrt d`, with which an isolated bump of the volume element is the posterior, times the
    largest factor up to 1 at which 95 % of the bumps are in effect.
    ``"mahalanobis"``: largest distance from a centroid to its nearest other one, by the centroid's own precision.
    ``"euclidean"``: the same in Euclidean distance, the rule of Chadebec & Allassonniere (2022).
    """
    if rule not in RULES:
        raise ValueError(f"`bandwidth` must be a number or one of {', '.join(map(repr, RULES))}, got {rule!r}.")
    if rule == "posterior":
        return math.sqrt(centroids.shape[-1]) * _factor(centroids.astype(np.float64), precisions.astype(np.float64))
    if centroids.shape[0] < 2:
        raise ValueError(f'`bandwidth="{rule}"` needs at least 2 centroids; give a number instead.')
    wide = centroids.astype(np.float64)
    weights = precisions.astype(np.float64) if rule == "mahalanobis" else np.ones_like(wide)
    squared = np.stack([_squared_length(wide - wide[i], weights[i]) for i in range(len(wide))])
    np.fill_diagonal(squared, np.inf)
    bandwidth = float(np.sqrt(squared.min(-1).max()))
    if bandwidth == 0:
        raise ValueError("`loc` holds duplicates only: every centroid has a twin, so no bandwidth can be derived.")
    return bandwidth


def effective_bumps(centroids: Array, precisions: Array, squared: Array, bandwidth: float) -> float:
    r"""Effective number of bumps, :math:`(\sum m_i)^2 / \sum m_i^2`, by the heights to which kernels lift each other.

    :math:`m_i^2 = \det G(c_i) / \det P_i`, 1 for an isolated bump: n kernels on one spot make it :math:`n^d`.
    """
    weights = np.exp(-squared / bandwidth**2)
    if precisions.ndim == 2:
        lift = np.log(weights @ precisions).sum(-1) - np.log(precisions).sum(-1)
    else:
        total = (weights @ precisions.reshape(len(precisions), -1)).reshape(precisions.shape)
        lift = np.linalg.slogdet(total)[1] - np.linalg.slogdet(precisions)[1]
    mass = np.exp(0.5 * (lift - lift.max()))
    return float(mass.sum() ** 2 / (mass**2).sum())


def _factor(centroids: Array, precisions: Array) -> float:
    """Largest factor up to 1, in steps of 5 %, with 95 % of the bumps in effect; the smallest where none has them."""
    squared = np.stack([_squared_length(centroids - c, p) for c, p in zip(centroids, precisions, strict=True)]).T
    factor = 1.0
    while factor > _SMALLEST:
        bandwidth = factor * math.sqrt(centroids.shape[-1])
        if effective_bumps(centroids, precisions, squared, bandwidth) >= _IN_EFFECT * len(centroids):
            break
        factor *= _STEP
    return factor


def _squared_length(v: Array, precision: Array) -> Array:
    """Squared lengths of ``v`` ``(n, d)`` by a precision, ``(d)`` or ``(d, d)``."""
    pulled: Array = v @ precision if precision.ndim == 2 else precision * v
    return (pulled * v).sum(-1)


def triangular_fault(tril: Array) -> str:
    """What is wrong with Cholesky factors ``(N, d, d)``; empty where nothing is."""
    if np.triu(tril, 1).any() or not (np.diagonal(tril, axis1=-2, axis2=-1) > 0).all():
        return (
            "`scale` of shape (N, d, d) must be Cholesky factors: lower triangular with a positive diagonal. Of "
            "covariances, take `linalg.cholesky(covariance)`."
        )
    return ""


def scale_fault(scale: Array) -> str:
    """What is wrong with standard deviations; empty where nothing is."""
    bad = int((~(np.isfinite(scale) & (scale > 0))).sum())
    if not bad:
        return ""
    hint = ""
    if (scale < 0).any():
        hint = " Are they log-variances? Then give `exp(0.5 * log_variance)`."
    return f"`scale` must be finite and strictly positive, {bad} of {scale.size} entries are not.{hint}"


def moments_of_draws(xp: Any, draws: Array) -> tuple[Array, Array]:
    """Mean ``(n, d)`` and Cholesky factor of the unbiased covariance ``(n, d, d)`` of draws ``(S, n, d)``.

    Raises:
        ValueError: if there are too few of them.
    """
    if draws.ndim != 3 or draws.shape[0] < 2 * (draws.shape[-1] + 2):
        raise ValueError(
            "`draws` must have shape (num_draws, n, d) with num_draws >= 2 (d + 2), or precisions are mostly noise; "
            f"got {tuple(draws.shape)}."
        )
    loc = draws.mean(0)
    apart = xp.moveaxis(draws - loc, 0, -1)  # (n, d, S)
    return loc, xp.linalg.cholesky(apart @ apart.mT / (draws.shape[0] - 1))
