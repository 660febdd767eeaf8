"""Integrals over a chart by weighed draws against integrals that are known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor

from pyro_riemann import (
    EuclideanMetric,
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    Sphere,
)
from pyro_riemann._formulas import chart_draws, ray_rule
from pyro_riemann._formulas.chart_draws import Verdict
from pyro_riemann.distributions import _judged_mass, _normal_sampler
from pyro_riemann.distributions._judged_rays import Integrand, judged_rays
from pyro_riemann.distributions._over_chart import log_chart_expectation
from pyro_riemann.distributions._radial import log_radial_mass
from pyro_riemann.distributions._rejection import Source, reject
from pyro_riemann.manifolds import Hyperboloid, ScaledMetric
from tests.chart_sums import log_chart_integral
from tests.distributions._shared import F64

LOG_MASS = 0.7


def crescent(z: np.ndarray) -> np.ndarray:
    """Log density of a bent Gaussian in three dimensions times a constant."""
    bent = z[:, 1] - 0.5 * (z[:, 0] ** 2 - 1)
    return np.asarray(
        LOG_MASS - 0.5 * (z[:, 0] ** 2 + 4 * bent**2 + z[:, 2] ** 2) - 1.5 * math.log(2 * math.pi) + math.log(2)
    )


def starts(seed: int, count: int = chart_draws.STARTS) -> np.ndarray:
    """Draws of a law that is near the crescent and not it."""
    noise = 1.2 * np.random.default_rng(seed).normal(size=(count, 3))
    noise[:, 1] = 0.7 * noise[:, 1] + 0.4 * noise[:, 0] ** 2
    return noise


def test_the_stated_error_is_that_of_the_value() -> None:
    found = [chart_draws.log_integral(crescent, crescent, (starts(2 * k), starts(2 * k + 1))) for k in range(30)]
    gaps = np.array([(each.value - LOG_MASS) / each.error for each in found])
    assert 0.6 < np.sqrt(np.mean(gaps**2)) < 1.45
    assert abs(gaps.mean()) < 0.6
    assert max(each.error for each in found) < 0.06
    first = found[0]
    assert first.weights.sum() == pytest.approx(1.0)
    assert first.weights @ first.points[:, 2] ** 2 == pytest.approx(1.0, abs=0.2)
    assert first.num_effective > 0.3 * len(first.points) / 2


def test_a_fit_goes_on_where_the_cheap_density_is_not_the_law() -> None:
    """Neither its height nor its place is that of the target, whose integral is the one that comes out."""

    def elsewhere(z: np.ndarray) -> np.ndarray:
        return crescent(z - np.array([0.0, 0.0, 2.0])) + 5.0

    value, error, *_ = chart_draws.log_integral(elsewhere, crescent, (starts(0), starts(1)))
    assert abs(value - LOG_MASS) < 4 * error
    assert error < 0.1


def test_a_law_of_which_one_draw_alone_is_seen_at_first() -> None:
    """A thirtieth as wide as the paths, which no proposal may collapse on: found, or said to be not."""
    narrow = 0.04

    def peak(z: np.ndarray) -> np.ndarray:
        there = (z - np.array([0.5, 0.3, -0.4])) / narrow
        return np.asarray(LOG_MASS - 0.5 * (there**2).sum(-1) - 1.5 * math.log(2 * math.pi * narrow**2))

    value, error, effective, *_ = chart_draws.log_integral(peak, peak, (starts(0), starts(1)))
    assert abs(value - LOG_MASS) < 4 * error
    assert error < 0.1
    assert effective > 50
    once = chart_draws.log_integral(
        peak, lambda z: np.where(np.arange(len(z)) == 7, 0.0, -np.inf), (starts(0), starts(1))
    )
    assert once.error > 0.5
    assert once.num_effective == pytest.approx(1.0)


def test_two_fits_that_find_different_places_say_so() -> None:
    """Four fifths of the mass are where one fit began, the rest far off where the other did."""

    def two(z: np.ndarray) -> np.ndarray:
        far = crescent(z - np.array([0.0, 0.0, 60.0])) + math.log(0.2)
        return np.asarray(np.logaddexp(crescent(z) + math.log(0.8), far))

    away = starts(1) + np.array([0.0, 0.0, 60.0])
    found = chart_draws.log_integral(two, two, (starts(0), away))
    assert found.error > 0.9 * math.log(4)


def test_where_there_is_no_mass_nothing_is_known() -> None:
    found = chart_draws.log_integral(crescent, lambda z: np.where(z[:, 0] > 1e6, 0.0, -np.inf), (starts(0), starts(1)))
    assert found.error == math.inf
    assert found.num_effective == 0


def test_verdicts() -> None:
    """Of rays and draws the better, unless few of them have all the mass; and what excludes the other says so."""
    draws = Verdict(1.0, 0.03, 200.0)
    assert Verdict(-9.0, 0.5, 3.0).beside(draws) == (draws, True)
    assert Verdict(0.6, 0.09, 30.0).beside(draws) == (draws, True)  # rays err by up to three times what they say
    for rays, error in ((Verdict(0.9, 0.005, 30.0), 0.1), (Verdict(0.97, 0.005, 30.0), 0.005)):
        assert rays.beside(draws) == (rays._replace(error=pytest.approx(error)), False)
    assert Verdict(0.0, 0.09, 30.0).beside(draws) == (draws._replace(error=1.0), True)
    for nothing in (Verdict(-math.inf, math.inf, 0.0), Verdict(5.0, 0.001, 1.5)):
        assert Verdict(0.0, 0.09, 30.0).beside(nothing) == (Verdict(0.0, 0.09, 30.0), False)
    assert draws.is_good()
    assert not draws._replace(error=0.2).is_good()
    assert not draws._replace(num_effective=7.0).is_good()
    assert Verdict(0.0, 0.03, 9.0).is_sure()
    assert not Verdict(0.0, 0.04, 9.0).is_sure()
    assert not Verdict(0.0, 0.03, 7.0).is_sure()


class Unknown(Hyperboloid):
    """Hyperbolic space whose distances are known and whose volume is not."""

    def radial_law(self) -> None:
        """Nothing is known of the volume."""


class UnknownSphere(Sphere):
    """A sphere whose distances are known and whose volume is not."""

    def radial_law(self) -> None:
        """Nothing is known of the volume."""


@pytest.mark.parametrize("dim", (3, 6))
@pytest.mark.parametrize("kinds", ((Hyperboloid, Unknown), (Sphere, UnknownSphere)))
def test_masses_of_spaces_of_constant_curvature(kinds: tuple[type[Sphere], type[Sphere]], dim: int) -> None:
    loc, time = torch.full((dim,), 0.1, dtype=F64), torch.tensor(0.6, dtype=F64)
    exact = RiemannianHeatKernel(loc, time, kinds[0](dim)).log_normalizer().value
    state = torch.get_rng_state()
    found = log_chart_expectation(kinds[1](dim), loc, time)
    assert torch.equal(state, torch.get_rng_state())
    assert abs(found.mass.value - exact) < 4 * found.mass.standard_error
    assert found.mass.standard_error < 0.1
    again = log_chart_expectation(kinds[1](dim), loc, time)
    assert again.mass.value == found.mass.value


def test_draws_stand_in_for_few_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their value, error and slopes in time, centre and scale of the metric."""
    monkeypatch.setattr(chart_draws, "DIRECTIONS_BOUND", math.inf)
    loc = torch.tensor([[0.3, -0.2, 0.1]], dtype=F64, requires_grad=True)
    time, factor = torch.tensor([0.6], dtype=F64, requires_grad=True), torch.tensor(1.5, dtype=F64, requires_grad=True)
    masses = []
    for kind in (Hyperboloid, Unknown):
        value, error = log_radial_mass(ScaledMetric(kind(3), factor), loc, time, Integrand(), None)
        masses.append((value, torch.autograd.grad(value.sum(), (time, factor, loc), allow_unused=True)))
    (exact, slopes), (value, found) = masses
    assert 0.005 < error < 0.05
    assert abs(value - exact) < 4 * error
    torch.testing.assert_close(found[0], slopes[0], rtol=0.15, atol=0)
    torch.testing.assert_close(found[1], slopes[1], rtol=0.15, atol=0)
    torch.testing.assert_close(found[2], torch.zeros_like(loc), rtol=0, atol=0.1)  # all points are alike
    laws = [RiemannianNormal(loc[0].detach(), 0.4, kind(3)) for kind in (Hyperboloid, Unknown)]
    torch.testing.assert_close(laws[1].mean, laws[0].mean, rtol=0, atol=0.1)
    torch.testing.assert_close(laws[1].variance, laws[0].variance, rtol=0.2, atol=0)
    fixed = log_radial_mass(Unknown(3), loc, time, Integrand(), num_directions=16)  # who asks for rays has rays
    assert fixed.value != value


