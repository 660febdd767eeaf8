"""Brownian motion against exact laws, in charts where a missing drift shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pyro_riemann import (
    ConstantMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianMetric,
    Sphere,
    brownian_motion,
)
from pyro_riemann.brownian import METHODS, default_method
from tests import charts
from tests.explicit import HalfSpace, Hyperboloid, half_space_cosh, stereographic, warped_sphere

# a start of the sheared sphere where the drift is large, and an axis half along it
SPHERE_START = torch.tensor([-0.4, -0.4], dtype=torch.float64)
SPHERE_AXIS = warped_sphere(SPHERE_START) + torch.tensor([0.61, 0.16, -0.77], dtype=torch.float64)


class Law(NamedTuple):
    metric: RiemannianMetric
    start: Tensor
    time: float
    num_steps: int
    statistic: Callable[[Tensor], Tensor]
    exact: float
    tolerance: float  # relative, beside three standard errors


LAWS = {
    "H2 hyperboloid": Law(
        Hyperboloid(), torch.zeros(2), 0.25, 32, lambda z: (1 + z.square().sum(-1)).sqrt(), math.exp(0.25), 4e-3
    ),
    "H3 half-space": Law(HalfSpace(), torch.zeros(3), 0.5, 64, half_space_cosh, math.exp(0.75), 1e-2),
    "S2 warped": Law(
        PullbackMetric(warped_sphere, 2, jitter=0.0),
        SPHERE_START,
        0.15,
        32,
        lambda z: warped_sphere(z) @ SPHERE_AXIS,
        math.exp(-0.15) * (warped_sphere(SPHERE_START) @ SPHERE_AXIS).item(),
        4e-3,
    ),
    "S3 stereographic": Law(
        PullbackMetric(stereographic, 3, jitter=0.0),
        torch.zeros(3),
        0.5,
        32,
        lambda z: stereographic(z)[..., -1],
        math.exp(-0.75),
        8e-3,
    ),
    "line sinh": Law(
        PullbackMetric(torch.sinh, 1, jitter=0.0),
        torch.ones(1),
        0.5,
        32,
        lambda z: z.sinh().squeeze(-1),
        math.sinh(1),
        4e-3,
    ),
}
PULLBACKS = ("retraction", "second_order", "euler", "geodesic")
CASES = [
    (name, method)
    for name, law in LAWS.items()
    for method in (PULLBACKS if isinstance(law.metric, PullbackMetric) else PULLBACKS[1:])
]


def deviation(law: Law, method: str | None, count: int = 1500) -> tuple[float, float]:
    """Relative deviation of the sampled mean from the exact one, and its standard error.

    Every path has a mirrored twin, driven by the negative noise.
    """
    half = torch.randn(law.num_steps, count, law.metric.dim, dtype=torch.float64)
    noise = torch.stack([half, -half], 1)
    start = law.start.double().expand(2, count, -1)
    with torch.no_grad():
        end = brownian_motion(law.metric, start, law.time, law.num_steps, method, noise=noise)
    value = law.statistic(end).mean(0) / law.exact
    return value.mean().item() - 1, value.std().item() / count**0.5


@pytest.mark.parametrize(("name", "method"), CASES)
def test_law(name: str, method: str) -> None:
    bias, error = deviation(LAWS[name], method)
    assert abs(bias) < LAWS[name].tolerance + 3 * error


@pytest.mark.parametrize("name", LAWS)
def test_the_laws_would_catch_a_missing_drift(name: str) -> None:
    bias, error = deviation(LAWS[name], "driftless")
    assert abs(bias) > LAWS[name].tolerance + 4 * error


@pytest.mark.parametrize("metric", [charts.hyperboloid_chart(2), charts.half_space_log_height(3), Hyperbolic(3)])
def test_law_of_closed_forms_by_the_default_method(metric: RiemannianMetric) -> None:
    start = torch.full((3000, metric.dim), 0.1, dtype=torch.float64)
    end = brownian_motion(metric, start, 0.25, 16)
    value = metric.dist(start, end).cosh() / math.exp(0.25 * metric.dim / 2)
    assert abs(value.mean().item() - 1) < 5e-3 + 3 * value.std().item() / 3000**0.5


class TestSameAmbientNoise:
    """Two charts of S^2, driven by the same noise in space, follow the same path."""

    left, right = PullbackMetric(warped_sphere, 2, jitter=0.0), PullbackMetric(stereographic, 2, jitter=0.0)

    def gap(self, method: str, num_steps: int, count: int = 1000) -> Tensor:
        """Distance vectors in space at time 0.1, ``(2, count, 3)``; noise and its mirror image."""
        start = torch.tensor([-0.3, -0.3], dtype=torch.float64)
        other = charts.shear(start)
        torch.testing.assert_close(stereographic(other), warped_sphere(start))
        half = torch.randn(num_steps, count, 3, dtype=torch.float64)
        noise = torch.stack([half, -half], 1)
        first = brownian_motion(self.left, start.expand(2, count, 2), 0.1, num_steps, method, noise=noise)
        second = brownian_motion(self.right, other.expand(2, count, 2), 0.1, num_steps, method, noise=noise)
        return warped_sphere(first) - stereographic(second)

    @pytest.mark.parametrize(("method", "order"), [("retraction", 1.0), ("second_order", 1.0), ("euler", 0.5)])
    def test_mean_and_order(self, method: str, order: float) -> None:
        """Pathwise the corrections that know v are of order 1, Euler-Maruyama of order 1/2."""
        fine = self.gap(method, 32)
        assert fine.mean((0, 1)).abs().max() < 2e-4
        ratio = self.gap(method, 8).square().mean().sqrt() / fine.square().mean().sqrt()
        assert abs(math.log(ratio, 4) - order) < 0.25

    def test_geodesic_steps_do_not_know_the_chart(self) -> None:
        assert self.gap("geodesic", 4, 100).square().mean().sqrt() < 2e-4

    def test_driftless_walks_apart(self) -> None:
        assert self.gap("driftless", 32).mean((0, 1)).abs().max() > 5e-3


MATRIX = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("method", [None, *METHODS[1:]])
def test_flat_space_is_exact(method: str | None) -> None:
    """With constant G the end is the start plus L^-T times the summed noise, N(0, time G^-1)."""
    noise = torch.randn(4, 6, 2, dtype=torch.float64)
    start = torch.randn(6, 2, dtype=torch.float64)
    end = brownian_motion(ConstantMetric(MATRIX), start, 0.8, 4, method, noise=noise)
    root = torch.linalg.inv(torch.linalg.cholesky(MATRIX).mT)
    torch.testing.assert_close(end, start + noise.sum(0) @ root.mT * 0.2**0.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_one_step_has_the_inverse_metric_as_covariance(size: int) -> None:
    """Fed with the basis vectors, chart or ambient, the steps v satisfy sum v v^T = time G^-1."""
    metric = PullbackMetric(warped_sphere, 2, jitter=0.0)
    start = SPHERE_START.expand(size, 2)
    step = brownian_motion(metric, start, 0.3, 1, "driftless", noise=torch.eye(size, dtype=torch.float64)[None]) - start
    torch.testing.assert_close(step.mT @ step, 0.3 * torch.linalg.inv(metric.metric(SPHERE_START)), rtol=1e-10, atol=0)


class ScaledSphere(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.radius = torch.nn.Parameter(torch.tensor(1.2, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.radius * warped_sphere(z)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_match_finite_differences(method: str) -> None:
    """In start, time and the metric's parameter, with the noise held fixed."""
    module = ScaledSphere()
    metric = PullbackMetric(module, 2)
    noise = torch.randn(1 if method == "geodesic" else 2, 1, 2, dtype=torch.float64)

    def end(start: Tensor, time: Tensor, radius: Tensor) -> Tensor:
        with torch.no_grad():
            module.radius.copy_(radius)
        return brownian_motion(metric, start, time, len(noise), method, noise=noise)

    def end_in_place(start: Tensor, time: Tensor, radius: Tensor) -> Tensor:
        return torch.func.functional_call(
            _Walk(metric, method, noise), {"metric.immersion.radius": radius}, (start, time)
        )

    start = SPHERE_START.clone().requires_grad_()
    time = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    radius = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(end(start, time, radius), end_in_place(start, time, radius))
    assert torch.autograd.gradcheck(end_in_place, (start, time, radius))


