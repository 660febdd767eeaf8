"""Joint-distribution tests of the samplers of the uniform law: a point of one of two metrics, and which of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from pyro_riemann import KernelMetric
from pyro_riemann.sampling import sample_uniform
from tests.geweke.test_samplers import LEAST, smallest

F64 = torch.float64
CHAINS, TURNS = 1500, 3
LOW, HIGH = -2.0, 2.0
Draws = Callable[[int, int, int], Tensor]  # of one of the metrics: its number, how many draws, a seed


@lru_cache
def metrics() -> tuple[KernelMetric, KernelMetric]:
    """Of volumes in two places, which overlap."""
    first = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.5, 0.8]], dtype=F64)
    precisions = torch.tensor([[6.0, 3.0], [2.0, 8.0], [5.0, 5.0]], dtype=F64)
    return KernelMetric(first, precisions, 1.2, 0.3), KernelMetric(0.5 - first, 0.7 * precisions, 0.9, 0.5)


def log_joint(z: Tensor) -> Tensor:
    """Log density of a point with each of the metrics, not normalised, ``(n, 2)``."""
    with torch.no_grad():
        return torch.stack([0.5 * metric.logdet(z) for metric in metrics()], -1)


def reference(count: int) -> Tensor:
    """Exact draws ``(count, 3)`` but for the width of the cells of a grid, the metric's number last."""
    size = 400
    axis = LOW + (HIGH - LOW) * (torch.arange(size, dtype=F64) + 0.5) / size
    points = torch.cartesian_prod(axis, axis)
    cell = torch.multinomial(log_joint(points).exp().flatten(), count, replacement=True)
    z = points[cell // 2] + (HIGH - LOW) / size * (torch.rand(count, 2, dtype=F64) - 0.5)
    return torch.cat([z, (cell % 2)[:, None].double()], -1)


def by_torch(method: str) -> Draws:
    return lambda k, count, seed: sample_uniform(metrics()[k], count, LOW, HIGH, method=method, seed=seed).draws


def alternated(sampler: Draws, damage: float = 0.0) -> float:
    """Points by the sampler, numbers by Bayes' rule, in turn."""
    torch.manual_seed(0)
    number = reference(CHAINS)[:, 2].long()
    for turn in range(TURNS):
        z = torch.empty(CHAINS, 2, dtype=F64)
        for k in range(2):
            chosen = (number == k).nonzero().squeeze(-1)
            # a part of many, since some samplers give a draw twice
            draws = sampler(k, 4 * len(chosen), 10 * turn + k)
            z[chosen] = draws[torch.randperm(len(draws))[: len(chosen)]]
        odds = log_joint(z)
        odds[:, 1] += damage
        number = torch.multinomial(odds.softmax(-1), 1).squeeze(-1)
    return smallest(torch.cat([z, number[:, None].double()], -1), reference(6000))


@pytest.mark.parametrize("method", ["table", "importance", "tempered", "metropolis"])
def test_the_samplers_of_the_uniform_law_keep_the_joint_law(method: str) -> None:
    assert alternated(by_torch(method)) > LEAST


def test_a_wrong_volume_is_found_out() -> None:
    assert alternated(by_torch("table"), damage=0.3) < LEAST
