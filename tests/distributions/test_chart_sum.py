"""Normalising constants where the tangent rule fails: sums over the chart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    Sphere,
)
from pyro_riemann._formulas import chart_sum
from pyro_riemann.distributions._tangent import log_tangent_expectation, within_cut_locus
from tests import charts
from tests.chart_sums import log_chart_integral


def test_chart_and_tangent_rules_agree_on_the_sphere() -> None:
    loc = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    variance = torch.tensor([0.1], dtype=torch.float64)
    small = torch.full((2,), 0.4, dtype=torch.float64)  # is enlarged
    chart = log_chart_integral(charts.OnlyMetric(charts.warped_sphere(2)), loc[0], variance[0], (loc[0] - small, small))
    exact = log_tangent_expectation(charts.warped_sphere(2), loc, variance, 15, lambda z, log_v: -log_v)
    torch.testing.assert_close(chart.value, exact.value[0], rtol=0, atol=2e-3 + float(chart.standard_error))
    assert float(chart.standard_error) < 0.02


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_box_that_ends_near_its_centre_is_enlarged(side: float) -> None:
    """The integral of a Gaussian over the line is one, whichever end of the box cuts it off at first."""
    loc, time = torch.zeros(1, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
    ends = sorted((-4.0 * side, 0.3 * side))
    low, high = (torch.full((1,), end, dtype=torch.float64) for end in ends)
    mass = log_chart_integral(EuclideanMetric(1), loc, time, (low, high))
    assert abs(mass.value.item()) < 1e-3 + mass.standard_error.item()
    assert mass.standard_error.item() < 0.02


def test_tangent_vectors_count_as_far_as_the_cut_locus() -> None:
    """On the unit sphere of four dimensions the mass within it is that of a chi law below pi."""
    variance = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    loc = torch.full((3, 4), 0.1, dtype=torch.float64)
    mass = log_tangent_expectation(Sphere(4), loc, variance, 1024, lambda z, log_v: torch.zeros_like(log_v))
    exact = torch.special.gammainc(torch.tensor(2.0, dtype=torch.float64), torch.pi**2 / (2 * variance))
    torch.testing.assert_close(mass.value.exp(), exact, rtol=0, atol=0.01)


class Ring(RiemannianMetric):
    """A wall around the origin; by symmetry the shortest ways from there are the straight ones."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return self.factor(z.norm(dim=-1))[..., None, None] * torch.eye(2, dtype=z.dtype)

    @staticmethod
    def factor(radius: Tensor) -> Tensor:
        return 1 + 2000 * torch.exp(-((radius - 1) ** 2) / 0.004)


def test_mass_behind_a_steep_wall() -> None:
    """The grid is refined until the mass settles."""
    radius = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000 * 3
    factor, step = Ring.factor(radius), 3 / 40_000
    length = (factor.sqrt() * step).cumsum(0) - 0.5 * factor.sqrt() * step
    time = torch.tensor(2.0, dtype=torch.float64)
    exact = (radius * factor * torch.exp(-length.square() / (2 * time)) / time * step).sum().log()
    grid = GridMetric(Ring(), torch.full((2,), -2.0, dtype=torch.float64), 2.0, 300)
    mass = log_chart_integral(grid, torch.zeros(2, dtype=torch.float64), time)
    assert mass.standard_error.item() < 0.01
    assert abs(mass.value.item() - exact.item()) < 0.01


class Ridge(torch.nn.Module):
    """A plane with a steep hill, behind which geodesics meet and cross."""

    def forward(self, z: Tensor) -> Tensor:
        hill = 3 * torch.exp(-4 * ((z[..., :1] - 0.8).square() + z[..., 1:].square()))
        return torch.cat([z, hill], -1)


@pytest.mark.slow
def test_mass_behind_a_hill_is_that_of_the_density() -> None:
    metric = PullbackMetric(Ridge(), 2, jitter=0.0)
    loc, variance = torch.zeros(2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    kernel = RiemannianHeatKernel(loc, variance, metric)
    mass = kernel.log_normalizer()
    assert mass.standard_error.item() < 0.05  # it tells how far half as fine a rule is off
    # the density itself, with distances from shortest paths, summed over a coarser grid
    axis = torch.linspace(-6, 6, 49, dtype=torch.float64)
    nodes = torch.cartesian_prod(axis, axis)
    metric.solver = metric.solver.replace(init="graph")
    density = kernel.log_prob(nodes)
    total = density.logsumexp(0) + 2 * torch.log(axis[1] - axis[0])
    torch.testing.assert_close(mass.value, total, rtol=0, atol=0.03)
    normal = RiemannianNormal(loc, variance.sqrt(), metric)
    flat = torch.log(2 * torch.pi * variance)
    torch.testing.assert_close(normal.log_normalizer().value, mass.value + flat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_box_of_a_gaussian_is_found_without_being_given(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the metric at the centre, of which no direction is like another; of a table, from its own box."""
    if dim == 2:
        monkeypatch.setattr(chart_sum, "_RESOLUTIONS", {2: (12, 16)})  # coarse, and soon done
    slopes = torch.tensor([[3.0, 0.2], [0.3, 0.5]], dtype=torch.float64)[:dim, :dim]
    loc, time = torch.full((dim,), 0.2, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    flat = ConstantMetric(slopes @ slopes.mT)
    tables = [GridMetric(flat, -half, half, 8) for half in (3.0, 0.3)] if dim == 1 else []  # distances take long in two
    for metric in (flat, *tables):
        mass = log_chart_integral(metric, loc, time)
        assert abs(mass.value.item()) < 1e-3 + mass.standard_error.item()
        assert mass.standard_error.item() < 0.05


@pytest.mark.parametrize("closed", [True, False])
def test_geodesics_are_shortest_up_to_the_antipode(closed: bool) -> None:
    sphere = Sphere(2)
    metric = sphere if closed else charts.OnlyMetric(sphere)
    loc = torch.tensor([[0.2, 0.1]], dtype=torch.float64).expand(4, 2)
    radius = torch.tensor([0.5, 3.0, 3.3, 5.0], dtype=torch.float64)
    v = torch.tensor([[0.6, 0.8]], dtype=torch.float64).expand(4, 2)
    v = radius[:, None] * v / sphere.norm(loc, v)[:, None]
    assert within_cut_locus(metric, loc, sphere.expmap(loc, v), radius).tolist() == [True, True, False, False]