class _Walk(torch.nn.Module):
    def __init__(self, metric: RiemannianMetric, method: str, noise: Tensor) -> None:
        super().__init__()
        self.metric, self.method, self.noise = metric, method, noise

    def forward(self, start: Tensor, time: Tensor) -> Tensor:
        return brownian_motion(self.metric, start, time, self.noise.shape[0], self.method, noise=self.noise)


@pytest.mark.parametrize("method", ["second_order", "euler", "geodesic"])
def test_gradients_of_a_users_metric(method: str) -> None:
    noise = torch.randn(2, 2, dtype=torch.float64)
    start = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    time = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s, t: brownian_motion(Hyperboloid(), s, t, 2, method, noise=noise), (start, time)
    )


def test_shapes_path_and_time_of_each_batch_element() -> None:
    start = torch.zeros(5, 1, 2, dtype=torch.float64)
    time = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    noise = torch.randn(6, 5, 3, 2, dtype=torch.float64)
    path = brownian_motion(Hyperboloid(), start, time, 6, return_path=True, noise=noise)
    assert path.shape == (7, 5, 3, 2)
    assert torch.equal(path[0], start.expand(5, 3, 2))
    assert torch.equal(path[-1], brownian_motion(Hyperboloid(), start, time, 6, noise=noise))
    one = brownian_motion(Hyperboloid(), start[0, 0], 0.4, 6, noise=noise[:, 2, 1])
    torch.testing.assert_close(one, path[-1, 2, 1], rtol=0, atol=1e-12)
    assert brownian_motion(Hyperboloid(), torch.zeros(0, 2), 0.4, 2).shape == (0, 2)


