"""Normalising constants and draws of radial laws against exact ones, where tangent Gaussians see none of the mass."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    Sphere,
    WarpedMetric,
)
from pyro_riemann._formulas import chart_sum, ray_rule
from pyro_riemann.distributions import _rays
from pyro_riemann.distributions._judged_mass import _summed_over_chart
from pyro_riemann.distributions._judged_rays import Cast, Integrand, judged_rays, log_ratio_of
from pyro_riemann.distributions._over_chart import chart_of, to_host
from pyro_riemann.distributions._radial import log_radial_mass
from pyro_riemann.distributions._rays import RayRule, cast_rays
from pyro_riemann.distributions._rejection import along
from pyro_riemann.distributions._tangent import default_nodes, log_tangent_expectation
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from tests.charts import OnlyMetric, shear, unshear, warped_hyperbolic, warped_sphere, warped_torus
from tests.distributions._shared import F64, derivative, paraboloid


def radial(dim: int, scale: float, curvature: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Radii, distribution function of the radius, and log C, by Simpson's rule in logarithms."""
    end = math.pi if curvature > 0 else scale**2 * (dim - 1) + 12 * scale + 3
    r = np.linspace(0, end, 40_001)
    with np.errstate(divide="ignore"):
        log_sine = np.log(np.sin(r).clip(0)) if curvature > 0 else r + np.log1p(-np.exp(-2 * r)) - math.log(2)
        logs = -(r**2) / (2 * scale**2) + ((dim - 1) * log_sine if dim > 1 else 0)
    mass = integrate.cumulative_simpson(np.exp(logs - logs.max()), x=r, initial=0)
    area = math.log(2) + dim / 2 * math.log(math.pi) - special.gammaln(dim / 2)
    return r, mass / mass[-1], area + math.log(mass[-1]) + logs.max()


@pytest.mark.parametrize("dim", (1, 2, 3, 8, 16, 200))
@pytest.mark.parametrize("curvature", (1, -1))
def test_constants_of_space_forms_at_all_scales(dim: int, curvature: int) -> None:
    scales = torch.tensor([0.1, 0.6, 1.4, 3.0], dtype=F64)
    metric = Sphere(dim) if curvature > 0 else Hyperboloid(dim)
    value, error = RiemannianNormal(torch.zeros(4, dim, dtype=F64), scales, metric).log_normalizer()
    for scale, one in zip(scales.tolist(), value.tolist(), strict=True):
        assert abs(one / radial(dim, scale, curvature)[2] - 1) < 1e-9
    assert (error < 1e-9).all()


def test_constants_do_not_depend_on_the_chart() -> None:
    for plain, warped in ((Sphere(5), warped_sphere(5)), (Hyperboloid(5), warped_hyperbolic(5))):
        x = 0.1 * torch.arange(5, dtype=F64)
        values = [RiemannianNormal(z, 1.3, m).log_normalizer().value for z, m in ((x, plain), (unshear(x), warped))]
        assert abs(values[0] - values[1]) < 1e-10


