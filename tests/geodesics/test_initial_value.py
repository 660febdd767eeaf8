"""Exponential map and its Jacobian against closed forms, in charts that are not conformal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann.geodesics import expmap, expmap_log_van_vleck, geodesic_flow
from pyro_riemann.geodesics._initial_value import _runge_kutta
from tests import charts
from tests.explicit import HalfSpace, Hyperboloid, Vanishing, stereographic, warped_sphere

# (closed form, the same metric with numerics only)
PAIRS: dict[str, tuple[RiemannianMetric, RiemannianMetric]] = {
    "sphere2": (charts.warped_sphere(2), PullbackMetric(warped_sphere, 2, jitter=0.0)),
    "sphere3": (charts.warped_sphere(3), PullbackMetric(warped_sphere, 3, jitter=0.0)),
    "hyperbolic2": (charts.hyperboloid_chart(2), Hyperboloid()),
    "hyperbolic3": (charts.half_space_log_height(3), HalfSpace()),
    "torus": (charts.warped_torus(2), charts.OnlyMetric(charts.warped_torus(2))),
}


def start_and_velocity(metric: RiemannianMetric, length: float) -> tuple[Tensor, Tensor]:
    """Geodesics of a length whose middle is near the origin of the chart, ``(2, 3, d)``."""
    middle = 0.1 * torch.randn(2, 3, metric.dim, dtype=torch.float64)
    w = torch.randn(3, metric.dim, dtype=torch.float64).expand_as(middle)
    w = 0.5 * length * w / metric.norm(middle, w)[..., None]
    z, back = geodesic_flow(metric, middle, w, num_steps=8)
    return z, -length * back / metric.norm(z, back)[..., None]  # the length exactly, the middle nearly


@pytest.mark.parametrize("name", PAIRS)
def test_numerical_expmap_meets_the_closed_form(name: str) -> None:
    exact, metric = PAIRS[name]
    z, v = start_and_velocity(metric, 1.0)
    y, log_v = expmap_log_van_vleck(metric, z, v)
    true_y, true_log_v = exact.expmap_log_van_vleck(z, v)
    torch.testing.assert_close(y, true_y, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_v, true_log_v, rtol=0, atol=5e-4)
    torch.testing.assert_close(expmap(metric, z, v), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "length", "expected"),
    [("sphere2", 2.289, 1.11124), ("sphere3", 1.930, 1.44743), ("hyperbolic2", 2.116, -0.65886)]
    + [("hyperbolic3", 2.144, -1.34838), ("torus", 1.5, 0.0)],
)
def test_van_vleck_determinant_of_space_forms(name: str, length: float, expected: float) -> None:
    metric = PAIRS[name][1]
    z, v = start_and_velocity(metric, length)
    _, log_v = expmap_log_van_vleck(metric, z[0, 0], v[0, 0], num_steps=16)
    kappa = {"s": 1, "h": -1, "t": 0}[name[0]]
    ratio = {1: length / math.sin(length), -1: length / math.sinh(length), 0: 1.0}[kappa]
    exact = (metric.dim - 1) * math.log(ratio)
    assert abs(exact - expected) < 2e-3  # the lengths are given to three decimals only
    assert abs(log_v.item() - exact) < 1e-4


def test_cylinder_is_flat_and_its_geodesics_are_helices() -> None:
    z, v = start_and_velocity(charts.cylinder(), 3.0)
    y, log_v = charts.cylinder().expmap_log_van_vleck(z, v)
    torch.testing.assert_close(y, z + v, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_v, torch.zeros_like(log_v), rtol=0, atol=1e-12)


def test_fourth_order() -> None:
    exact, metric = PAIRS["hyperbolic3"]
    z, v = start_and_velocity(exact, 1.0)
    errors = [(expmap(metric, z, v, steps) - exact.expmap(z, v)).abs().max() for steps in (8, 16, 32)]
    assert 10 < errors[0] / errors[1] < 26
    assert 10 < errors[1] / errors[2] < 26


def test_speed_is_constant_and_the_flow_reverses() -> None:
    metric = PAIRS["hyperbolic3"][1]
    z, v = start_and_velocity(metric, 1.0)
    y, velocity = geodesic_flow(metric, z, v, num_steps=16)
    torch.testing.assert_close(metric.norm(y, velocity), metric.norm(z, v), rtol=0, atol=1e-5)
    back, reverse = geodesic_flow(metric, y, -velocity, num_steps=16)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-5)
    torch.testing.assert_close(-reverse, v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("metric", [charts.sphere_pullback(2), HalfSpace()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_velocity_stays_exactly(metric: RiemannianMetric, dtype: torch.dtype) -> None:
    z = 0.3 * torch.randn(4, metric.dim, dtype=dtype)
    v = torch.zeros_like(z, requires_grad=True)
    y, log_v = expmap_log_van_vleck(metric, z, v, num_steps=4)
    assert torch.equal(y, z)
    assert torch.equal(log_v, torch.zeros_like(log_v))
    (slope,) = torch.autograd.grad(log_v.sum(), v)
    torch.testing.assert_close(slope, torch.zeros_like(v), rtol=0, atol=1e-5)


def test_infinite_at_the_conjugate_point_and_absolute_beyond() -> None:
    metric = PullbackMetric(stereographic, 2, jitter=0.0)
    z = torch.tensor([0.9, -0.6], dtype=torch.float64)
    v = torch.tensor([-1.0, -0.2], dtype=torch.float64)
    v = v / metric.norm(z, v)
    lengths = torch.tensor([3.0, 3.3], dtype=torch.float64)
    _, log_v = expmap_log_van_vleck(metric, z, lengths[:, None] * v, num_steps=40)
    torch.testing.assert_close(log_v, (lengths / lengths.sin().abs()).log(), rtol=0, atol=0.02)


def test_gradients_match_finite_differences() -> None:
    def value(z: Tensor, v: Tensor, r: Tensor) -> Tensor:
        immersion = PullbackMetric(lambda x: r * Sphere(2).to_ambient(charts.shear(x)), 2, jitter=0.0)
        y, log_v = expmap_log_van_vleck(immersion, z, v, num_steps=3)
        return y.sin().sum() + 2 * y[0] + log_v

    at = [torch.tensor(x, dtype=torch.float64) for x in ([0.2, -0.3], [0.4, 0.1], 1.3)]
    leaves = [x.clone().requires_grad_() for x in at]
    exact = torch.autograd.grad(value(*leaves), leaves)
    for _ in range(2):  # in all arguments at once
        steps = [1e-4 * torch.randn_like(x) for x in at]
        ends = [value(*[x + sign * step for x, step in zip(at, steps, strict=True)]) for sign in (1, -1)]
        change = sum((slope * step).sum() for slope, step in zip(exact, steps, strict=True))
        torch.testing.assert_close(2 * change, ends[0] - ends[1], rtol=1e-6, atol=1e-11)


def test_broadcasts_and_traces() -> None:
    metric = Hyperboloid()
    z, v = 0.2 * torch.randn(2, dtype=torch.float64), 0.2 * torch.randn(5, 3, 2, dtype=torch.float64)
    y, log_v = metric.expmap_log_van_vleck(z, v)
    assert y.shape == (5, 3, 2)
    assert log_v.shape == (5, 3)
    torch.testing.assert_close(metric.expmap(z, v[2, 1]), y[2, 1])
    traced = torch.jit.trace(lambda a, b: expmap_log_van_vleck(metric, a, b, num_steps=1), (z, v), check_trace=False)
    other = 0.5 * v
    for got, want in zip(traced(z, other), expmap_log_van_vleck(metric, z, other, num_steps=1), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_network_jets_and_forward_mode_flow_alike() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 7), torch.nn.ELU(), torch.nn.Linear(7, 5)).double()
    z, v = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    fast, plain = PullbackMetric(net, 2), PullbackMetric(lambda x: net(x), 2)
    for got, want in zip(fast.expmap_log_van_vleck(z, v), plain.expmap_log_van_vleck(z, v), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_escape_and_bad_input_are_reported() -> None:
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"1 of 1 geodesics left the reals|became singular"):
        Vanishing().expmap(0 * one, 30 * one)
    metric = charts.sphere_pullback(2)
    z = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="`v` must have shape"):
        metric.expmap(z, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="`z` has 2 NaN"):
        metric.expmap(z * float("nan"), z)
    with pytest.raises(TypeError, match="`v` must have a floating dtype"):
        metric.expmap_log_van_vleck(z, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="`num_steps` must be at least 1"):
        expmap(metric, z, z, num_steps=0)


def fan_against_walls(height: float, steepness: float) -> tuple[PullbackMetric, Tensor, Tensor]:
    """Geodesics of length 1.5 from the origin, with a wall across either axis."""
    metric = PullbackMetric(lambda z: torch.cat([z, height * torch.sigmoid(steepness * (z - 1))], -1), 2)
    angle = torch.linspace(0, math.pi / 2, 12, dtype=torch.float64)
    return metric, torch.zeros(12, 2, dtype=torch.float64), 1.5 * torch.stack([angle.cos(), angle.sin()], -1)


def test_more_steps_where_a_wall_is_too_steep_for_those_given() -> None:
    """Four steps throw these geodesics far behind the wall."""
    metric, z, v = fan_against_walls(20.0, 40.0)
    y = expmap(metric, z, v, num_steps=4)
    exact = expmap(metric, z, v, num_steps=128)
    assert float((_runge_kutta(metric, z, v, 4)[0] - exact).norm(dim=-1).max()) > 1.0
    assert float((y - exact).norm(dim=-1).max()) < 1e-3


def test_more_steps_only_where_they_are_needed() -> None:
    metric, z, v = fan_against_walls(3.0, 15.0)
    end, velocity = _runge_kutta(metric, z, v, 8)
    kept = (metric.norm(end, velocity) - 1.5).abs() < 0.02  # of 1.5, within the two percent that are allowed
    assert 0 < int(kept.sum()) < 12
    y = expmap(metric, z, v, num_steps=8)
    assert torch.equal(y[kept], end[kept])
    assert not torch.equal(y, end)
    torch.testing.assert_close(expmap_log_van_vleck(metric, z, v, num_steps=8)[0], y)


class ThinWall(RiemannianMetric):
    """The line with a wall of Gaussian shape at 1: distances have a closed form."""

    dim = 1
    height, width = 1000.0, 0.01

    def metric(self, z: Tensor) -> Tensor:
        return (1 + self.height * torch.exp(-(((z - 1) / self.width) ** 2) / 2)).square()[..., None]

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        """The derivative of half the logarithm of the metric, in closed form: the test is to be quick."""
        bump = self.height * torch.exp(-(((z - 1) / self.width) ** 2) / 2)
        return bump / (1 + bump) * (1 - z) / self.width**2 * v.square()

    def arc_length(self, z: Tensor) -> Tensor:
        """Length of the way from minus infinity, but for a constant."""
        share = torch.special.ndtr((z - 1) / self.width)
        return z + self.height * self.width * math.sqrt(2 * math.pi) * share


def test_steps_follow_a_wall_that_even_ones_jump() -> None:
    metric = ThinWall()
    z = torch.tensor([[0.97], [1.0], [1.03]], dtype=torch.float64)
    v = 30 / metric.norm(z, torch.ones_like(z))[..., None]
    start = metric.arc_length(z).squeeze(-1)
    assert bool(((metric.arc_length(_runge_kutta(metric, z, v, 64)[0]).squeeze(-1) - start - 30).abs() > 2).all())
    y = expmap(metric, z, v)
    passed = metric.arc_length(y).squeeze(-1) - start
    torch.testing.assert_close(passed, torch.full_like(passed, 30), rtol=0.03, atol=0)  # speed is kept to 2 percent
    single = expmap(metric, z[1], v[1])
    torch.testing.assert_close(single, y[1], rtol=0, atol=1e-12)
