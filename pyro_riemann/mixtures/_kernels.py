"""Kernels on every point: times in common and times of each point's own, weighed on held-out folds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_point, check_positive
from pyro_riemann._formulas import mixtures as formulas
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.mixtures._mixture import ROWS, HeatKernelMixture, nearest


@full_precision
def fit_kernels(
    points: Tensor,
    metric: RiemannianMetric,
    times: Tensor,
    *,
    multiples: Tensor | None = None,
    background: float | None = None,
    num_groups: int = 4,
    num_neighbours: int = 4,
    num_folds: int = 10,
    seed: int = 0,
) -> HeatKernelMixture:
    r"""Density estimate that puts exact heat kernels of several times on every point.

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
        multiples: further times of each point's own, as multiples of the squared distance to its neighbour, ``(M,)``;
            no less than the smallest of ``times``.
        background: time of one more kernel, at the first point; on a compact manifold a long one is the uniform law.
        num_groups: number of groups.
        num_neighbours: which neighbour's distance tells the groups and the times of a point's own.
        num_folds: folds that are held out in turn.
        seed: of the folds; the global generator is left alone.

    Returns:
        The mixture, with kernels on all points.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Smyth & Wolpert (1999), *Linearly combining density estimators via stacking*; Abramson (1982), *On bandwidth
    variation in kernel estimates*.

    Example:
        >>> from pyro_riemann import Sphere
        >>> points = 0.1 * torch.randn(100, 2)
        >>> law = fit_kernels(points, Sphere(2), torch.tensor([0.001, 0.01, 0.1]), background=20.0)
        >>> law.log_prob(points).shape
        torch.Size([100])
    """
    check_finite("points", check_point("points", points, metric.dim))
    check_positive("times", times)
    multiples = times.new_zeros(0) if multiples is None else check_positive("multiples", multiples)
    formulas.check_settings(num_groups, num_neighbours, num_folds)
    formulas.check_points(tuple(points.shape), metric.dim, num_groups, num_neighbours, num_folds)
    settings = _Settings(metric, times, multiples, background, num_groups, num_neighbours)
    generator = torch.Generator("cpu").manual_seed(seed)
    fold = torch.randperm(len(points), generator=generator, device="cpu").to(points.device) % num_folds
    with torch.no_grad():
        # a row is a point, a column a group and a time: its mean kernel, without the points of the row's fold
        parts = [_columns(points[fold == f], points[fold != f], settings) for f in range(num_folds)]
        table = torch.cat(parts)
        weights = formulas.concave_maximum(torch, table)
        return _mixture(points, settings, weights.log())[0]


class _Settings(NamedTuple):
    metric: RiemannianMetric
    times: Tensor
    multiples: Tensor
    background: float | None
    num_groups: int
    num_neighbours: int


def _mixture(points: Tensor, settings: _Settings, log_weights: Tensor | None) -> tuple[HeatKernelMixture, Tensor]:
    """The mixture with these weights of the columns, or 1 for each; and the column of each kernel, ``(n, K)``."""
    metric = settings.metric
    neighbour = nearest(points, points, metric, settings.num_neighbours + 1)
    squared = metric.squared_dist(points, points[neighbour])
    time, column, share = formulas.kernels(
        torch, squared, settings.times, settings.multiples, settings.background, settings.num_groups
    )
    logits = share if log_weights is None else share + log_weights[column]
    return HeatKernelMixture(points, time, logits, metric), column


def _columns(held_out: Tensor, points: Tensor, settings: _Settings) -> Tensor:
    """Mean kernel of every column at the held-out points, ``(m, columns)``, with respect to dM."""
    law, column = _mixture(points, settings, None)
    count = int(column.max()) + 1
    rows = []
    for part in held_out.split(ROWS):
        row = part.new_zeros(len(part) * count)
        for k, q, i, term in law.terms(part):
            row.index_add_(0, q * count + column[i, k], (term + law.logits[i, k]).exp())
        rows.append(row.view(len(part), count))
    return torch.cat(rows)