def test_constants_of_a_batch_that_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rays as go at once are those of two laws: each of three has the constant of a sphere at its scale."""

    class Unknown(Sphere):
        def radial_law(self) -> None:
            """Nothing is known of the volume."""

    monkeypatch.setattr(_rays, "_RAYS", 32)
    loc, scale = torch.full((3, 2), 0.2, dtype=F64), torch.tensor([0.2, 0.5, 1.0], dtype=F64)
    exact = RiemannianNormal(loc, scale, Sphere(2)).log_normalizer().value
    value = RiemannianNormal(loc, scale, Unknown(2), num_directions=16).log_normalizer().value
    torch.testing.assert_close(value, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("integrand", [Integrand(), Integrand(0.5), Integrand(0.5, True)])
def test_constants_by_a_rule_in_the_tangent_space(integrand: Integrand) -> None:
    """As a trace has them: a Gaussian, times what the law has beside it."""
    loc, variance = torch.tensor([[0.3, -0.2], [0.0, 0.5]], dtype=F64), torch.tensor([0.3, 0.05], dtype=F64)
    for metric in (Hyperboloid(2), Sphere(2)):
        exact = log_radial_mass(metric, loc, variance, integrand, None).value
        ratio = log_ratio_of(metric, loc, variance, integrand)
        value = log_tangent_expectation(metric, loc, variance, default_nodes(2), ratio).value
        torch.testing.assert_close(value, exact, rtol=0, atol=2e-4)


def box_of_rays(metric: RiemannianMetric, cast: Cast) -> tuple[Tensor, Tensor, float]:
    """Of those of the only centre."""
    points, weights = to_host(cast.points()[:, 0]), to_host(cast.weights()[:, 0])
    low, high, beyond = chart_sum.box_of_rays(chart_of(metric, cast.value), points, weights)
    return torch.from_numpy(low), torch.from_numpy(high), beyond


def test_a_sum_over_the_chart_stands_in_for_rays_that_have_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it errs less; where both exclude each other, the gap between them is the error, whichever is taken."""
    metric, loc, variance = EuclideanMetric(2), torch.tensor([[0.3, -0.2]], dtype=F64), torch.tensor([0.2], dtype=F64)
    monkeypatch.setattr(chart_sum, "_RESOLUTIONS", {2: (12, 16)})  # coarse, and soon done
    cast = judged_rays(metric, loc, variance, Integrand(), 64)
    low, high, beyond = box_of_rays(metric, cast)
    torch.testing.assert_close(low + high, 2 * loc[0], rtol=0, atol=0.1)
    assert beyond < 2e-3
    assert bool(((high - low) / variance.sqrt() > 6).all())
    assert bool(((high - low) / variance.sqrt() < 12).all())
    for error, value, gap in ((1.0, 0.3, 0.0), (0.02, 0.3, 0.3), (0.2, 2.0, 2.0)):
        unsettled = cast._replace(value=torch.full((1,), value, dtype=F64), error=torch.full((1,), error, dtype=F64))
        found, cells = _summed_over_chart(metric, loc, variance, unsettled)
        assert cells[0].mean_squared == pytest.approx(2 * variance.item(), abs=5e-3)
        assert found.value.item() == pytest.approx(0.0, abs=2e-3)
        assert found.error.item() == pytest.approx(gap, abs=2e-2)
    assert _summed_over_chart(metric, loc, variance, cast)[0] is cast


def test_a_sum_over_the_chart_of_a_table_keeps_to_its_box() -> None:
    """Of one that holds the mass; of one that does not, and has a metric beyond it, the box that rays ask is larger."""
    loc, variance = torch.zeros(1, 2, dtype=F64), torch.tensor([0.05], dtype=F64)
    cast = judged_rays(EuclideanMetric(2), loc, variance, Integrand(), 64)
    for half, own in ((2.0, True), (0.3, False)):
        low, high, beyond = box_of_rays(GridMetric(EuclideanMetric(2), -half, half, 8), cast)
        assert bool(((high == half) & (low == -half)).all()) == own
        assert beyond < 2e-3
    alone = GridMetric(EuclideanMetric(2), -0.3, 0.3, 8, outside="nearest").alone()
    missing = 1 - math.erf(0.3 / math.sqrt(2 * 0.05)) ** 2
    assert box_of_rays(alone, cast)[2] == pytest.approx(missing, abs=0.1)