def test_draws_by_points_have_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances from the centre, and the first coordinate, as those of exact radii in the space itself."""
    monkeypatch.setattr(chart_draws, "DIRECTIONS_BOUND", math.inf)
    torch.manual_seed(0)
    loc = torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    laws = [RiemannianNormal(loc, 0.8, kind(3)) for kind in (Hyperboloid, Unknown)]
    assert [law.sampling_report.method for law in laws] == ["exact", "rejection"]
    with monkeypatch.context() as patch:
        patch.setattr(_normal_sampler, "cast_rays", None)  # none is to be followed
        exact, found = (law.sample(torch.Size((4000,))) for law in laws)
    for of in (lambda z: Hyperboloid(3).dist(loc, z), lambda z: z[:, 0]):
        assert scipy.stats.ks_2samp(of(exact).numpy(), of(found).numpy()).pvalue > 1e-3


def test_a_table_that_refuses_points_keeps_to_its_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end at its box, and count what lies beyond as error."""
    monkeypatch.setattr(ray_rule, "_numbers", lambda _: (16,))
    metric = GridMetric(EuclideanMetric(3), -0.5, 0.5, 8, outside="error")
    with pytest.warns(UserWarning, match="normalising constant"):
        value, error = RiemannianHeatKernel(torch.zeros(3), 0.3, metric).log_normalizer()
    inside = 3 * math.log(math.erf(0.5 / math.sqrt(2 * 0.3)))
    assert abs(value - inside) < 0.5
    assert value + error > -0.1


