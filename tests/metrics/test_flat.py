"""Flat metrics: every quantity in closed form."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from pyro_riemann import ConstantMetric, EuclideanMetric
from tests.charts import OnlyMetric

MATRIX = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mahalanobis_distance(dtype: torch.dtype) -> None:
    metric = ConstantMetric(MATRIX)
    z, y = torch.randn(2, 5, 3, 2, dtype=dtype)
    expected = torch.einsum("...i,ij,...j->...", y - z, MATRIX.to(dtype), y - z)
    torch.testing.assert_close(metric.squared_dist(z, y), expected)
    torch.testing.assert_close(metric.dist(z, y), expected.sqrt())
    torch.testing.assert_close(metric.logdet(z), torch.logdet(MATRIX).to(dtype).expand(5, 3))
    torch.testing.assert_close(metric.norm(z, y - z), metric.dist(z, y))
    assert metric.metric(z).dtype == dtype


def test_closed_forms_agree_with_the_solver() -> None:
    exact, generic = ConstantMetric(MATRIX), OnlyMetric(ConstantMetric(MATRIX))
    z, y = torch.randn(2, 6, 2, dtype=torch.float64)
    torch.testing.assert_close(generic.squared_dist(z, y), exact.squared_dist(z, y), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(generic.logmap(z, y), exact.logmap(z, y), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(generic.expmap(z, y), exact.expmap(z, y))
    torch.testing.assert_close(generic.drift(z), exact.drift(z))
    torch.testing.assert_close(generic.log_van_vleck(z, y), exact.log_van_vleck(z, y), rtol=0, atol=1e-6)
    torch.testing.assert_close(generic.scalar_curvature(z), exact.scalar_curvature(z), rtol=0, atol=1e-10)


def test_geodesics_are_straight_at_constant_speed() -> None:
    z, y = torch.randn(2, 4, 2, dtype=torch.float64)
    curve = ConstantMetric(MATRIX).geodesic(z, y)
    torch.testing.assert_close(curve(0.25), z + 0.25 * (y - z))
    torch.testing.assert_close(curve.points[0], z)
    torch.testing.assert_close(curve.points[-1], y)
    torch.testing.assert_close(curve.length, ConstantMetric(MATRIX).dist(z, y))
    assert bool(curve.converged.all())


def test_expmap_inverts_logmap() -> None:
    metric = ConstantMetric(MATRIX)
    z, y = torch.randn(2, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(metric.expmap(z, metric.logmap(z, y)), y)
    end, log_v = metric.expmap_log_van_vleck(z, y)
    torch.testing.assert_close(end, z + y)
    assert log_v.tolist() == [0.0] * 4


def test_distance_and_gradient_vanish_at_coincidence() -> None:
    z = torch.randn(2, dtype=torch.float64, requires_grad=True)
    distance = EuclideanMetric(2).dist(z, z.detach().clone())
    distance.backward()
    assert distance.item() == 0
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("metric", [EuclideanMetric(3), ConstantMetric(torch.eye(3) * 2)], ids=str)
def test_copies_and_state(metric: ConstantMetric) -> None:
    z = torch.randn(4, 3)
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(twin.metric(z), metric.metric(z))
    other = ConstantMetric(torch.eye(3) * 5)
    other.load_state_dict(metric.state_dict())
    torch.testing.assert_close(other.metric(z), metric.metric(z))
    assert metric.double().matrix.dtype == torch.float64


@pytest.mark.parametrize(
    "matrix",
    [
        torch.ones(2),
        torch.ones(2, 3),
        torch.tensor([[1.0, 0.5], [0.0, 1.0]]),
        torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
        torch.full((2, 2), torch.nan),
    ],
)
def test_bad_matrices(matrix: Tensor) -> None:
    with pytest.raises(ValueError, match="matrix"):
        ConstantMetric(matrix)
