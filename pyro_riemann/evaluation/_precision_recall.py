"""Precision and recall of distributions: by unions of balls, improved, and as curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._work import announced
from pyro_riemann.evaluation._frechet import check_features

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


@announced
def precision_recall(real: Tensor, generated: Tensor, num_neighbors: int = 3) -> PrecisionRecall:
    """Precision and recall of generated features.

    The support of a set is the union of the balls around its points up to their k-th nearest neighbour in the set.

    Args:
        real: features ``(n, p)``.
        generated: features ``(m, p)``.
        num_neighbors: the k above, the authors' 3.

    Raises:
        ValueError: for features of different width, or sets of no more than k points.

    Source: Kynkaanniemi et al. (2019), eq. 1 and 2.

    Example:
        >>> x = torch.randn(100, 2)
        >>> precision_recall(x, x)
        PrecisionRecall(precision=1.0, recall=1.0)
    """
    if num_neighbors < 1:
        raise ValueError(f"`num_neighbors` must be at least 1, got {num_neighbors}.")
    check_features(real, generated, least=num_neighbors + 1)
    precision = _covered(generated, real, _radii(real, num_neighbors))
    return PrecisionRecall(precision, _covered(real, generated, _radii(generated, num_neighbors)))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances ``(n, m)``."""
    return (a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * a @ b.mT).clamp(min=0)


def _radii(points: Tensor, num_neighbors: int) -> Tensor:
    """Squared distance of every point to its k-th nearest other one, ``(n,)``."""
    radii = []
    for start, part in enumerate(points.split(_ROWS)):
        squared = _squared(part, points)
        rows = torch.arange(len(part), device=points.device)
        squared[rows, start * _ROWS + rows] = torch.inf  # itself, whatever rounding makes of that distance
        radii.append(squared.topk(num_neighbors, largest=False).values[:, -1])
    return torch.cat(radii)


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of the points in at least one ball."""
    # a point that is a centre lies in its ball: the expanded square must not lose that to rounding
    slack = 1e-6 * centres.square().sum(-1)
    inside = [(_squared(part, centres) <= radii + slack).any(-1) for part in points.split(_ROWS)]
    return float(torch.cat(inside).double().mean())


class PRD(NamedTuple):
    """Curve of precision and recall, and its two summaries.

    Attributes:
        precision: ``(num_angles,)``.
        recall: ``(num_angles,)``.
        f8: largest F_8 of the curve: recall counts eight times as much, so it falls where modes are missing.
        f1_8: largest F_1/8: precision counts eight times as much, so it falls where samples are off the data.

    Example:
        >>> x = torch.randn(300, 2)
        >>> result = prd(x, x, num_clusters=5)
        >>> round(result.f8, 6), round(result.f1_8, 6)
        (1.0, 1.0)
    """

    precision: Tensor
    recall: Tensor
    f8: float
    f1_8: float


@announced
def prd(
    real: Tensor,
    generated: Tensor,
    num_clusters: int = 20,
    num_runs: int = 10,
    num_angles: int = 1001,
    seed: int = 0,
) -> PRD:
    """Precision and recall of generated features, from k-means clusters of both sets together.

    Shares of the clusters in each set are histograms, whose curve is exact (:func:`prd_of_histograms`); curves are
    averaged over runs of k-means. Sets of the same size make for even clusters.

    Args:
        real: features ``(n, p)``.
        generated: features ``(m, p)``.
        num_clusters: the authors' 20.
        num_runs: runs of k-means, the authors' 10.
        num_angles: points of the curve, the authors' 1001.
        seed: seed of k-means.

    Raises:
        ValueError: for features of different width, or fewer rows than clusters.

    Source: Sajjadi et al. (2018), algorithm 1 and section 4.

    Example:
        >>> x = torch.randn(300, 2)
        >>> prd(x, x + 100, num_clusters=5).f8 < 1e-6
        True
    """
    from sklearn.cluster import MiniBatchKMeans

    check_features(real, generated)
    if num_runs < 1 or not 1 <= num_clusters <= len(real) + len(generated):
        raise ValueError(f"`num_runs` and `num_clusters` must be positive and few, got {num_runs}, {num_clusters}.")
    both = torch.cat([real, generated]).cpu().double().numpy()
    curves = []
    for run in range(num_runs):
        labels = MiniBatchKMeans(num_clusters, n_init=3, random_state=seed + run, batch_size=2048).fit_predict(both)
        counts = [np.bincount(part, minlength=num_clusters) for part in (labels[: len(real)], labels[len(real) :])]
        p, q = (torch.from_numpy(count / count.sum()) for count in counts)
        curves.append(torch.stack(prd_of_histograms(p, q, num_angles)))
    precision, recall = torch.stack(curves).mean(0)
    return PRD(precision, recall, _largest_f(precision, recall, 8.0), _largest_f(precision, recall, 1 / 8))


def prd_of_histograms(real: Tensor, generated: Tensor, num_angles: int = 1001) -> tuple[Tensor, Tensor]:
    r"""The exact curve of two discrete laws, precision and recall ``(num_angles,)`` each.

    .. math:: \alpha(\lambda) = \sum_i \min(\lambda p_i, q_i), \qquad \beta(\lambda) = \alpha(\lambda) / \lambda,

    p the real law, q the generated one, and :math:`\lambda = \tan` of angles spread evenly over the quadrant.

    Args:
        real: p, ``(k,)``, sum 1.
        generated: q, ``(k,)``, sum 1.
        num_angles: points of the curve.

    Raises:
        ValueError: if ``num_angles`` is less than 3.

    Source: Sajjadi et al. (2018), theorem 1 and section 3.3.

    Example:
        >>> half, other = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
        >>> precision, recall = prd_of_histograms(half, other)
        >>> round(precision.max().item(), 2), round(recall.max().item(), 2)
        (1.0, 0.5)
    """
    if num_angles < 3:
        raise ValueError(f"`num_angles` must be at least 3, got {num_angles}.")
    angles = torch.linspace(1e-10, np.pi / 2 - 1e-10, num_angles, dtype=torch.float64, device=real.device)
    slopes = angles.tan()[:, None]
    precision = torch.minimum(slopes * real.double(), generated.double()).sum(-1)
    recall = precision / slopes[:, 0]
    return precision.clamp(0, 1), recall.clamp(0, 1)


def _largest_f(precision: Tensor, recall: Tensor, beta: float) -> float:
    score = (1 + beta**2) * precision * recall / (beta**2 * precision + recall).clamp(min=1e-30)
    return float(score.max())