class Walls(RiemannianMetric):
    """Hills and valleys of the volume in the plane, beside straight lines."""

    def __init__(self, dim: int, height: float | Tensor) -> None:
        super().__init__()
        self.dim, self.height = dim, height

    def metric(self, z: Tensor) -> Tensor:
        factor = (self.height * (2 * z[..., 0]).sin() * (2 * z[..., 1]).sin()).exp()
        rest = [torch.ones_like(factor)] * (self.dim - 2)
        return torch.diag_embed(torch.stack([factor, factor, *rest], -1))


@pytest.mark.parametrize("height", (1.8, 2.4))
def test_mass_behind_walls_against_a_sum_over_the_plane(height: float) -> None:
    """The third axis is flat: the mass is that of the plane, where cells can be summed.

    Rays are 0.25 and 0.19 off there, and say 0.09 and 0.14.
    """
    loc, time = torch.tensor([0.3, -0.2, 0.1], dtype=F64), torch.tensor(2.0, dtype=F64)
    plane, its_error = log_chart_integral(Walls(2, height), loc[:2], time)
    assert its_error < 0.01
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value, error = RiemannianNormal(loc, time.sqrt(), Walls(3, height)).log_normalizer()
    assert not any("normalising constant" in str(each.message) for each in said)
    assert error < 0.1
    assert abs(value - (1.5 * math.log(4 * math.pi)) - plane) < 2.5 * error


def test_rays_behind_walls_in_the_plane_do_not_understate_their_errors() -> None:
    """Halves of 256 of them agree to 0.003 where the mass is 0.17 off, by the sum that weighed draws confirm above."""
    loc, time = torch.tensor([0.3, -0.2], dtype=F64), torch.tensor(2.0, dtype=F64)
    plane, its_error = log_chart_integral(Walls(2, 2.4), loc, time)
    rays = judged_rays(Walls(2, 2.4), loc[None], time[None], Integrand(), 256)
    assert rays.error.item() > 0.1
    assert abs(rays.value.item() - plane) < 2 * rays.error.item() + its_error
    value, error = RiemannianNormal(loc, time.sqrt(), Walls(2, 2.4)).log_normalizer()
    assert error < 0.01
    assert abs(value - math.log(4 * math.pi) - plane) < error + its_error


def is_mean_of(values: Tensor, mean: Tensor | float, variance: Tensor | float) -> bool:
    """Whether draws ``(n,)`` have a mean, within four standard errors."""
    return bool((values.mean() - mean).abs() < 4 * (torch.as_tensor(variance) / len(values)) ** 0.5)


def test_draws_and_moments_behind_walls_in_the_plane() -> None:
    """By nodes of a table and its distances, which are not those that the law sums over."""
    torch.manual_seed(0)
    loc, time, metric = torch.tensor([0.3, -0.2], dtype=F64), 2.0, Walls(2, 1.8)
    axes = [at - 9 + (torch.arange(400, dtype=F64) + 0.5) * 0.045 for at in loc.tolist()]
    nodes, table = torch.cartesian_prod(*axes), GridMetric(metric, loc - 9, loc + 9, 200)
    log_density = 0.5 * metric.logdet(nodes) - 0.5 * table.distance_field(loc, 200).squared_dist(nodes) / time
    weights = log_density.softmax(0)

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        mean = weights @ values
        return mean, weights @ (values - mean) ** 2

    law = RiemannianNormal(loc, time**0.5, metric)
    draws = law.sample(torch.Size((4000,)))
    for of in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: (z - loc).square().sum(-1), metric.logdet):
        assert is_mean_of(of(draws), *moments(of(nodes)))
    mean, variance = moments(nodes)
    torch.testing.assert_close(law.mean, mean, rtol=0, atol=0.01)
    torch.testing.assert_close(law.variance, variance, rtol=0.01, atol=0)  # 2.95; rays say 2.06
    assert law.sampling_report == ("cells", 1.0)


