"""Improved precision and recall: membership in unions of balls (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from typing import NamedTuple

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