def test_slopes_of_a_heat_kernel_s_constant_without_closed_forms() -> None:
    loc, metric = torch.tensor([[0.3, -0.2]], dtype=F64, requires_grad=True), Hyperboloid(2)
    variance, integrand = torch.tensor([0.2], dtype=F64, requires_grad=True), Integrand(0.5, True)
    exact = torch.autograd.grad(log_radial_mass(metric, loc, variance, integrand, None).value.sum(), variance)[0]
    value = log_radial_mass(OnlyMetric(metric), loc, variance, integrand, num_directions=16).value
    by_loc, by_variance = torch.autograd.grad(value.sum(), (loc, variance))
    torch.testing.assert_close(by_variance, exact, rtol=1e-2, atol=0)
    torch.testing.assert_close(by_loc, torch.zeros_like(loc), rtol=0, atol=1e-3)  # all points are alike


def test_nodes_of_rays_in_the_hyperbolic_plane() -> None:
    """They lie as far as they say, where geodesics have spread by sinh r, and move at unit speed."""
    metric, loc = Hyperboloid(2), torch.tensor([[0.3, -0.2]], dtype=F64)
    white = torch.nn.functional.normalize(torch.randn(3, 1, 2, dtype=F64), dim=-1)
    rule, _ = cast_rays(OnlyMetric(metric), loc, torch.tensor([0.5], dtype=F64), white, 1.0, check=False)
    used = rule.width > 0
    radius, point = rule.radius[used], rule.point[used]
    torch.testing.assert_close(metric.dist(loc, point), radius, rtol=0, atol=1e-3)
    torch.testing.assert_close(metric.norm(point, rule.velocity[used]), torch.ones_like(radius), rtol=0, atol=1e-3)
    torch.testing.assert_close(rule.log_area[used], radius.sinh().log(), rtol=0, atol=1e-3)


def test_torus_up_to_its_cut_locus() -> None:
    """Smooth in time, which the mass of a cut Gaussian is, and the same through a chart that is not flat."""
    period, times = 2.2, torch.linspace(0.05, 3.0, 60, dtype=F64, requires_grad=True)
    loc = torch.tensor([0.3, -0.1], dtype=F64).expand(60, 2)
    exact = 2 * (period / (8 * times) ** 0.5).erf().log()
    (slope,) = torch.autograd.grad(exact.sum(), times)
    for metric in (FlatTorus(2, period), warped_torus(2, period)):
        mass, error = RiemannianHeatKernel(loc, times, metric).log_normalizer()
        torch.testing.assert_close(mass, exact, rtol=0, atol=1e-12)
        assert (error == 0).all()
        torch.testing.assert_close(torch.autograd.grad(mass.sum(), times)[0], slope, rtol=0, atol=1e-10)


@pytest.mark.parametrize("time", (0.3, 2.0))
def test_rays_of_a_torus_end_at_its_cut_locus(time: float) -> None:
    """The side of a square about the centre; bisection alone comes within a few percent of it."""
    angle = torch.linspace(0.1, 1.4, 9, dtype=F64)
    white, centre = torch.stack([angle.cos(), angle.sin()], -1)[:, None], torch.zeros(1, 2, dtype=F64)
    rule, _ = cast_rays(FlatTorus(2, 2.2), centre, torch.tensor([time], dtype=F64), white, 1.0, check=False)
    off = (rule.cut - 1.1 / torch.maximum(angle.cos(), angle.sin())).abs()
    assert (off < 0.5 * rule.doubt).all()
    assert (off < 7e-3).all()
    assert (rule.doubt < 0.05).all()


@pytest.mark.parametrize("time", (0.3, 2.0))
def test_mass_on_a_user_written_sphere_across_its_cut_locus(time: float) -> None:
    metric, loc = Sphere(3), torch.tensor([0.3, 0.1, -0.2], dtype=F64)
    exact = RiemannianHeatKernel(loc, time, metric, "van_vleck_curvature").log_normalizer().value
    kernel = RiemannianHeatKernel(loc, time, OnlyMetric(metric), "van_vleck_curvature", num_directions=16)
    value, error = kernel.log_normalizer()
    assert abs(value - exact) < 5 * error
    assert error < 0.01


