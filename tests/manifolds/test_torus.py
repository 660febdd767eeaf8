"""The flat torus: a covering chart with periodic distances."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_riemann import FlatTorus, WarpedMetric
from tests.charts import shear, unshear

DTYPE = torch.float64
CHARTS = [FlatTorus(2, [2.0, 3.0]), WarpedMetric(FlatTorus(2, [2.0, 3.0]), (shear, unshear))]
charts = pytest.mark.parametrize("metric", CHARTS, ids=["flat", "warped"])


def images(metric: FlatTorus | WarpedMetric, z: torch.Tensor) -> torch.Tensor:
    """25 images of each point, first axis."""
    shifts = torch.cartesian_prod(torch.arange(-2.0, 3.0, dtype=DTYPE) * 2, torch.arange(-2.0, 3.0, dtype=DTYPE) * 3)
    if isinstance(metric, FlatTorus):
        return z + shifts[:, None]
    return metric.from_base(metric.to_base(z) + shifts[:, None])


@charts
def test_distance_is_to_the_nearest_image(metric: FlatTorus | WarpedMetric) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = 2 * torch.rand(2, 50, 2, dtype=DTYPE, generator=generator) - 1
    to_base = (lambda p: p) if isinstance(metric, FlatTorus) else metric.to_base
    brute = (to_base(images(metric, y)) - to_base(z)).norm(dim=-1).min(0).values
    torch.testing.assert_close(metric.dist(z, y), brute)
    torch.testing.assert_close(metric.dist(z, images(metric, y)), brute.expand(25, -1))


@charts
def test_geodesic_ends_at_the_nearest_image(metric: FlatTorus | WarpedMetric) -> None:
    z, y = torch.tensor([0.9, 0.1], dtype=DTYPE), torch.tensor([-0.8, -0.2], dtype=DTYPE)
    curve = metric.geodesic(z, y)
    end = curve.points[-1]
    assert (images(metric, y[None]) - end).norm(dim=-1).min() < 1e-12
    assert metric.dist(end, y) < 1e-12
    steps = curve.points.diff(dim=0).norm(dim=-1)
    assert steps.max() < 3 * steps.min()  # continuous: no jump across the seam


def test_wrap() -> None:
    torus = FlatTorus(3, [2.0, math.pi, math.inf])
    z = torch.tensor([[1.0, -math.pi / 2, 50.0], [-3.5, 10.0, -1e9]], dtype=DTYPE)
    wrapped = torus.wrap(z)
    half = torch.tensor([1.0, math.pi / 2], dtype=DTYPE)
    assert (wrapped[:, :2] >= -half).all()
    assert (wrapped[:, :2] < half).all()
    assert torch.equal(wrapped[:, 2], z[:, 2])
    assert (torus.dist(wrapped, z) < 1e-12).all()
    derivative = torch.func.vmap(torch.func.jacrev(torus.wrap))(z)
    torch.testing.assert_close(derivative, torch.eye(3, dtype=DTYPE).expand(2, 3, 3))


def test_cut_locus_has_the_right_distance_and_a_finite_gradient() -> None:
    torus, z = FlatTorus(2), torch.zeros(2, dtype=DTYPE)
    y = torch.tensor([math.pi, -math.pi], dtype=DTYPE, requires_grad=True)
    distance = torus.dist(z, y)
    (gradient,) = torch.autograd.grad(distance, y)
    assert distance.item() == pytest.approx(math.sqrt(2) * math.pi)
    assert gradient.norm().item() == pytest.approx(1)


def test_periods_keep_double_precision_and_follow_the_module() -> None:
    torus = FlatTorus(1)
    assert torus.dist(torch.zeros(1, dtype=DTYPE), torch.full((1,), 2 * math.pi, dtype=DTYPE)).item() < 1e-15
    assert "periods" in torus.state_dict()
    assert repr(FlatTorus(2, 3.0)) == "FlatTorus(dim=2, periods=[3.0, 3.0])"


@pytest.mark.parametrize("periods", [0.0, -1.0, math.nan, [1.0, -2.0]])
def test_periods_must_be_positive(periods: float | list[float]) -> None:
    with pytest.raises(ValueError, match="`periods` must be positive"):
        FlatTorus(2, periods)


def test_periods_must_match_the_dimension() -> None:
    with pytest.raises(ValueError, match="`periods` must be one number or 2"):
        FlatTorus(2, [1.0, 2.0, 3.0])
