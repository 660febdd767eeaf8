"""The Riemannian uniform with learned metrics and in batches: gradients, traces, set-up, refusals."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import (
    EuclideanMetric,
    Hyperbolic,
    KernelMetric,
    RiemannianMetric,
    RiemannianUniform,
)
from tests.charts import half_space_log_height
from tests.distributions._volumes import DTYPE, Exponential, overlapping_bumps

# -------------------------------------------------------------------- gradients


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_gradient_of_the_volume_in_metric_and_bounds(dim):
    metric = Exponential(torch.full((dim,), 0.4, dtype=DTYPE))
    low, high = (torch.full((dim,), x, dtype=DTYPE, requires_grad=True) for x in (-1.0, 0.5))
    RiemannianUniform(metric, low, high).log_volume().value.backward()
    exact_low, exact_high, exact_rates = (x.detach().clone().requires_grad_() for x in (low, high, metric.rates))
    volume = ((exact_rates * exact_high).exp() - (exact_rates * exact_low).exp()) / exact_rates
    volume.log().sum().backward()
    tolerance = 1e-6 if dim <= 2 else 2e-2  # quadrature, or importance sampling
    for ours, exact in ((low, exact_low), (high, exact_high), (metric.rates, exact_rates)):
        assert torch.allclose(ours.grad, exact.grad, atol=tolerance)


def test_gradient_of_the_density_in_the_kernel_parameters():
    base = overlapping_bumps(2)
    point = torch.tensor([0.3, -0.2], dtype=DTYPE)

    def density(bandwidth: Tensor) -> tuple[Tensor, Tensor | None]:
        metric = KernelMetric(base.centroids, base.precisions, nn.Parameter(bandwidth), base.regularization)
        law = RiemannianUniform(metric, -2.0, 2.0)
        value = law.log_prob(point)
        value.backward()
        return value.detach(), metric.bandwidth.grad

    centre, step = torch.tensor(1.2, dtype=DTYPE), 1e-3
    difference = (density(centre + step)[0] - density(centre - step)[0]) / (2 * step)
    slope = density(centre)[1]
    assert slope is not None
    assert torch.allclose(slope, difference, atol=1e-3)


class Density(nn.Module):
    """The law as a module, whose trace keeps the metric's parameters as its own."""

    def __init__(self, metric: RiemannianMetric) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, z: Tensor) -> Tensor:
        low, high = (torch.full((2,), bound, dtype=DTYPE) for bound in (-1.0, 1.0))
        return RiemannianUniform(self.metric, low, high).log_prob(z)


def test_trace_follows_a_metric_that_is_learned():
    """A compiled density sees parameters that have changed since it was recorded."""
    metric = Exponential(torch.full((2,), 0.4, dtype=DTYPE))
    z = torch.tensor([0.3, -0.2], dtype=DTYPE)
    traced = torch.jit.trace(Density(metric), z, check_trace=False)
    for rate in (0.4, 0.7):
        metric.rates.data.fill_(rate)
        metric.rates.grad = None
        value = traced(z)
        assert abs(float(value.detach()) - (rate * float(z.sum()) - metric.exact_log_volume(-1.0, 1.0))) < 1e-6
        value.backward()
        exact = z - (1 / math.tanh(rate) - 1 / rate)
        assert torch.allclose(metric.rates.grad, exact, atol=1e-6)


def test_point_outside_is_impossible_and_has_no_nan_gradient():
    law = RiemannianUniform(half_space_log_height(2), -torch.ones(2, dtype=DTYPE), 1.0, validate_args=False)
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0]], dtype=DTYPE, requires_grad=True)
    value = law.log_prob(z)
    assert value[1] == -torch.inf
    value[0].backward()
    assert torch.isfinite(z.grad).all()


# -------------------------------------------------------------------- set-up, kept laws, batches


def test_set_up_happens_once_and_again_when_the_metric_changes():
    metric = Exponential(torch.full((2,), 0.5, dtype=DTYPE)).requires_grad_(False)
    law = RiemannianUniform(metric, -1.0, 1.0)
    first = law.log_volume().value
    spent = metric.evaluations
    for again in (law, law.expand((5,)), RiemannianUniform(metric, -1.0, 1.0)):
        assert again.log_volume().value.unique() == first
    assert metric.evaluations == spent
    assert pickle.loads(pickle.dumps(law)).log_volume().value == first
    metric.rates.mul_(2)
    assert abs(float(law.log_volume().value) - metric.exact_log_volume(-1.0, 1.0)) < 1e-6
    assert law.log_volume().value != first


@pytest.mark.parametrize("dim", [2, 5])
def test_set_up_is_deterministic_and_takes_no_random_numbers(dim):
    metric = overlapping_bumps(dim)
    state = torch.random.get_rng_state()
    values = [RiemannianUniform(copy.deepcopy(metric), -3.0, 3.0).log_volume().value for _ in range(2)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(state, torch.random.get_rng_state())


def test_batch_of_boxes():
    metric = overlapping_bumps(2)
    low = torch.tensor([[[-1.0, -1.0]], [[0.0, 0.0]]], dtype=DTYPE)
    high = torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0]], dtype=DTYPE)
    law = RiemannianUniform(metric, low, high)
    assert law.batch_shape == (2, 3)
    draws = law.sample((400,))
    assert law.support.check(draws).all()
    single = RiemannianUniform(metric, low[1, 0], high[2])
    assert torch.equal(single.log_volume().value, law.log_volume().value[1, 2])
    z = draws[:, 1, 2]
    assert torch.allclose(law.log_prob(draws)[:, 1, 2], single.log_prob(z))
    for row in range(2):
        for column in range(3):
            alone = RiemannianUniform(metric, low[row, 0], high[column])
            torch.testing.assert_close(law.efficiency[row, column], alone.efficiency)
            torch.testing.assert_close(law.mean[row, column], alone.mean)
    assert len(law.efficiency.unique()) == 6


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "low, high, match",
    [
        (None, 1.0, "`low` is missing"),
        (-1.0, None, "`high` is missing"),
        (-math.inf, 1.0, "`low` is infinite"),
        (-1.0, torch.tensor([1.0, math.inf]), "`high` is infinite"),
        (torch.tensor([math.nan, 0.0]), 1.0, "`low` has 1 NaN"),
        (1.0, -1.0, "strictly below"),
        (torch.zeros(2), torch.tensor([1.0, 0.0]), "strictly below"),
        (torch.zeros(3), 1.0, "`low` must be a number or have shape"),
    ],
)
def test_bad_bounds_are_named(low, high, match):
    with pytest.raises(ValueError, match=match):
        RiemannianUniform(EuclideanMetric(2), low, high)


def test_bad_types_are_named():
    with pytest.raises(TypeError, match="`metric`"):
        RiemannianUniform(torch.eye(2), -1.0, 1.0)
    with pytest.raises(TypeError, match="`low`"):
        RiemannianUniform(EuclideanMetric(2), "left", 1.0)
    with pytest.raises(TypeError, match="`high`"):
        RiemannianUniform(EuclideanMetric(2), torch.zeros(2), torch.ones(2, dtype=torch.long))


def test_box_that_leaves_the_chart_is_refused():
    law = RiemannianUniform(Hyperbolic(2), -torch.ones(2, dtype=DTYPE), 1.0)
    with pytest.raises(ValueError, match=r"open unit ball|leaves the chart"):
        law.log_volume()


def test_point_outside_the_support_is_refused_when_validating():
    law = RiemannianUniform(EuclideanMetric(2), -torch.ones(2, dtype=DTYPE), 1.0, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.full((2,), 1.5, dtype=DTYPE))
