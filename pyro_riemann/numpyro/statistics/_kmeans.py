"""k-means with geodesic distances and Frechet means."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import check_finite, check_point, is_traced
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.statistics._frechet import frechet_mean


class Clusters(NamedTuple):
    """What :func:`kmeans` finds.

    Attributes:
        centers: Frechet means of the clusters, ``(k, d)``.
        labels: the nearest centre of each point, ``(n,)``.
        inertia: mean squared distance of the points to their centres, a scalar.
        converged: whether no point changes its cluster any more.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric
        >>> points = jnp.array([[0.0], [0.2], [5.0]])
        >>> sorted(kmeans(EuclideanMetric(1), points, 2, jax.random.key(0)).centers.round(1).ravel().tolist())
        [0.10000000149011612, 5.0]
    """

    centers: Array
    labels: Array
    inertia: Array
    converged: bool


def kmeans(
    metric: RiemannianMetric,
    points: Array,
    num_clusters: int,
    key: Array,
    *,
    num_starts: int = 4,
    max_iterations: int = 100,
) -> Clusters:
    """Lloyd's iteration with geodesic distances, the best of several starts by k-means++; it runs on the host.

    Args:
        metric: the metric.
        points: ``(n, d)``.
        num_clusters: number k of clusters.
        key: of the starts, a key of ``jax.random``.
        num_starts: runs, of which the one of least inertia is kept.
        max_iterations: in each run; a warning says if the best one was still moving.

    Raises:
        TypeError: if ``points`` is not a floating array, or under a transformation of JAX.
        ValueError: for wrong shapes, values that are not finite, or a ``num_clusters`` not between 1 and n.

    Source: Arthur & Vassilvitskii (2007), *k-means++: the advantages of careful seeding*; with Frechet means for means.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> noise = 0.1 * jax.random.normal(jax.random.key(1), (2, 20, 2))
        >>> points = jnp.concatenate([noise[0], 3 + noise[1]])
        >>> jnp.bincount(kmeans(Sphere(2), points, 2, jax.random.key(0)).labels).tolist()
        [20, 20]
    """
    if is_traced(metric, points, key):
        raise TypeError("`kmeans` cannot run under a transformation of JAX: the number of its iterations is not known.")
    points = check_finite("points", check_point("points", points, metric.dim))
    if points.ndim != 2 or not 1 <= num_clusters <= len(points):
        raise ValueError(
            f"`points` must have shape (n, {metric.dim}) and `num_clusters` lie between 1 and n, got "
            f"{points.shape} and {num_clusters}."
        )
    if num_starts < 1 or max_iterations < 1:
        raise ValueError(f"`num_starts` and `max_iterations` must be positive, got {num_starts} and {max_iterations}.")
    runs = [_run(metric, points, num_clusters, max_iterations, one) for one in jax.random.split(key, num_starts)]
    best = min(runs, key=lambda run: float(run.inertia))
    if not best.converged:
        warn(f"kmeans: points still change their clusters after {max_iterations} iterations: raise `max_iterations`.")
    return best


def _run(metric: RiemannianMetric, points: Array, k: int, most: int, key: Array) -> Clusters:
    centers = _spread_out(metric, points, k, key)
    labels, squared = _nearest(metric, points, centers)
    for _ in range(most):
        weights = jax.nn.one_hot(labels, k, dtype=points.dtype).T
        # an empty cluster takes the point that is farthest from its centre
        farthest = jax.nn.one_hot(squared.argmax(), len(points), dtype=points.dtype)
        weights = jnp.where(weights.sum(1, keepdims=True) == 0, farthest, weights)
        centers = frechet_mean(metric, points, weights)
        before = labels
        labels, squared = _nearest(metric, points, centers)
        if bool((labels == before).all()):
            return Clusters(centers, labels, squared.mean(), True)
    return Clusters(centers, labels, squared.mean(), False)


@jax.jit
def _nearest(metric: RiemannianMetric, points: Array, centers: Array) -> tuple[Array, Array]:
    squared = metric.squared_dist(*jnp.broadcast_arrays(centers[:, None], points))
    return squared.argmin(0), squared.min(0)


def _spread_out(metric: RiemannianMetric, points: Array, k: int, key: Array) -> Array:
    """Centres by k-means++: each new one with a probability that is proportional to the squared distance."""
    first, *keys = jax.random.split(key, k)
    chosen = [int(jax.random.randint(first, (), 0, len(points)))]
    squared = _nearest(metric, points, points[chosen[-1]][None])[1]
    for one in keys:
        weights = squared if bool(squared.sum() > 0) else jnp.ones_like(squared)
        chosen.append(int(jax.random.choice(one, len(points), p=weights / weights.sum())))
        squared = jnp.minimum(squared, _nearest(metric, points, points[chosen[-1]][None])[1])
    return points[jnp.array(chosen)]
