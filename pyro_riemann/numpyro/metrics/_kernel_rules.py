"""What a kernel metric is made of, each part by itself: medoids, bandwidths, moments of posteriors."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.medoids import bandwidth_by_rule, moments_of_draws, select_medoids
from pyro_riemann.numpyro._checks import check_array, check_finite


def k_medoids(codes: Array, num_centroids: int, seed: int = 0, max_codes: int = 10_000) -> Array:
    """Rows ``(k,)`` of the k-medoids of codes in Euclidean distance, in ascending order.

    Args:
        codes: ``(N, d)``. Runs on the host, not under ``jit``.
        num_centroids: k.
        seed: of the search.
        max_codes: with more codes than this, medoids are searched in several random subsets of this size, and the set
            that serves all codes best is kept.

    Raises:
        TypeError, ValueError: if ``codes`` is no finite floating matrix, or has fewer rows than centroids.
        ImportError: if ``kmedoids`` is not installed, which the extra `kernel` brings.

    Source: Schubert & Rousseeuw (2021), *Fast and eager k-medoids clustering* (FasterPAM); Kaufman & Rousseeuw (1990),
    *Finding groups in data* (CLARA's subsets).

    Example:
        >>> k_medoids(jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]]), num_centroids=2)
        Array([1, 4], dtype=int32)
    """
    _check_rows("codes", codes)
    return jnp.asarray(select_medoids(np.asarray(codes), num_centroids, seed, max_codes))


def kernel_bandwidth(centroids: Array, precisions: Array, rule: str = "posterior") -> float:
    r"""The bandwidth :math:`\rho` of a :class:`KernelMetric` by a rule.

    Args:
        centroids: :math:`c_i`, ``(k, d)``.
        precisions: :math:`P_i`, ``(k, d)`` or ``(k, d, d)``.
        rule: ``"posterior"``, :math:`\sqrt d` times the largest factor up to 1 at which 95 % of bumps are in effect,
            :math:`(\sum m_i)^2 / \sum m_i^2 \ge 0.95 k` with :math:`m_i^2 = \det G(c_i) / \det P_i`;
            ``"mahalanobis"``, :math:`\max_i \min_{j \ne i} |c_i - c_j|_{P_i}`;
            ``"euclidean"``, :math:`\max_i \min_{j \ne i} |c_i - c_j|_2`. See :meth:`KernelMetric.from_posterior`.

    Raises:
        TypeError, ValueError: for another rule, shapes that do not match, or a rule that needs two unlike centroids.

    Source: an isolated bump of :math:`\sqrt{\det G}` is :math:`N(c_i, \rho^2 P_i^{-1} / d)` by C22's eq. 7;
    ``"euclidean"``: C22, section 4.2.

    Example:
        >>> kernel_bandwidth(jnp.array([[0.0, 0.0], [3.0, 0.0]]), jnp.full((2, 2), 4.0), "mahalanobis")
        6.0
    """
    _check_rows("centroids", centroids)
    if precisions.shape not in (centroids.shape, (*centroids.shape, centroids.shape[-1])):
        raise ValueError(
            f"`precisions` must have shape (k, d) or (k, d, d) to match `centroids` {centroids.shape}, got "
            f"{precisions.shape}."
        )
    return bandwidth_by_rule(np.asarray(centroids), np.asarray(precisions), rule)


def posterior_moments(draws: Array) -> tuple[Array, Array]:
    """Means and covariances of posteriors of which there are only draws.

    Args:
        draws: ``(num_draws, n, d)``, num_draws at least 2 (d + 2). A precision from S draws is too large by the factor
            (S - 1) / (S - d - 2) in the mean.

    Returns:
        Means ``(n, d)`` and Cholesky factors of the covariances ``(n, d, d)``: ``loc`` and ``scale`` of
        :meth:`KernelMetric.from_posterior`.

    Raises:
        TypeError, ValueError: if ``draws`` is no such tensor.

    Source: unbiased covariance; mean of the inverse Wishart law, Mardia, Kent & Bibby (1979), *Multivariate analysis*,
    section 3.4.

    Example:
        >>> loc, scale = posterior_moments(jax.random.normal(jax.random.key(0), (1000, 5, 2)))
        >>> loc.shape, scale.shape
        ((5, 2), (5, 2, 2))
    """
    return moments_of_draws(jnp, check_finite("draws", check_array("draws", draws)))


def _check_rows(name: str, value: Array) -> None:
    if check_array(name, value).ndim != 2 or 0 in value.shape:
        raise ValueError(f"`{name}` must have shape (n, d), got {value.shape}.")
    check_finite(name, value)
