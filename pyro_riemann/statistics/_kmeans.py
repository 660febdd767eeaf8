"""k-means with geodesic distances and Frechet means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_point
from pyro_riemann._modes import full_precision
from pyro_riemann._warn import warn
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.statistics._frechet import frechet_mean


@dataclass(frozen=True, eq=False)
class Clusters:
    """What :func:`kmeans` finds.

    Attributes:
        centers: Frechet means of the clusters, ``(k, d)``.
        labels: the nearest centre of each point, ``(n,)``.
        inertia: mean squared distance of the points to their centres, a scalar.
        converged: whether no point changes its cluster any more.

    Example:
        >>> from pyro_riemann import EuclideanMetric
        >>> kmeans(EuclideanMetric(1), torch.tensor([[0.0], [0.2], [5.0]]), 2, seed=0).centers.sort(0).values
        tensor([[0.1000],
                [5.0000]])
    """

    centers: Tensor
    labels: Tensor
    inertia: Tensor
    converged: bool


@full_precision
@torch.no_grad()
def kmeans(
    metric: RiemannianMetric,
    points: Tensor,
    num_clusters: int,
    *,
    num_starts: int = 4,
    max_iterations: int = 100,
    seed: int | None = None,
) -> Clusters:
    """Lloyd's iteration with geodesic distances, the best of several starts by k-means++.

    Args:
        metric: the metric.
        points: ``(n, d)``.
        num_clusters: number k of clusters.
        num_starts: runs, of which the one of least inertia is kept.
        max_iterations: in each run; a warning says if the best one was still moving.
        seed: of the starts; by default drawn from the global generator.

    Raises:
        TypeError: if ``points`` is not a floating tensor.
        ValueError: for wrong shapes, values that are not finite, or a ``num_clusters`` not between 1 and n.

    Source: Arthur & Vassilvitskii (2007), *k-means++: the advantages of careful seeding*; with Frechet means for means.

    Example:
        >>> from pyro_riemann import Sphere
        >>> points = torch.cat([0.1 * torch.randn(20, 2), 3 + 0.1 * torch.randn(20, 2)])
        >>> kmeans(Sphere(2), points, 2, seed=0).labels.bincount().tolist()
        [20, 20]
    """
    check_finite("points", check_point("points", points, metric.dim))
    if points.dim() != 2 or not 1 <= num_clusters <= len(points):
        raise ValueError(
            f"`points` must have shape (n, {metric.dim}) and `num_clusters` lie between 1 and n, got "
            f"{tuple(points.shape)} and {num_clusters}."
        )
    if num_starts < 1 or max_iterations < 1:
        raise ValueError(f"`num_starts` and `max_iterations` must be positive, got {num_starts} and {max_iterations}.")
    generator = torch.Generator(points.device)
    generator.manual_seed(int(torch.randint(2**62, (), device="cpu")) if seed is None else seed)
    runs = [_run(metric, points, num_clusters, max_iterations, generator) for _ in range(num_starts)]
    best = min(runs, key=lambda run: float(run.inertia))
    if not best.converged:
        warn(f"kmeans: points still change their clusters after {max_iterations} iterations: raise `max_iterations`.")
    return best


def _run(metric: RiemannianMetric, points: Tensor, k: int, most: int, generator: torch.Generator) -> Clusters:
    centers = _spread_out(metric, points, k, generator)
    labels, squared = _nearest(metric, points, centers)
    for _ in range(most):
        weights = (labels == torch.arange(k, device=points.device).unsqueeze(-1)).to(points)
        empty = weights.sum(1) == 0  # takes the point that is farthest from its centre
        weights[empty] = (torch.arange(len(points), device=points.device) == squared.argmax()).to(points)
        centers = _means(metric, points, weights)
        before = labels
        labels, squared = _nearest(metric, points, centers)
        if torch.equal(labels, before):
            return Clusters(centers, labels, squared.mean(), True)
    return Clusters(centers, labels, squared.mean(), False)


def _means(metric: RiemannianMetric, points: Tensor, weights: Tensor) -> Tensor:
    """Means of the points that have a weight, cluster by cluster: the others need no distances."""
    return torch.stack([frechet_mean(metric, points[row > 0], row[row > 0]) for row in weights])


def _nearest(metric: RiemannianMetric, points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    squared = torch.stack([metric.squared_dist(center.expand_as(points), points) for center in centers])
    least, labels = squared.min(0)
    return labels, least


def _spread_out(metric: RiemannianMetric, points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Centres by k-means++: each new one with a probability that is proportional to the squared distance."""
    chosen = [int(torch.randint(len(points), (), generator=generator, device=points.device))]
    squared = metric.squared_dist(points[chosen[0]].expand_as(points), points)
    while len(chosen) < k:
        weights = squared if bool(squared.sum() > 0) else torch.ones_like(squared)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        squared = torch.minimum(squared, metric.squared_dist(points[chosen[-1]].expand_as(points), points))
    return points[chosen]