def test_mass_of_a_hill_against_a_sum_over_the_chart() -> None:
    """By symmetry the distances from the top are those along straight lines."""

    def hill(z: Tensor) -> Tensor:
        return torch.cat([z, 3 * torch.exp(-z.square().sum(-1, keepdim=True))], -1)

    metric, time = PullbackMetric(hill, 2, jitter=0.0), 0.7
    rho = torch.linspace(0, 8, 80_001, dtype=F64)
    speed = (1 + (6 * rho * (-rho.square()).exp()).square()).sqrt()
    length = torch.cat([torch.zeros(1, dtype=F64), torch.cumulative_trapezoid(speed, rho)])
    exact = torch.trapezoid(rho * speed * (-length.square() / (2 * time)).exp() / time, rho).log()
    value, error = RiemannianHeatKernel(torch.zeros(2, dtype=F64), time, metric).log_normalizer()
    assert abs(value - exact) < 3 * error + 1e-6
    assert error < 0.01


@pytest.mark.parametrize("half", (0.9, 3.5))
def test_mass_on_a_table_on_its_own_counts_what_is_missing_as_error(half: float) -> None:
    """Rays that leave the box end there, alone: on a flat table the value is the box's mass, the error the rest."""
    time, corner, loc = 0.3, torch.full((2,), half, dtype=F64), torch.tensor([0.2, -0.1], dtype=F64)
    flat = torch.tensor([[1.5, 0.4], [0.4, 0.8]], dtype=F64)
    table = GridMetric(ConstantMetric(flat), -corner, corner, 8, "error")
    law = RiemannianHeatKernel(loc, time, table)
    axis = half * (torch.arange(600, dtype=F64) + 0.5 - 300) / 300
    gauss = torch.distributions.MultivariateNormal(loc, precision_matrix=flat / time)
    inside = (gauss.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (half / 300) ** 2).log()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, error = law.log_normalizer()
    assert any("a stated error of" in str(warning.message) for warning in caught) == (half < 1)
    assert abs(value - inside) < 2e-3
    assert abs(value) < error < (2 if half < 1 else 0.01)