def test_seeded_and_independent_of_the_callers_default() -> None:
    start = torch.zeros(3, 2)
    torch.manual_seed(7)
    first = brownian_motion(Hyperboloid(), start, 0.3, 3)
    torch.manual_seed(7)
    assert torch.equal(first, brownian_motion(Hyperboloid(), start, 0.3, 3))
    assert first.dtype == torch.float32
    assert len(torch.unique(first[:, 0])) == 3


@pytest.mark.parametrize("method", METHODS)
def test_float32_follows_float64(method: str) -> None:
    metric = PullbackMetric(warped_sphere, 2)
    noise = torch.randn(8, 50, 2, dtype=torch.float64)
    start = SPHERE_START.expand(50, 2)
    double = brownian_motion(metric, start, 0.1, 8, method, noise=noise)
    single = brownian_motion(metric, start.float(), 0.1, 8, method, noise=noise.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-3)


def test_default_method() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ELU(), torch.nn.Linear(5, 4))
    kernel = KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), bandwidth=1.0, regularization=0.1)
    assert default_method(PullbackMetric(warped_sphere, 2)) == "retraction"
    assert default_method(PullbackMetric(net, 2)) == "second_order"
    assert default_method(Sphere(2)) == "geodesic"
    assert default_method(charts.warped_sphere(2)) == "geodesic"
    assert default_method(kernel) == "euler"
    assert default_method(Hyperboloid()) == "second_order"


def test_second_order_is_the_same_with_jets_and_without() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.ELU(), torch.nn.Linear(9, 6)).double()
    noise, start = torch.randn(5, 20, 2, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    fast = brownian_motion(PullbackMetric(net, 2), start, 0.2, 5, "second_order", noise=noise)
    plain = brownian_motion(PullbackMetric(lambda z: net(z), 2), start, 0.2, 5, "second_order", noise=noise)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["retraction", "second_order"])
def test_a_correction_never_exceeds_the_step(method: str) -> None:
    """On a wall of slope 200 the uncapped correction is many times the step."""

    def wall(z: Tensor) -> Tensor:
        return torch.cat([z, torch.tanh(200 * z)], -1)

    metric = PullbackMetric(wall, 1, jitter=0.0)
    start = torch.linspace(-0.05, 0.05, 101, dtype=torch.float64)[:, None]
    noise = torch.ones(1, 101, 1, dtype=torch.float64)
    plain = brownian_motion(metric, start, 0.1, 1, "driftless", noise=noise)
    moved = brownian_motion(metric, start, 0.1, 1, method, noise=noise)
    step, correction = metric.norm(start, plain - start), metric.norm(start, moved - plain)
    assert (correction <= step * (1 + 1e-12)).all()
    assert (correction > step * (1 - 1e-12)).any()


def test_traces() -> None:
    net = (
        torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ELU(), torch.nn.Linear(5, 4)).double().requires_grad_(False)
    )
    noise, start = torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    for metric in (PullbackMetric(net, 2, jitter=0.0), PullbackMetric(warped_sphere, 2), Hyperboloid()):
        walk = _Walk(metric, default_method(metric), noise)
        time = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
        traced = torch.jit.trace(walk, (start, time))
        torch.testing.assert_close(traced(start + 0.1, 2 * time), walk(start + 0.1, 2 * time), rtol=0, atol=1e-12)
