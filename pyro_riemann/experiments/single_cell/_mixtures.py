"""The test of a geometry: do its curves between pure lines pass the mixtures in the order of their proportions?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from pyro_riemann.experiments.single_cell._solved import CURVES
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import EnsembleMetric, GridMetric, RiemannianMetric
from pyro_riemann.vae import Decoder

PAIRS = tuple(combinations(range(3), 2))
WINDOW = 3


def between(proportions: Tensor, first: int, second: int) -> tuple[Tensor, Tensor]:
    """Mixtures that lie between two lines, and the share of the second in what they have of both.

    Mixtures with more of the third line than of either are left out, and so are the pure cells.

    Args:
        proportions: ``(n, 3)``.
        first: number of a line.
        second: number of another.

    Returns:
        Indices ``(k,)`` and shares ``(k,)``.
    """
    third = 3 - first - second
    both = proportions[:, [first, second]]
    wanted = (both > 0).all(1) & (proportions[:, third] <= both.amax(1))
    index = wanted.nonzero().flatten()
    return index, both[index, 1] / both[index].sum(1)


def nearest_times(metric: RiemannianMetric | None, curve: Tensor, points: Tensor) -> Tensor:
    """Where on a curve the nearest point is, as a share of its length in [0, 1], ``(n,)``.

    Distances to equally spaced points of the curve, with a parabola through the three smallest. Of a metric without a
    table only the :data:`WINDOW` points about the nearest one by the chord of the immersion are tried.

    Args:
        metric: None for the flat metric of the chart.
        curve: points at equal distances on it, ``(k, d)``.
        points: ``(n, d)``.
    """
    surface = None if metric is None else metric.immersed()
    if metric is None:
        squared = (points - curve[:, None]).square().sum(-1)
    elif isinstance(metric, GridMetric) or surface is None:
        squared = metric.squared_dist(points, curve[:, None])
    else:
        chord = torch.cdist(surface.embed(curve), surface.embed(points))
        first = (chord.argmin(0) - WINDOW // 2).clamp(0, max(0, len(curve) - WINDOW))
        tried = first + torch.arange(min(WINDOW, len(curve)))[:, None]
        squared = torch.full_like(chord, torch.inf).scatter(0, tried, metric.squared_dist(points, curve[tried]))
    best = squared.argmin(0)
    inner = best.clamp(1, len(curve) - 2)
    before, at, after = (squared.gather(0, (inner + step)[None])[0] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp(min=1e-12)
    shift = torch.where(bend < torch.inf, 0.5 * (before - after) / bend, best - inner).clamp(-1, 1)
    return ((inner + shift) / (len(curve) - 1)).clamp(0, 1)


def decoded_shares(decoder: Decoder, curve: Tensor, times: Tensor) -> Tensor:
    """Proportion of the second end in the mean counts that are decoded at these times of a curve, ``(n,)``.

    Expression of a mixture of RNA is the mixture of the expressions: the decoded mean is projected on the chord
    between those of the ends.

    Args:
        decoder: gives mean counts.
        curve: points ``(k, d)`` at equally spaced times.
        times: in [0, 1], ``(n,)``.
    """
    place = times * (len(curve) - 1)
    left = place.floor().clamp(max=len(curve) - 2).long()
    weight = (place - left).unsqueeze(-1)
    start, end, mean = (
        decoder.mean(z) for z in (curve[:1], curve[-1:], torch.lerp(curve[left], curve[left + 1], weight))
    )
    return ((mean - start) @ (end - start)[0] / (end - start).square().sum()).clamp(0, 1)


def scores(read: Tensor, known: Tensor) -> tuple[float, float]:
    """Spearman's rank correlation of two sets of proportions, and their mean absolute difference."""
    return float(stats.spearmanr(read.numpy(), known.numpy()).statistic), float((read - known).abs().mean())