class OwnTorus(RiemannianMetric):
    """A flat torus of period 2 by its tensor and its distances: rays stop being shortest before they meet again."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.eye(2, dtype=z.dtype).expand(*z.shape, 2)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return (y - z - 2 * ((y - z) / 2).round()).square().sum(-1)


@pytest.mark.parametrize("scale", (0.5, 1.2))
def test_rays_end_at_the_cut_locus(scale: float) -> None:
    loc = torch.tensor([0.1, 0.2], dtype=F64)
    value = RiemannianNormal(loc, scale, OwnTorus(), num_directions=64).log_normalizer().value
    exact = 2 * math.log(2 * integrate.quad(lambda x: math.exp(-((x / scale) ** 2) / 2), 0, 1)[0])
    assert abs(value.item() - exact) < 1e-3


def test_rejected_are_directions_in_which_the_cut_locus_is_near() -> None:
    """Axes are cut off normals; of a ray of length R, at most sqrt 2, the share 1 - exp(-R^2 / 2 s^2) is left."""
    torch.manual_seed(0)
    loc, scale = torch.tensor([0.2, 0.1], dtype=F64), 0.7
    normal = RiemannianNormal(loc, scale, OwnTorus(), num_directions=64)
    method, efficiency = normal.sampling_report
    inside = math.erf(1 / scale / math.sqrt(2)) ** 2
    assert method == "rejection"
    assert efficiency == pytest.approx(inside / -math.expm1(-1 / scale**2), rel=0.03)
    z, law = normal.sample((400,)) - loc, stats.truncnorm(-1 / scale, 1 / scale, scale=scale)
    for axis in range(2):
        assert stats.kstest(z[:, axis].numpy(), law.cdf).pvalue > 1e-3
    torch.testing.assert_close(normal.variance, torch.full((2,), law.var(), dtype=F64), rtol=0.01, atol=0)


# ---------------------------------------------------------------- gradients


def test_gradients_are_those_of_the_value_with_and_without_modes() -> None:
    metric = paraboloid(0.6)
    loc = torch.tensor([0.4, 0.3], dtype=F64, requires_grad=True)
    scale = torch.tensor(0.5, dtype=F64, requires_grad=True)

    def value(centre: Tensor, s: Tensor, law: RiemannianMetric) -> Tensor:
        return RiemannianNormal(centre, s, law, num_directions=16).log_normalizer().value

    bend = next(metric.parameters())
    with_graph = value(loc, scale, metric)
    with torch.no_grad():
        assert torch.equal(value(loc, scale, metric), with_graph)
    assert torch.equal(value(loc, scale, metric.eval()), with_graph)
    slopes = torch.autograd.grad(with_graph, (loc, scale, bend))
    direction = torch.tensor([0.6, -0.8], dtype=F64)
    step = 1e-3
    with torch.no_grad():
        moved = [
            (value(loc + h * direction, scale, metric), value(loc, scale + h, metric), value(loc, scale, bent))
            for h, bent in ((step, paraboloid(0.6 + step)), (-step, paraboloid(0.6 - step)))
        ]
    differences = [(one - other) / (2 * step) for one, other in zip(*moved, strict=True)]
    assert abs(slopes[0] @ direction - differences[0]) < 1e-4
    assert abs(slopes[1] - differences[1]) < 1e-4
    assert abs(slopes[2] - differences[2]) < 1e-4


@pytest.mark.parametrize("metric", [HalfSpace(3), Sphere(3)], ids=["H3", "S3"])
def test_mean_score_of_the_draws_is_zero(metric: RiemannianMetric) -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.3, -0.2, 0.1], dtype=F64, requires_grad=True).expand(3000, 3)
    scale = torch.tensor(0.9, dtype=F64, requires_grad=True).expand(3000)
    normal = RiemannianNormal(loc, scale, metric)
    score = torch.cat(
        [g.reshape(3000, -1) for g in torch.autograd.grad(normal.log_prob(normal.sample()).sum(), (loc, scale))], 1
    )
    assert (score.mean(0).abs() < 4 * score.std(0) / 3000**0.5).all()


def test_slope_of_a_closed_form_in_the_scale() -> None:
    scale = torch.tensor(1.5, dtype=F64, requires_grad=True)

    def value(s: Tensor) -> Tensor:
        return RiemannianNormal(torch.zeros(7, dtype=F64), s, Sphere(7)).log_normalizer().value

    (slope,) = torch.autograd.grad(value(scale), scale)
    assert abs(slope - derivative(value, scale)) < 1e-9


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize("dim", (2, 3, 8, 20))
@pytest.mark.parametrize("curvature", (1, -1))
@pytest.mark.parametrize("scale", (0.4, 1.8))
def test_radii_and_directions_of_the_draws(dim: int, curvature: int, scale: float) -> None:
    torch.manual_seed(1)
    metric = warped_sphere(dim) if curvature > 0 else HalfSpace(dim)
    loc = 0.1 * torch.ones(dim, dtype=F64)
    z = RiemannianNormal(loc, scale, metric).sample((4000,))
    r, cdf, _ = radial(dim, scale, curvature)
    distance = metric.dist(loc.expand_as(z), z)
    assert stats.kstest(distance.numpy(), lambda x: np.interp(x, r, cdf)).pvalue > 1e-3
    white = (metric.logmap(loc.expand_as(z), z)[:, None] @ metric.cholesky(loc)).squeeze(1)
    cosine = (white[:, 0] / white.norm(dim=-1)).numpy()
    beta = stats.beta((dim - 1) / 2, (dim - 1) / 2, loc=-1, scale=2)
    assert stats.kstest(cosine, beta.cdf).pvalue > 1e-3


def test_draws_on_a_torus_are_cut_off_normals() -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.4, -2.0], dtype=F64)
    normal = RiemannianNormal(loc, 1.1, FlatTorus(2, [2.0, math.inf]))
    z = normal.sample((4000,)) - loc
    law = stats.truncnorm(-1 / 1.1, 1 / 1.1, scale=1.1)
    torch.testing.assert_close(normal.mean, loc)
    torch.testing.assert_close(normal.variance, torch.tensor([law.var(), 1.1**2], dtype=F64))
    assert stats.kstest(z[:, 0].numpy(), law.cdf).pvalue > 1e-3
    assert 0.99 < z[:, 0].abs().max() <= 1
    assert stats.kstest(z[:, 1].numpy(), stats.norm(scale=1.1).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "metric, curvature, scale",
    [
        pytest.param(HalfSpace(3), -1, 1.0, id="H3"),
        pytest.param(Sphere(2), 1, 1.5, id="S2", marks=pytest.mark.slow),
        pytest.param(HalfSpace(8), -1, 1.0, id="H8", marks=pytest.mark.slow),
    ],
)
def test_draws_without_closed_forms(metric: RiemannianMetric, curvature: int, scale: float) -> None:
    torch.manual_seed(0)
    loc = 0.1 * torch.ones(metric.dim, dtype=F64)
    normal = RiemannianNormal(loc, scale, OnlyMetric(metric), num_directions=16)
    z = normal.sample((400,))
    r, cdf, _ = radial(metric.dim, scale, curvature)
    distance = metric.dist(loc.expand_as(z), z).numpy()
    assert stats.kstest(distance, lambda x: np.interp(x, r, cdf)).pvalue > 1e-3
    report = normal.sampling_report
    assert report.method == "rejection"
    assert report.efficiency > 0.9


@pytest.mark.parametrize("metric, curvature", [(Sphere(8), 1), (HalfSpace(8), -1)], ids=["S8", "H8"])
def test_radii_along_rays_in_eight_dimensions(metric: RiemannianMetric, curvature: int) -> None:
    torch.manual_seed(2)
    loc = 0.1 * torch.ones(8, dtype=F64)
    z = RiemannianNormal(loc, 0.7, OnlyMetric(metric), num_directions=16).sample((200,))
    r, cdf, _ = radial(8, 0.7, curvature)
    distance = metric.dist(loc.expand_as(z), z).numpy()
    assert stats.kstest(distance, lambda x: np.interp(x, r, cdf)).pvalue > 1e-3


def test_radii_along_one_ray_have_their_law_between_its_nodes_too() -> None:
    torch.manual_seed(0)
    metric, time = Hyperboloid(2), torch.tensor(0.81, dtype=F64)
    loc, white = torch.tensor([[0.3, -0.2]], dtype=F64), torch.tensor([[[0.6, 0.8]]], dtype=F64)
    rule, _ = cast_rays(OnlyMetric(metric), loc, time.expand(1), white, 1.0, check=False)
    many = RayRule(*(part.repeat_interleave(20_000, min(part.dim() - 1, 1)) for part in rule))
    z = along(many, many.log_integrand(time, 1.0))
    r, cdf, _ = radial(2, 0.9, -1)
    assert stats.kstest(metric.dist(loc, z).numpy(), lambda x: np.interp(x, r, cdf)).pvalue > 1e-3


def test_rays_that_come_to_no_end_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_rule, "MAX_STEPS", 6)
    normal = RiemannianNormal(torch.zeros(2, dtype=F64), 1.0, OnlyMetric(Hyperboloid(2)), num_directions=16)
    with pytest.warns(UserWarning, match="stated error"):
        value, error = normal.log_normalizer()
    assert error > 0.1
    assert torch.isfinite(value)


def test_wrappers_pass_on_what_they_know() -> None:
    twice = WarpedMetric(WarpedMetric(Sphere(2), (shear, unshear)), (shear, unshear))
    assert twice.radial_law() == (1.0, None)
    assert OnlyMetric(Sphere(2)).radial_law() is None
