"""Principal components in the tangent space at the Frechet mean."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.statistics._means import frechet_mean


class TangentPCA(Pytree):
    """Principal geodesics through the mean of some points: what :func:`tangent_pca` returns; a pytree.

    Args:
        metric: the metric.
        mean: ``(d,)``.
        directions: unit vectors at the mean, orthogonal for the metric, the widest first, ``(k, d)``.
        variance: of the points' coordinates along each, in squared lengths, ``(k,)``.
        explained: share of the total variance, ``(k,)``.

    All are attributes.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric
        >>> found = tangent_pca(EuclideanMetric(2), jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.1], [0.0, -0.1]]))
        >>> [round(share, 2) for share in found.explained.tolist()]
        [0.99, 0.01]
    """

    pytree_data_fields = ("metric", "mean", "directions", "variance", "explained")

    def __init__(
        self, metric: RiemannianMetric, mean: Array, directions: Array, variance: Array, explained: Array
    ) -> None:
        self.metric, self.mean, self.directions = metric, mean, directions
        self.variance, self.explained = variance, explained

    def coordinates(self, points: Array) -> Array:
        """Coordinates ``(*batch, k)`` of the logarithms of ``points``.

        Args:
            points: ``(*batch, d)``.

        Raises:
            TypeError, ValueError: as the metric's ``logmap``.
        """
        v = self.metric.logmap(jnp.broadcast_to(self.mean, points.shape), points)
        return jnp.einsum("...i,ij,kj->...k", v, self.metric.metric(self.mean), self.directions)

    def points(self, coordinates: Array) -> Array:
        """Points ``(*batch, d)`` with these coordinates: a line through 0 along one axis is a principal geodesic.

        Args:
            coordinates: ``(*batch, k)``.

        Raises:
            ValueError: if a geodesic leaves the chart.
        """
        v = coordinates @ self.directions
        return self.metric.expmap(jnp.broadcast_to(self.mean, v.shape), v)


def tangent_pca(
    metric: RiemannianMetric, points: Array, num_components: int | None = None, weights: Array | None = None
) -> TangentPCA:
    r"""Principal components of :math:`\log_\mu x_i` at the Frechet mean, in an orthonormal frame.

    Args:
        metric: the metric.
        points: ``(n, d)``.
        num_components: number k of components; all d by default.
        weights: non-negative, ``(n,)``; equal by default.

    Raises:
        TypeError: as :func:`frechet_mean`.
        ValueError: likewise, for points with a batch, or a ``num_components`` that is not between 1 and d.

    Source: Fletcher, Lu, Pizer & Joshi (2004), *Principal geodesic analysis for the study of nonlinear statistics of
    shape*, section V.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> meridian = jnp.stack([jnp.linspace(-1, 1, 9), jnp.zeros(9)], -1)
        >>> bool(tangent_pca(Sphere(2), meridian).explained[0] > 0.999)
        True
    """
    k = metric.dim if num_components is None else num_components
    if jnp.ndim(points) != 2:
        raise ValueError(f"`points` must have shape (n, {metric.dim}), got {jnp.shape(points)}.")
    if not 1 <= k <= metric.dim:
        raise ValueError(f"`num_components` must be between 1 and {metric.dim}, got {k}.")
    mean = frechet_mean(metric, points, weights)
    given = jnp.ones_like(points[:, 0]) if weights is None else weights.astype(points.dtype)
    factor = metric.cholesky(mean)
    white = metric.logmap(jnp.broadcast_to(mean, points.shape), points) @ factor  # coordinates in an orthonormal frame
    values, vectors = jnp.linalg.eigh(white.T @ ((given / given.sum())[:, None] * white))
    values, vectors = jnp.maximum(values[::-1], 0), vectors[:, ::-1]
    directions = solve_triangular(factor, vectors, trans=1, lower=True).T
    return TangentPCA(metric, mean, directions[:k], values[:k], values[:k] / values.sum())
