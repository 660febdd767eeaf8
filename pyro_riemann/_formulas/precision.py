"""How a precision network starts: centres by k-means, bandwidths of the clusters, weights of their residuals."""

from __future__ import annotations

import numpy as np

from pyro_riemann._formulas import Array, Namespace


def check_codes(codes: np.ndarray, dim: int, bandwidth: float | None) -> np.ndarray:
    """The codes, if they are ``(n, dim)`` and the bandwidth is none or positive."""
    if codes.ndim != 2 or codes.shape[-1] != dim:
        raise ValueError(f"`codes` must have shape (n, {dim}), got {codes.shape}.")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"`bandwidth` must be positive, got {bandwidth}.")
    return codes


def check_residuals(residuals: Array, count: int, data_dim: int) -> Array:
    """The residuals, if they are ``(count, data_dim)``."""
    if residuals.shape != (count, data_dim):
        raise ValueError(f"`residuals` must have shape {(count, data_dim)}, got {tuple(residuals.shape)}.")
    return residuals


def cluster_centers(codes: np.ndarray, num_centers: int, seed: int) -> np.ndarray:
    """Centres ``(num_centers, d)`` of codes ``(n, d)``, by scikit-learn."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(codes, axis=0))
    if distinct < num_centers:
        raise ValueError(
            f"{num_centers} centres need as many distinct codes, got {distinct}: lower `num_centers` or encode more "
            "data."
        )
    centers: np.ndarray = KMeans(num_centers, n_init=1, random_state=seed).fit(codes).cluster_centers_
    return centers


def nearest_centers(codes: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which centre is nearest to each code, ``(n,)``, and how far."""
    from sklearn.metrics import pairwise_distances_argmin_min

    nearest, distance = pairwise_distances_argmin_min(codes, centers)
    return nearest, distance


def bandwidths(xp: Namespace, radius: Array, median: float, given: float | None, factor: float) -> Array:
    """Bandwidths of clusters with these mean radii ``(K,)``; ``median`` is that of those above 0."""
    # a cluster of one code has radius 0: a spike, not a bump
    return xp.full_like(radius, given) if given is not None else factor * xp.clip(radius, 0.5 * median, None)


def log_weights(xp: Namespace, total: Array, counts: Array, overall: Array, min_scale: float, apart: Array) -> Array:
    """Log weights ``(D, K)`` for which the precision at a centre is the inverse mean residual of its cluster.

    Args:
        xp: the array namespace.
        total: sums of squared residuals in the clusters, ``(K, D)``.
        counts: of their codes, ``(K, 1)``.
        overall: mean squared residual of all data, ``(D,)``.
        min_scale: least standard deviation.
        apart: distances of the centres, in units of the bandwidth of the second, ``(K, K)``.
    """
    variance = (total + 5 * overall) / (counts + 5)  # shrunk: a small cluster knows little
    target = 1 / (variance + max(min_scale, 1e-3) ** 2)
    # basis functions overlap: divide by their sum at each centre, so that they add up to the target
    overlap = xp.exp(-0.5 * apart**2).sum(-1)
    return xp.log(xp.clip(target / overlap[:, None], 1e-6, None)).mT
