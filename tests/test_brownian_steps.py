"""How many steps Brownian motion takes where nobody says so, and what is reported of its ends."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann import (
    EuclideanMetric,
    GridMetric,
    Hyperbolic,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    Sphere,
    _walk,
    brownian,
    brownian_motion,
)
from pyro_riemann._formulas import walk_steps
from pyro_riemann.brownian import choose_steps
from pyro_riemann.manifolds import ProductMetric
from tests import charts


def exact_distance(space: RiemannianMetric, time: float) -> float:
    """E of the distance of Brownian motion in a space of constant curvature, from the exact heat kernel."""
    positive = isinstance(space, Sphere)
    top = math.pi if positive else space.dim * time / 2 + 10 * time**0.5
    r = (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000 * top
    y = torch.zeros(3000, space.dim, dtype=torch.float64)
    y[:, 0] = (r / 2).tan() if positive else r.sinh()
    sine = r.sin() if positive else r.sinh()
    kernel = space.log_heat_kernel(torch.zeros(space.dim, dtype=torch.float64), y, time)  # type: ignore[operator]
    weight = (kernel + (space.dim - 1) * sine.log()).exp()
    return ((weight * r).sum() / weight.sum()).item()


@pytest.mark.parametrize("time", [0.3, 1.6])
@pytest.mark.parametrize("dim", [2, 5, 11])
@pytest.mark.parametrize("chart", [charts.hyperboloid_chart, charts.half_space_log_height, Sphere])
def test_default_steps_keep_the_mean_distance(chart: Callable[[int], RiemannianMetric], dim: int, time: float) -> None:
    metric, start = chart(dim), torch.zeros(2, 3000, dim, dtype=torch.float64)
    r = metric.dist(start, brownian_motion(metric, start, time))
    exact = exact_distance(Sphere(dim) if chart is Sphere else charts.hyperboloid_chart(dim), time)
    assert abs(r.mean().item() / exact - 1) < 0.01 + 3 * r.std().item() / r.numel() ** 0.5 / exact


@pytest.mark.parametrize(("dim", "time", "method"), [(2, 0.7, "euler"), (3, 0.4, "second_order"), (6, 0.15, None)])
def test_default_steps_of_a_users_metric(dim: int, time: float, method: str | None) -> None:
    base = charts.hyperboloid_chart(dim)
    metric, start = charts.OnlyMetric(base), torch.zeros(1500, dim, dtype=torch.float64)
    state = torch.get_rng_state()
    num_steps = choose_steps(metric, start, torch.full((1500, 1), time, dtype=torch.float64), method or "second_order")
    assert torch.equal(torch.get_rng_state(), state)
    assert 32 <= num_steps <= 512
    cosh = base.dist(start, brownian_motion(metric, start, time, method=method)).cosh() / math.exp(dim * time / 2)
    assert abs(cosh.mean().item() - 1) < 0.015 + 3 * cosh.std().item() / 1500**0.5


def test_default_steps_are_tried_once_and_again_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def step(metric: RiemannianMetric, z: Tensor, *arguments: Any, **named: Any) -> Tensor:
        tried.append(len(z))
        return _walk.step(metric, z, *arguments, **named)

    monkeypatch.setattr(brownian, "step", step)
    wave = [1.0]
    metric = PullbackMetric(lambda z: torch.cat([z, (wave[0] * z).sin()], -1), 2, jitter=0.0)
    law = RiemannianHeatKernel(torch.zeros(2, dtype=torch.float64), 0.3, metric)
    law.sample()
    few = len(tried)
    tried.clear()
    law.sample()
    RiemannianHeatKernel(torch.zeros(2, dtype=torch.float64), 0.3, metric).sample((3,))
    once = len(tried) // 2
    assert few >= 64 + 16 + once
    tried.clear()
    wave[0] = 2.0  # a change that no registered state shows
    law.sample()
    assert len(tried) >= 64 + 16 + once
    assert law.num_steps is None


def test_default_steps_near_the_edge_of_a_table() -> None:
    """Pilots that would leave the box stay where they are: they say nothing of steps, and are no reason to warn."""
    metric = GridMetric(charts.OnlyMetric(Sphere(2)), -1.0, 1.0, 12, outside="error")
    start = torch.full((4, 2), 0.9)
    assert choose_steps(metric, start, torch.full((4, 1), 0.002), "second_order") <= 64
    assert choose_steps(metric, start, torch.full((4, 1), 50.0), "second_order") == 64
    with pytest.raises(ValueError, match="outside the box"):
        brownian_motion(metric, start.expand(100, 4, 2), 0.5, 8)


def test_extent_of_a_walk() -> None:
    """In the ambient space of an immersion; else in the chart, a logarithm where that is far for the time."""
    slopes = torch.tensor([[1.0, 0.2, 0.5], [0.3, 1.1, -0.4]], dtype=torch.float64)
    start = torch.tensor([[0.1, 0.2], [0.3, -0.1]], dtype=torch.float64)
    end = torch.tensor([[0.4, -0.2], [9.0, 5.0]], dtype=torch.float64)
    time = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
    length = ((end - start) @ slopes).norm(dim=-1)
    flat = PullbackMetric(lambda z: z @ slopes, 2, jitter=0.0)
    torch.testing.assert_close(brownian._extent(flat, start, time, end), length)
    unit = 2 * (2 * time.squeeze(-1)).sqrt()
    expected = unit * (length / unit + ((length / unit).square() + 1).sqrt()).log()
    torch.testing.assert_close(brownian._extent(charts.OnlyMetric(flat), start, time, end), expected)


def test_default_steps_where_no_time_is_known() -> None:
    metric = Sphere(2)

    def path(time: Tensor) -> Tensor:
        return brownian_motion(metric, torch.zeros(2), time, return_path=True)

    assert torch.vmap(path, randomness="different")(torch.tensor([0.1, 0.2])).shape == (2, 65, 2)


@pytest.mark.parametrize("method", brownian.METHODS)
def test_vmap_of_a_walk_is_the_batch(method: str) -> None:
    metric, start = charts.sphere_pullback(2), 0.3 * torch.randn(3, 2, 2, dtype=torch.float64)
    time, noise = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.randn(3, 5, 2, 2, dtype=torch.float64)

    def end(start: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        return brownian_motion(metric, start, time, 5, noise=noise, method=method)

    together = brownian_motion(metric, start, time[:, None], 5, noise=noise.transpose(0, 1), method=method)
    torch.testing.assert_close(torch.vmap(end)(start, time, noise), together)


def test_default_steps_where_paths_are_lost() -> None:
    """No number of steps keeps them; four times the finest walk that was tried is asked for."""

    class Ends(RiemannianMetric):
        dim = 1

        def metric(self, z: Tensor) -> Tensor:
            return (1 - z.square()).sqrt()[..., None]

    with pytest.warns(UserWarning, match="needs about 2048 steps"):
        assert choose_steps(Ends(), torch.zeros(4, 1), torch.full((4, 1), 2.0), "second_order") == 512


def test_default_steps_follow_time_and_noise() -> None:
    metric, start = Hyperbolic(6), torch.zeros(3, 6, dtype=torch.float64)
    counts = [len(brownian_motion(metric, start, time, return_path=True)) - 1 for time in (0.1, 4.0)]
    assert counts[0] == 16 < counts[1]
    assert len(brownian_motion(metric, start, 4.0, return_path=True, noise=torch.zeros(7, 3, 6).double())) == 8
    with pytest.warns(UserWarning, match=r"needs about \d+ steps .* with an error of about \d+%") as said:
        assert choose_steps(metric, start, torch.full((3, 1), 200.0), "geodesic") == 512
    needed, share = (int(number) for number in re.findall(r"about (\d+)", str(said[0].message)))
    assert 1 < share < 100
    assert share == round((needed / 512) ** 2)  # a percent at the number needed, of order two in the step


def test_a_product_takes_as_many_steps_as_the_factor_that_needs_most() -> None:
    curved, flat = charts.hyperboloid_chart(6), EuclideanMetric(2)
    start, time = torch.zeros(3, 8, dtype=torch.float64), torch.tensor([[0.02], [6.0], [0.1]], dtype=torch.float64)
    alone = choose_steps(curved, start[:, 2:], time, "geodesic")
    assert alone > choose_steps(flat, start[:, :2], time, "geodesic")
    assert choose_steps(ProductMetric([flat, curved]), start, time, "geodesic") == alone
    assert choose_steps(ProductMetric([curved, flat]), start, time, "geodesic") == alone


@pytest.mark.parametrize("space", [Sphere, charts.hyperboloid_chart])
def test_geodesic_steps_are_of_weak_order_two(space: Callable[[int], RiemannianMetric]) -> None:
    """One step: E cosh l = exp(d h / 2) (1 + O(h^3)), by quadrature over the length of the step."""
    dim, metric = 5, space(5)
    curvature = metric.scalar_curvature(torch.zeros(5)).sign().item()

    def error(time: float) -> float:
        length = torch.linspace(0, 12, 4000, dtype=torch.float64)
        noise = torch.zeros(1, 4000, dim, dtype=torch.float64)
        noise[..., 0] = length
        start = torch.zeros(4000, dim, dtype=torch.float64)
        r = metric.dist(start, brownian_motion(metric, start, time, 1, "geodesic", noise=noise))
        weight = length ** (dim - 1) * (-length.square() / 2).exp()
        mean = ((r.cosh() if curvature < 0 else r.cos()) * weight).sum() / weight.sum()
        return abs(mean.item() - math.exp(-curvature * dim * time / 2))

    assert error(0.1) / error(0.05) == pytest.approx(8, rel=0.25)


@pytest.mark.parametrize("space", [Sphere, charts.hyperboloid_chart])
@pytest.mark.parametrize("dim", [2, 6])
def test_steps_on_a_space_form_are_those_of_an_error_of_half_a_percent(
    space: Callable[[int], RiemannianMetric], dim: int
) -> None:
    """Of log E cosh l (log E cos l on the sphere), exactly +- d t / 2, by quadrature over the length of one step."""
    metric, time = space(dim), 3.0
    start = torch.zeros(4000, dim, dtype=torch.float64)
    curvature = metric.scalar_curvature(start[:1]).item()
    step = time / walk_steps.needed_on_space_form(dim, curvature, time)
    noise, length = torch.zeros(1, 4000, dim, dtype=torch.float64), torch.linspace(0, 12, 4000, dtype=torch.float64)
    noise[..., 0] = length
    r = metric.dist(start, brownian_motion(metric, start, step, 1, "geodesic", noise=noise))
    weight = length ** (dim - 1) * (-length.square() / 2).exp()
    mean = ((r.cosh() if curvature < 0 else r.cos()) * weight).sum() / weight.sum()
    exact = math.copysign(dim * step / 2, -curvature)
    assert abs(math.log(mean.item()) / exact - 1) == pytest.approx(0.005, rel=0.02)
    with pytest.warns(UserWarning, match="Brownian motion over time") as said:
        choose_steps(metric, start[:1], torch.full((1, 1), 700 * step, dtype=torch.float64), "geodesic")
    assert "needs about 700 steps" in str(said[0].message)


def test_steps_needed_by_the_gap_between_two_walks() -> None:
    """Errors of 0.3 / n are half a percent at n = 60, which 8 steps and four times as many tell."""
    assert walk_steps.needed_by_gap(8, 0.3 / 32 - 0.3 / 8, 0.0) == pytest.approx(60)
    assert walk_steps.needed_by_gap(8, 0.2 / 8 - 0.2 / 32, 0.1 / 8 - 0.1 / 32) == pytest.approx(60)


# ---------------------------------------------------------------- floors


def test_paths_that_run_off_to_the_floor_are_reported() -> None:
    metric = PullbackMetric(lambda z: torch.tanh(torch.cat([z, 0.5 * z], -1)), 2)
    start = torch.full((400, 2), 3.2, dtype=torch.float64)
    with pytest.warns(UserWarning, match="Brownian paths end where the PullbackMetric is only its floor") as said:
        end = brownian_motion(metric, start, 0.2, 16)
    share = metric.on_floor(end).double().mean().item()  # type: ignore[union-attr]
    assert share > 0.05
    assert str(said[0].message).startswith(f"{share:.0%} of 400 ")
    brownian_motion(metric, torch.zeros(400, 2, dtype=torch.float64), 0.01, 8)  # no warning: an error in these tests
