"""Frechet means, from which the mean squared distance is least, and k-means by these."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_finite, check_point
from pyro_riemann._modes import full_precision
from pyro_riemann._warn import warn
from pyro_riemann.metrics import RiemannianMetric

_STARTS = 16  # points of which the best is where the search begins
_HALVINGS = 12


@full_precision
def frechet_mean(
    metric: RiemannianMetric, points: Tensor, weights: Tensor | None = None, *, max_iterations: int = 50
) -> Tensor:
    r"""The point :math:`\mu` of least :math:`\sum_i w_i\,\ell^2(\mu, x_i)`, batches at once.

    Newton's method on :math:`\sum_i w_i \log_\mu x_i = 0`, from the best of some of the points, with gradient steps
    where that would not lead down. On hyperbolic space, and wherever the points lie within a convex ball, the mean is
    unique; elsewhere (points all over a sphere) the result is a local minimum.

    Differentiable in the points, the weights and the metric's parameters by the implicit function theorem: what is kept
    for the gradient does not grow with the number of iterations.

    Args:
        metric: the metric.
        points: ``(*batch, n, d)``.
        weights: non-negative, ``(*batch, n)``, not all 0; they need not sum to 1. Default: equal.
        max_iterations: of Newton's method; a warning says how many means have not converged by then.

    Returns:
        Means, ``(*batch, d)``.

    Raises:
        TypeError: if ``points`` is not a floating tensor.
        ValueError: for wrong shapes, values that are not finite, weights that are negative or all 0.

    Source: Karcher (1977), *Riemannian center of mass and mollifier smoothing*; Lou et al. (2020), *Differentiating
    through the Frechet mean*.

    Example:
        >>> from pyro_riemann import Hyperbolic
        >>> points = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5]])
        >>> frechet_mean(Hyperbolic(2), points, weights=torch.tensor([1.0, 1.0, 0.0])).abs().max() < 1e-5
        tensor(True)
    """
    points, weights = _checked(metric, points, weights)
    with torch.no_grad():
        fixed, share = points.detach(), weights.detach()
        mean, converged = _search(metric, fixed, share, max_iterations)
    if not bool(converged.all()):
        warn(
            f"frechet_mean: {int((~converged).sum())} of {converged.numel()} means have not converged after "
            f"{max_iterations} iterations: raise `max_iterations`, or check that the points have one mean."
        )
    if not torch.is_grad_enabled():
        return mean
    pull = _pull(metric, mean, points, weights)
    if not pull.requires_grad:
        return mean
    step = _linalg.solve(_slope(metric, mean, fixed, share), pull)
    return mean + step - step.detach()


def _checked(metric: RiemannianMetric, points: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    check_finite("points", check_point("points", points, metric.dim))
    if points.dim() < 2 or points.shape[-2] == 0:
        raise ValueError(
            f"`points` must have shape (*batch, n, {metric.dim}), n at least 1, got {tuple(points.shape)}."
        )
    if weights is None:
        weights = points.new_ones(points.shape[:-1])
    check_finite("weights", weights)
    try:
        batch = torch.broadcast_shapes(points.shape[:-1], weights.shape)
    except RuntimeError as error:
        raise ValueError(
            f"`weights` {tuple(weights.shape)} does not broadcast with `points` {tuple(points.shape)}."
        ) from error
    weights = weights.to(points).expand(batch)
    if bool((weights < 0).any()) or not bool((weights.sum(-1) > 0).all()):
        raise ValueError("`weights` must be non-negative and not all 0.")
    return points.expand(*batch, metric.dim), weights / weights.sum(-1, keepdim=True)


def _pull(metric: RiemannianMetric, mean: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Mean of the logarithms at ``mean (*batch, d)``: minus half the gradient of what is minimised."""
    return (weights.unsqueeze(-1) * metric.logmap(mean.unsqueeze(-2).expand_as(points), points)).sum(-2)


@torch.enable_grad()
def _slope(metric: RiemannianMetric, mean: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Minus the derivative of :func:`_pull` in the mean, ``(*batch, d, d)``."""
    at = mean.detach().requires_grad_()
    pull = _pull(metric, at, points, weights)
    rows = [torch.autograd.grad(pull[..., i].sum(), at, retain_graph=True)[0] for i in range(metric.dim)]
    return -torch.stack(rows, dim=-2).detach()


def _spread(metric: RiemannianMetric, mean: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """What is minimised, ``(*batch)``."""
    return (weights * metric.squared_dist(mean.unsqueeze(-2).expand_as(points), points)).sum(-1)


def _search(metric: RiemannianMetric, points: Tensor, weights: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Means ``(*batch, d)`` and whether they have converged."""
    *batch, count, dim = points.shape
    points, weights = points.reshape(-1, count, dim), weights.reshape(-1, count)
    mean = _start(metric, points, weights)
    value = _spread(metric, mean, points, weights)
    eps = torch.finfo(points.dtype).eps
    level = 50 * eps  # relative: a smaller gain is not seen in the value
    converged, before = torch.zeros_like(value, dtype=torch.bool), torch.full_like(value, torch.inf)
    for _ in range(most):
        row = (~converged).nonzero().squeeze(-1)
        if row.numel() == 0:
            break
        here, some, share = mean[row], points[row], weights[row]
        pull = _pull(metric, here, some, share)
        step = _linalg.solve(_slope(metric, here, some, share), pull)
        uphill = ~(metric.inner(here, step, pull) > 0)  # also for NaN
        step = torch.where(uphill.unsqueeze(-1), pull, step)
        gain = metric.inner(here, step, pull)  # what is left, twice
        unseen = gain <= level * value[row]
        # Newton's method is trusted where the value tells nothing any more, for as long as it gains
        done = (gain <= (50 * eps) ** 2 * value[row]) | (unseen & (gain > 0.25 * before[row])) | (value[row] == 0)
        before[row] = gain
        length, best, least = torch.ones_like(gain), here, value[row]
        searching = ~done
        for _ in range(_HALVINGS):
            if not bool(searching.any()):
                break
            end = metric.expmap(here, length.unsqueeze(-1) * step)
            new = _spread(metric, end, some, share)
            good = searching & ((new < least) | (unseen & (new <= (1 + level) * least)))
            best, least = torch.where(good.unsqueeze(-1), end, best), torch.where(good, new, least)
            searching = searching & ~good
            length = torch.where(searching, length / 2, length)
        mean[row], value[row] = best, least
        stuck = searching & (gain <= level**0.5 * value[row])  # no step leads down by more than distances are exact
        converged[row] = done | stuck
    return mean.reshape(*batch, dim), converged.reshape(batch)


def _start(metric: RiemannianMetric, points: Tensor, weights: Tensor) -> Tensor:
    """The best of some of the points, ``(B, d)``."""
    every = max(1, points.shape[1] // _STARTS)
    some = points[:, ::every][:, :_STARTS]
    spread = _spread(metric, some, points.unsqueeze(1).expand(-1, some.shape[1], -1, -1), weights.unsqueeze(1))
    return some.gather(1, spread.argmin(1).reshape(-1, 1, 1).expand(-1, 1, points.shape[-1])).squeeze(1).clone()


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
