"""Kernels on every point: times in common and times of each point's own, weighed on held-out folds."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import mixtures as formulas
from pyro_riemann.numpyro._checks import check_finite, check_key, check_point, check_positive, is_traced
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.mixtures._mixture import HeatKernelMixture

_PAIRS = 1 << 20  # at a time


def fit_kernels(
    points: Array,
    metric: RiemannianMetric,
    times: Array,
    key: Array,
    *,
    multiples: Array | None = None,
    background: float | None = None,
    num_groups: int = 4,
    num_neighbours: int = 4,
    num_folds: int = 10,
) -> HeatKernelMixture:
    r"""Density estimate that puts exact heat kernels of several times on every point; it runs on the host.

    The points are cut into groups of equal size by the distance to a near neighbour, from the crowded to the lonely.
    All points of a group share their weights :math:`\pi_{gk}` of the times, and

    .. math:: p(z) = \pi_0\, p_{t_0}(x_1, z) + \sum_{g, k} \pi_{gk}\, \frac1{n_g} \sum_{i \in g} p_{t_{ik}}(x_i, z) .

    The weights maximise the likelihood of held-out folds, given the kernels on all other folds: a concave problem that
    expectation maximisation solves. Times that do not predict die out, so that the grid of times may be wide.
    Where points coincide, held-out likelihood grows without limit as the smallest time falls: that time is then an
    assumption about the data (how finely they were recorded), not an estimate.

    Args:
        points: points of the chart, ``(n, d)``; at least two in every group of every fold.
        metric: a metric that knows its exact heat kernel, see :class:`HeatKernelMixture`.
        times: times that all points share, the variance of small steps, ``(K,)``.
        key: one key of ``jax.random``, of the folds.
        multiples: further times of each point's own, as multiples of the squared distance to its neighbour, ``(M,)``;
            no less than the smallest of ``times``.
        background: time of one more kernel, at the first point; on a compact manifold a long one is the uniform law.
        num_groups: number of groups.
        num_neighbours: which neighbour's distance tells the groups and the times of a point's own.
        num_folds: folds that are held out in turn.

    Returns:
        The mixture, with kernels on all points.

    Raises:
        TypeError, ValueError: naming the argument at fault; TypeError also under a transformation of JAX.

    Source: Smyth & Wolpert (1999), *Linearly combining density estimators via stacking*; Abramson (1982), *On bandwidth
    variation in kernel estimates*.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> points, times = 0.1 * jax.random.normal(jax.random.key(0), (100, 2)), jnp.array([0.001, 0.01, 0.1])
        >>> fit_kernels(points, Sphere(2), times, jax.random.key(1), background=20.0).log_prob(points).shape
        (100,)
    """
    if is_traced(metric, points, times, key):
        raise TypeError("`fit_kernels` cannot run under a transformation of JAX: the number of its steps is not known.")
    points = check_finite("points", check_point("points", points, metric.dim, metric))
    check_positive("times", times)
    multiples = times[:0] if multiples is None else check_positive("multiples", multiples)
    formulas.check_settings(num_groups, num_neighbours, num_folds)
    formulas.check_points(points.shape, metric.dim, num_groups, num_neighbours, num_folds)

    def mixture(rows: Array, log_weights: Array | None) -> tuple[HeatKernelMixture, Array]:
        """With these weights of the columns, or 1 for each; and the column of each kernel, ``(n, K)``."""
        squared = _to_neighbour(metric, rows, num_neighbours)
        time, column, share = formulas.kernels(jnp, squared, times, multiples, background, num_groups)
        logits = share if log_weights is None else share + log_weights[column]
        return HeatKernelMixture(rows, time, logits, metric), column

    fold = np.asarray(jax.random.permutation(check_key(key), len(points))) % num_folds
    # a row is a point, a column a group and a time: its mean kernel, without the points of the row's fold
    parts = []
    for index in range(num_folds):
        law, column = mixture(points[fold != index], None)
        parts.append(_means(law, column, points[fold == index], num_columns=int(column.max()) + 1))
    weights = formulas.concave_maximum(np, np.asarray(jnp.concatenate(parts)))
    with np.errstate(divide="ignore"):  # what has died out
        return mixture(points, jnp.asarray(np.log(weights)))[0]


@partial(jax.jit, static_argnames="num_neighbours")
def _to_neighbour(metric: RiemannianMetric, points: Array, num_neighbours: int) -> Array:
    """Squared distance of each point ``(n, d)`` to a near one, ``(n,)``; a point is its own zeroth neighbour."""

    def of_one(z: Array) -> Array:
        return jnp.sort(metric.squared_dist(jnp.broadcast_to(z, points.shape), points))[num_neighbours]

    return jax.lax.map(of_one, points, batch_size=max(1, _PAIRS // len(points)))


@partial(jax.jit, static_argnames="num_columns")
def _means(law: HeatKernelMixture, column: Array, points: Array, num_columns: int) -> Array:
    """Mean kernel of every column at the points ``(m, d)``, with respect to dM, ``(m, num_columns)``."""

    def of_one(z: Array) -> Array:
        kernels = jnp.exp(law.logits + law.log_kernels(z))
        return jax.ops.segment_sum(kernels.ravel(), column.ravel(), num_columns)

    return jax.lax.map(of_one, points, batch_size=max(1, _PAIRS // column.size))