def best_correlation(known: Tensor) -> float:
    """Spearman's rank correlation of a perfect order, below 1 as many cells have one proportion."""
    noise = torch.linspace(0, 1e-6, len(known), dtype=torch.float64)
    return scores(known.double() + noise, known.double())[0]


@torch.no_grad()
def mixture_test(
    codes: Tensor,
    proportions: Tensor,
    metrics: Mapping[str, RiemannianMetric],
    decoder: Decoder,
    *,
    nodes: int,
) -> dict[str, Any]:
    """Scores of each geometry for each pair of lines, JSON-able.

    Args:
        codes: of all cells, ``(n, d)``.
        proportions: ``(n, 3)``.
        metrics: by name; straight lines are added. Curves are those of the default solver.
        decoder: of the codes.
        nodes: points on a curve.

    Returns:
        By geometry, lists over the pairs: ``rank``, ``error`` of the share of length at the nearest point of the curve,
        ``decoded_error`` of the proportion in the counts decoded there, ``length``, ``converged``; and ``best_rank``.
    """
    ends = torch.stack([codes[proportions[:, line] == 1].mean(0) for line in range(3)])
    result: dict[str, Any] = {"best_rank": [best_correlation(between(proportions, *pair)[1]) for pair in PAIRS]}
    for name, metric in [("straight", None), *metrics.items()]:
        rows: dict[str, list[Any]] = {key: [] for key in ("rank", "error", "decoded_error", "length", "converged")}
        for first, second in PAIRS:
            start, end = ends[first], ends[second]
            if metric is None:
                curve = torch.lerp(start, end, torch.linspace(0, 1, nodes)[:, None])
                length, converged = float((end - start).norm()), True
            else:
                found = _curve(metric, start, end)
                curve = found(torch.linspace(0, 1, nodes))
                length, converged = float(found.length), bool(found.converged)
            index, known = between(proportions, first, second)
            times = nearest_times(metric, curve, codes[index])
            rank, error = scores(times, known)
            _, decoded = scores(decoded_shares(decoder, curve, times), known)
            values = {"rank": rank, "error": error, "decoded_error": decoded, "length": length, "converged": converged}
            for key, value in values.items():
                rows[key].append(value)
        result[name] = rows
    return result


def _curve(metric: RiemannianMetric, start: Tensor, end: Tensor) -> Geodesic:
    if isinstance(metric, GridMetric):
        return metric.geodesic(start, end, init="graph")
    rough, metric.solver = metric.solver, CURVES
    try:
        return metric.geodesic(start, end)
    finally:
        metric.solver = rough


def profile_test(counts: Tensor, proportions: Tensor) -> dict[str, list[float]]:
    """The same without a model: shares of each gene, projected on the chord between the mean shares of two pure lines.

    Args:
        counts: ``(n, genes)``.
        proportions: ``(n, 3)``.
    """
    shares = (counts / counts.sum(1, keepdim=True)).double()
    ends = torch.stack([shares[proportions[:, line] == 1].mean(0) for line in range(3)])
    found = []
    for first, second in PAIRS:
        index, known = between(proportions, first, second)
        chord = ends[second] - ends[first]
        read = ((shares[index] - ends[first]) @ chord / chord.square().sum()).clamp(0, 1)
        found.append(scores(read, known.double()))
    return {"rank": [rank for rank, _ in found], "error": [error for _, error in found]}


@torch.no_grad()
def disagreement(ensemble: EnsembleMetric, codes: Tensor, proportions: Tensor) -> list[float]:
    """Coefficient of variation over the members of an ensemble of the distance between two lines, for each pair.

    Args:
        ensemble: the members.
        codes: ``(n, d)``.
        proportions: ``(n, 3)``.
    """
    ends = torch.stack([codes[proportions[:, line] == 1].mean(0) for line in range(3)])
    pairs = torch.tensor(PAIRS)
    distances = ensemble.dist_samples(ends[pairs[:, 0]], ends[pairs[:, 1]])
    return [float(value) for value in distances.std(0) / distances.mean(0)]
