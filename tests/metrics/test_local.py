"""The inverse local covariance: its formula written out, its derivatives and its curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann.metrics import LocalMetric
from tests.charts import OnlyMetric

F64 = torch.float64


def ring(count: int = 80) -> Tensor:
    angle = torch.linspace(0, 3.0, count, dtype=F64)
    noise = 0.05 * torch.randn(count, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    return torch.stack([angle.cos(), angle.sin()], -1) + noise


def test_metric_is_the_inverse_of_the_local_covariance() -> None:
    data, z = ring(), torch.tensor([[0.3, 0.9], [3.0, -2.0]], dtype=F64)
    metric = LocalMetric(data, 0.4, 0.02)
    for point in range(2):
        expected = np.full(2, 0.02)
        for x in data.numpy():
            gap = x - z[point].numpy()
            expected += np.exp(-(gap @ gap) / (2 * 0.4**2)) * gap**2
        np.testing.assert_allclose(metric.metric(z)[point], np.diag(1 / expected))
    assert metric.on_floor(z).tolist() == [False, True]
    assert float(metric.coverage(data)) == 1.0


def test_derivatives_agree_with_the_generic_ones() -> None:
    metric, z = LocalMetric(ring(), 0.4), torch.tensor([[0.3, 0.9], [-0.5, 0.5]], dtype=F64)
    generic, v = OnlyMetric(metric), torch.tensor([[0.3, -0.2], [1.0, 0.4]], dtype=F64)
    for name in ("metric_jacobian", "logdet", "cholesky"):
        torch.testing.assert_close(getattr(metric, name)(z), getattr(generic, name)(z))
    torch.testing.assert_close(metric.inner(z, v, v), generic.inner(z, v, v))
    torch.testing.assert_close(metric.christoffel(z, v), generic.christoffel(z, v))


def test_shortest_curves_follow_the_data() -> None:
    data = ring()
    metric = LocalMetric(data, 0.2, 1e-2)
    curve = metric.geodesic(data[0], data[-1])
    assert bool(curve.converged)
    assert (curve.points.norm(dim=-1) > 0.7).all()  # the chord passes at 0.07


@pytest.mark.parametrize(
    "arguments, message",
    [((torch.ones(3), 1.0), "shape"), ((torch.ones(3, 2), 0.0), "bandwidth"), ((torch.ones(3, 2), 1.0, -1.0), "regul")],
)
def test_bad_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalMetric(*arguments)