def test_slopes_behind_walls_in_the_plane() -> None:
    """In the centre, the scale and the metric, by differences of sums over the chart."""
    loc, scale = torch.tensor([0.3, -0.2], dtype=F64), torch.tensor(2.0, dtype=F64).sqrt()
    height = torch.tensor(1.8, dtype=F64)

    def value(loc: Tensor, scale: Tensor, height: Tensor) -> Tensor:
        return RiemannianNormal(loc, scale, Walls(2, height)).log_normalizer().value

    leaves = [part.clone().requires_grad_() for part in (loc, scale, height)]
    slopes = torch.autograd.grad(value(*leaves), leaves)
    for number, (step, tolerance) in enumerate(((0.1, 0.06), (0.05, 0.02), (0.1, 0.06))):
        for axis in range(loc.numel() if number == 0 else 1):
            ends = []
            for sign in (1, -1):
                parts = [loc.clone(), scale.clone(), height.clone()]
                parts[number].view(-1)[axis] += sign * step
                ends.append(value(*parts))
            found = (ends[0] - ends[1]) / (2 * step)
            assert abs(slopes[number].view(-1)[axis] - found) < tolerance, (number, axis)


def test_draws_behind_walls_above_two_dimensions() -> None:
    """The third axis is flat: that of a normal law, beside draws whose mean squared distance the plane tells."""
    torch.manual_seed(0)
    loc = torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    law, plane = RiemannianNormal(loc, 2.0**0.5, Walls(3, 1.8)), RiemannianNormal(loc[:2], 2.0**0.5, Walls(2, 1.8))
    away = law.sample(torch.Size((200,))) - loc
    assert is_mean_of(away[:, 2], 0.0, 2.0)
    assert is_mean_of(away[:, 2] ** 2, 2.0, 8.0)
    squared = (plane.variance + (plane.mean - loc[:2]) ** 2).sum()
    assert is_mean_of(away[:, :2].square().sum(-1), squared, 2 * squared**2)


def test_what_is_heavier_than_the_bound_raises_it() -> None:
    """Two laws on the line with one rare heavy end each, of which those seen before know nothing."""
    torch.manual_seed(0)
    heavy = torch.tensor([0.9, 0.99], dtype=F64)

    def propose(law: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.rand(len(law), 1, dtype=F64)
        return z, torch.where(z[:, 0] > heavy[law], 9.0, 0.5).to(z).log()

    source = Source(torch.arange(2), propose, torch.full((32, 2), math.log(0.5), dtype=F64))
    law = torch.arange(2).repeat(4000)
    z = reject(source, law, 1)[:, 0]
    for row, end in enumerate(heavy.tolist()):
        share = 9 * (1 - end) / (9 * (1 - end) + 0.5 * end)
        assert is_mean_of((z[law == row] > end).double(), share, share * (1 - share))


def test_draws_on_few_of_what_was_proposed_say_so() -> None:
    """One in a hundred has all the mass, and so has one of those that were seen before."""
    torch.manual_seed(0)

    def propose(law: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.rand(len(law), 1, dtype=F64)
        return z, torch.where(z[:, 0] > 0.99, 14.0, 0.0).to(z)

    source = Source(torch.zeros(1, dtype=torch.long), propose, 14 * torch.eye(64, dtype=F64)[:, :1])
    with pytest.warns(UserWarning, match="had the mass"), pytest.warns(UserWarning, match="is accepted"):
        z = reject(source, torch.zeros(2, dtype=torch.long), 1)
    assert (z > 0.99).all()


def bent(z: Tensor) -> Tensor:
    """Space, bent into itself."""
    return z + 0.3 * torch.stack([z[..., 1].sin(), z[..., 2].sin(), z[..., 0].cos()], -1)


def test_where_rays_are_dear_none_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat space through a curved chart, whose mass is 1, at every centre of a batch, each time with its slope."""

    def refuse(*_: object) -> None:
        raise AssertionError("no rays are to be followed here")

    monkeypatch.setattr(ray_rule, "_BUDGET", 0.0)
    metric = PullbackMetric(bent, 3, jitter=0.0)
    metric.weight = torch.nn.Parameter(torch.ones(1, dtype=F64), requires_grad=False)
    with monkeypatch.context() as patch:
        patch.setattr(_judged_mass, "judged_rays", refuse)
        loc = torch.tensor([[0.3, -0.2, 0.1], [1.0, 0.5, 0.0]], dtype=F64)
        time = torch.tensor([0.5, 0.2], dtype=F64, requires_grad=True)
        value, error = log_radial_mass(metric, loc, time, Integrand(), None)
    assert (value.abs() < 4 * error).all()
    assert (error < 0.06).all()
    (slope,) = torch.autograd.grad(value.sum(), time)
    torch.testing.assert_close(slope * time, torch.zeros_like(time), rtol=0, atol=0.15)
