"""Principal components in the tangent space at the Frechet mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.statistics._means import frechet_mean


@dataclass(frozen=True, eq=False)
class TangentPCA:
    """Principal geodesics through the mean of some points.

    Attributes:
        metric: the metric.
        mean: ``(d,)``.
        directions: unit vectors at the mean, orthogonal for the metric, the widest first, ``(k, d)``.
        variance: of the points' coordinates along each, in squared lengths, ``(k,)``.
        explained: share of the total variance, ``(k,)``.

    Example:
        >>> from pyro_riemann import EuclideanMetric
        >>> found = tangent_pca(EuclideanMetric(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.1], [0.0, -0.1]]))
        >>> found.explained.round(decimals=2)
        tensor([0.9900, 0.0100])
    """

    metric: RiemannianMetric
    mean: Tensor
    directions: Tensor
    variance: Tensor
    explained: Tensor

    def coordinates(self, points: Tensor) -> Tensor:
        """Coordinates ``(*batch, k)`` of the logarithms of ``points``.

        Args:
            points: ``(*batch, d)``.

        Raises:
            TypeError, ValueError: as the metric's ``logmap``.
        """
        v = self.metric.logmap(self.mean.expand_as(points), points)
        return torch.einsum("...i,ij,kj->...k", v, self.metric.metric(self.mean), self.directions)

    def points(self, coordinates: Tensor) -> Tensor:
        """Points ``(*batch, d)`` with these coordinates: a line through 0 along one axis is a principal geodesic.

        Args:
            coordinates: ``(*batch, k)``.

        Raises:
            ValueError: if a geodesic leaves the chart.
        """
        v = coordinates @ self.directions
        return self.metric.expmap(self.mean.expand_as(v), v)


@full_precision
def tangent_pca(
    metric: RiemannianMetric, points: Tensor, num_components: int | None = None, weights: Tensor | None = None
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
        >>> from pyro_riemann import Sphere
        >>> meridian = torch.stack([torch.linspace(-1, 1, 9), torch.zeros(9)], -1)
        >>> found = tangent_pca(Sphere(2), meridian)
        >>> bool(found.explained[0] > 0.999)
        True
    """
    k = metric.dim if num_components is None else num_components
    if points.dim() != 2:
        raise ValueError(f"`points` must have shape (n, {metric.dim}), got {tuple(points.shape)}.")
    if not 1 <= k <= metric.dim:
        raise ValueError(f"`num_components` must be between 1 and {metric.dim}, got {k}.")
    mean = frechet_mean(metric, points, weights)
    share = torch.full_like(points[:, 0], 1 / len(points)) if weights is None else (weights / weights.sum()).to(points)
    factor = metric.cholesky(mean)
    white = metric.logmap(mean.expand_as(points), points) @ factor  # coordinates in an orthonormal frame
    values, vectors = torch.linalg.eigh(white.mT @ (share.unsqueeze(-1) * white))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    directions = torch.linalg.solve_triangular(factor.mT, vectors, upper=True).mT
    return TangentPCA(metric, mean, directions[:k], values[:k], values[:k] / values.sum())
