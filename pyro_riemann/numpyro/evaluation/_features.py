"""Two sets of features: the Frechet distance of their moments, and membership in unions of balls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from jax import Array

from pyro_riemann.numpyro._checks import check_finite

_ROWS = 1000  # rows of the distance matrix at once


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1].

    Attributes:
        precision: share of generated points that lie in the estimated support of the real ones.
        recall: share of real points that lie in the estimated support of the generated ones.

    Example:
        >>> PrecisionRecall(precision=0.9, recall=0.5).recall
        0.5
    """

    precision: float
    recall: float


def frechet_distance(real: Array | np.ndarray, generated: Array | np.ndarray) -> float:
    r"""Frechet distance of the Gaussians with the moments of two sets of features.

    .. math:: |\mu_r - \mu_g|^2 + \mathrm{tr}\bigl(S_r + S_g - 2 (S_r S_g)^{1/2}\bigr).

    On the host, in double precision.

    Args:
        real: features ``(n, p)``, n at least 2.
        generated: features ``(m, p)``, m at least 2.

    Raises:
        ValueError: for features of different width, fewer than two rows, or a value that is not finite.

    Source: Heusel et al. (2017), *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*;
    Dowson & Landau (1982), *The Frechet distance between multivariate normal distributions*.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
        >>> round(frechet_distance(x, x + 2), 3)  # a shift by 2 along 3 axes
        12.0
    """
    one, other = _checked(real, generated, 2)
    first, second = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (one, other))
    # the product of two covariances is similar to a positive matrix: what is negative or complex is rounding
    roots = np.sqrt(np.clip(scipy.linalg.eigvals(first @ second).real, 0, None))
    shift = one.mean(0) - other.mean(0)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * roots.sum())


def precision_recall(
    real: Array | np.ndarray, generated: Array | np.ndarray, num_neighbors: int = 3
) -> PrecisionRecall:
    """Precision and recall of generated features.

    The support of a set is the union of the balls around its points up to their k-th nearest neighbour in the set. On
    the host.

    Args:
        real: features ``(n, p)``.
        generated: features ``(m, p)``.
        num_neighbors: the k above, the authors' 3.

    Raises:
        ValueError: for features of different width, sets of no more than k points, or a value that is not finite.

    Source: Kynkaanniemi et al. (2019), *Improved precision and recall metric for assessing generative models*, eq. 1
    and 2.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (100, 2))
        >>> precision_recall(x, x)
        PrecisionRecall(precision=1.0, recall=1.0)
    """
    if num_neighbors < 1:
        raise ValueError(f"`num_neighbors` must be at least 1, got {num_neighbors}.")
    one, other = _checked(real, generated, num_neighbors + 1)
    precision = _covered(other, one, _radii(one, num_neighbors))
    return PrecisionRecall(precision, _covered(one, other, _radii(other, num_neighbors)))


def _checked(real: Array | np.ndarray, generated: Array | np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    for name, value in (("real", real), ("generated", generated)):
        if value.ndim != 2 or len(value) < least:
            raise ValueError(f"`{name}` must be features (n, p) with n >= {least}, got shape {value.shape}.")
        check_finite(name, value)
    if real.shape[-1] != generated.shape[-1]:
        raise ValueError(f"`real` has {real.shape[-1]} features, `generated` {generated.shape[-1]}.")
    return np.asarray(real, np.float64), np.asarray(generated, np.float64)


def _radii(points: np.ndarray, num_neighbors: int) -> np.ndarray:
    """Distance of every point to its k-th nearest other one, ``(n,)``."""
    return scipy.spatial.KDTree(points).query(points, [num_neighbors + 1])[0][:, 0]  # the first is the point itself


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Share of the points in at least one ball."""
    parts = np.split(points, range(_ROWS, len(points), _ROWS))
    return float(np.concatenate([(scipy.spatial.distance.cdist(p, centres) <= radii).any(-1) for p in parts]).mean())
