"""Frechet means, from which the mean squared distance is least, and k-means by these."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point, holds, is_traced
from pyro_riemann.numpyro.metrics import RiemannianMetric

_STARTS = 16  # points of which the best is where the search begins
_HALVINGS = 12


def frechet_mean(
    metric: RiemannianMetric, points: Array, weights: Array | None = None, *, max_iterations: int = 50
) -> Array:
    r"""The point :math:`\mu` of least :math:`\sum_i w_i\,\ell^2(\mu, x_i)`, batches at once.

    Newton's method on :math:`\sum_i w_i \log_\mu x_i = 0`, from the best of some of the points, with gradient steps
    where that would not lead down. On hyperbolic space, and wherever the points lie within a convex ball, the mean is
    unique; elsewhere (points all over a sphere) the result is a local minimum.

    Differentiable in the points, the weights and the metric's arrays by the implicit function theorem, forwards and
    backwards; compiled as it is, and under ``jit`` and ``vmap``.

    Args:
        metric: the metric.
        points: ``(*batch, n, d)``.
        weights: non-negative, ``(*batch, n)``, not all 0; they need not sum to 1. Default: equal.
        max_iterations: of Newton's method; a warning says how many means have not converged by then, where they are
            known.

    Returns:
        Means, ``(*batch, d)``.

    Raises:
        TypeError: if ``points`` is not a floating array.
        ValueError: for wrong shapes, values that are not finite, weights that are negative or all 0.

    Source: Karcher (1977), *Riemannian center of mass and mollifier smoothing*; Lou et al. (2020), *Differentiating
    through the Frechet mean*.

    Example:
        >>> from pyro_riemann.numpyro import Hyperbolic
        >>> points = jnp.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5]])
        >>> bool(jnp.abs(frechet_mean(Hyperbolic(2), points, weights=jnp.array([1.0, 1.0, 0.0]))).max() < 1e-5)
        True
    """
    points, weights = _checked(metric, points, weights)
    mean, converged = _found(metric, points, weights, max_iterations)
    if not holds(converged):
        warn(
            f"frechet_mean: {int((~converged).sum())} of {converged.size} means have not converged after "
            f"{max_iterations} iterations: raise `max_iterations`, or check that the points have one mean."
        )
    return mean


def _checked(metric: RiemannianMetric, points: Array, weights: Array | None) -> tuple[Array, Array]:
    points = check_finite("points", check_point("points", points, metric.dim))
    if points.ndim < 2 or points.shape[-2] == 0:
        raise ValueError(f"`points` must have shape (*batch, n, {metric.dim}), n at least 1, got {points.shape}.")
    given = jnp.ones(points.shape[:-1], points.dtype) if weights is None else check_array("weights", weights)
    check_finite("weights", given)
    try:
        batch = jnp.broadcast_shapes(points.shape[:-1], given.shape)
    except ValueError as error:
        raise ValueError(f"`weights` {given.shape} does not broadcast with `points` {points.shape}.") from error
    given = jnp.broadcast_to(given.astype(points.dtype), batch)
    if not holds(given >= 0) or not holds(given.sum(-1) > 0):
        raise ValueError("`weights` must be non-negative and not all 0.")
    return jnp.broadcast_to(points, (*batch, metric.dim)), given / given.sum(-1, keepdims=True)


@partial(jax.jit, static_argnames="most")
def _found(metric: RiemannianMetric, points: Array, weights: Array, most: int) -> tuple[Array, Array]:
    """Means ``(*batch, d)``, with the derivative of the implicit function, and whether they have converged."""
    fixed, some, share = jax.lax.stop_gradient((metric, points, weights))
    mean, converged = _search(fixed, some, share, most)
    # one more step of Newton's method, of which the derivatives alone are kept
    step = jnp.linalg.solve(_slope(fixed, mean, some, share), _pull(metric, mean, points, weights)[..., None])[..., 0]
    return mean + step - jax.lax.stop_gradient(step), converged


def _pull(metric: RiemannianMetric, mean: Array, points: Array, weights: Array) -> Array:
    """Mean of the logarithms at ``mean (*batch, d)``: minus half the gradient of what is minimised."""
    return (weights[..., None] * metric.logmap(jnp.broadcast_to(mean[..., None, :], points.shape), points)).sum(-2)


def _slope(metric: RiemannianMetric, mean: Array, points: Array, weights: Array) -> Array:
    """Minus the derivative of :func:`_pull` in the mean, ``(*batch, d, d)``."""
    _, back = jax.vjp(lambda at: _pull(metric, at, points, weights), mean)
    axes = jnp.broadcast_to(
        jnp.eye(metric.dim, dtype=mean.dtype)[:, None], (metric.dim, mean.size // metric.dim, metric.dim)
    )
    rows = jax.vmap(lambda axis: back(axis)[0])(axes.reshape(metric.dim, *mean.shape))
    return jax.lax.stop_gradient(-jnp.moveaxis(rows, 0, -2))


def _spread(metric: RiemannianMetric, mean: Array, points: Array, weights: Array) -> Array:
    """What is minimised, ``(*batch)``."""
    return (weights * metric.squared_dist(jnp.broadcast_to(mean[..., None, :], points.shape), points)).sum(-1)


class _State(NamedTuple):
    """Of every mean; ``gain`` is that of the step before."""

    iteration: Array
    mean: Array
    value: Array
    gain: Array
    converged: Array


def _search(metric: RiemannianMetric, points: Array, weights: Array, most: int) -> tuple[Array, Array]:
    """Means ``(*batch, d)`` and whether they have converged."""
    *batch, count, dim = points.shape
    points, weights = points.reshape(-1, count, dim), weights.reshape(-1, count)
    start = _start(metric, points, weights)
    eps = jnp.finfo(points.dtype).eps
    level = 50 * eps  # relative: a smaller gain is not seen in the value

    def improve(state: _State) -> _State:
        mean, value = state.mean, state.value
        pull = _pull(metric, mean, points, weights)
        step = jnp.linalg.solve(_slope(metric, mean, points, weights), pull[..., None])[..., 0]
        uphill = ~(metric.inner(mean, step, pull) > 0)  # also for NaN
        step = jnp.where(uphill[..., None], pull, step)
        gain = metric.inner(mean, step, pull)  # what is left, twice
        unseen = gain <= level * value
        # Newton's method is trusted where the value tells nothing any more, for as long as it gains
        done = (gain <= (50 * eps) ** 2 * value) | (unseen & (gain > 0.25 * state.gain)) | (value == 0)

        def shorten(at: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
            index, length, best, least, searching = at
            end = metric.expmap(mean, length[..., None] * step)
            new = _spread(metric, end, points, weights)
            good = searching & ((new < least) | (unseen & (new <= (1 + level) * least)))
            best, least = jnp.where(good[..., None], end, best), jnp.where(good, new, least)
            searching = searching & ~good
            return index + 1, jnp.where(searching, length / 2, length), best, least, searching

        _, _, best, least, searching = jax.lax.while_loop(
            lambda at: (at[0] < _HALVINGS) & at[4].any(),
            shorten,
            (jnp.array(0), jnp.ones_like(gain), mean, value, ~(done | state.converged)),
        )
        stuck = searching & (gain <= level**0.5 * least)  # no step leads down by more than distances are exact
        return _State(state.iteration + 1, best, least, gain, state.converged | done | stuck)

    value = _spread(metric, start, points, weights)
    state = _State(jnp.array(0), start, value, jnp.full_like(value, jnp.inf), jnp.zeros(value.shape, bool))
    state = jax.lax.while_loop(lambda state: (state.iteration < most) & ~state.converged.all(), improve, state)
    return state.mean.reshape(*batch, dim), state.converged.reshape(batch)


def _start(metric: RiemannianMetric, points: Array, weights: Array) -> Array:
    """The best of some of the points, ``(B, d)``."""
    every = max(1, points.shape[1] // _STARTS)
    some = points[:, ::every][:, :_STARTS]
    around = jnp.broadcast_to(points[:, None], (*some.shape[:2], *points.shape[1:]))
    spread = _spread(metric, some, around, weights[:, None])
    return jnp.take_along_axis(some, spread.argmin(1)[:, None, None], 1, mode="clip")[:, 0]


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
