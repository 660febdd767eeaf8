"""The short-time density of Brownian motion against exact heat kernels, and its mass, gradients and draws."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    Hyperbolic,
    RiemannianHeatKernel,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
)
from tests.charts import half_space_log_height, hyperboloid_chart, sphere_pullback, warped_sphere
from tests.distributions._shared import (
    CENTRES,
    F64,
    SPHERES,
    derivative,
    from_sphere,
    paraboloid,
    sphere_rule,
    total_mass,
    twisted_sphere,
)

CORRECTIONS = ("none", "van_vleck", "van_vleck_curvature", "kalatzis2020")
MASS = {"none": 0.96732391, "van_vleck": 0.98338681, "van_vleck_curvature": 0.99991393}  # S^2 at time 0.1
TIME = torch.tensor(0.1, dtype=F64)


def constant(dim: int = 3, seed: int = 0) -> ConstantMetric:
    root = torch.randn(dim, dim, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return ConstantMetric(root @ root.mT + torch.eye(dim, dtype=F64))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_constant_metric_gives_the_multivariate_normal(correction: str) -> None:
    torch.manual_seed(0)
    metric = constant()
    loc, time, z = torch.randn(4, 3, dtype=F64), torch.rand(5, 1, dtype=F64) + 0.1, torch.randn(7, 5, 4, 3, dtype=F64)
    kernel = RiemannianHeatKernel(loc, time, metric, correction)
    normal = MultivariateNormal(loc.expand(5, 4, 3), time[..., None, None] * torch.linalg.inv(metric.matrix))
    # the paper's density is one for sqrt(det G(loc)) dz
    offset = 0.5 * torch.logdet(metric.matrix) if correction == "kalatzis2020" else 0.0
    assert kernel.batch_shape == (5, 4)
    assert (kernel.log_prob(z) + offset - normal.log_prob(z)).abs().max() < 1e-10
    assert (kernel.log_normalizer().value + offset).abs().max() < 1e-12
    normalized = RiemannianHeatKernel(loc, time, metric, correction, normalize=True)
    assert (normalized.log_prob(z) - normal.log_prob(z)).abs().max() < 1e-10


# ---------------------------------------------------------------- exact laws


@pytest.mark.parametrize("chart", SPHERES)
@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("correction", MASS)
def test_mass_on_the_sphere_at_every_centre_in_every_chart(chart: str, centre: list[float], correction: str) -> None:
    metric = SPHERES[chart]
    loc = from_sphere(metric, torch.tensor(centre, dtype=F64))
    kernel = RiemannianHeatKernel(loc, TIME, metric, correction)
    mass = total_mass(kernel.log_prob, metric, *sphere_rule(metric))
    assert abs(mass - MASS[correction]) < 1e-7
    estimate = kernel.log_normalizer()
    assert abs(estimate.value.exp().item() - mass) < 1e-7
    assert estimate.standard_error < 1e-6
    normalized = RiemannianHeatKernel(loc, TIME, metric, correction, normalize=True)
    assert abs(kernel.log_prob(loc) - normalized.log_prob(loc) - estimate.value) < 1e-12
    assert normalized.log_mass().value == 0


def test_mean_log_errors_on_the_sphere() -> None:
    metric = warped_sphere(2)
    loc = from_sphere(metric, torch.tensor([0.7, -0.4], dtype=F64))
    z, weights = sphere_rule(metric)
    exact = metric.log_heat_kernel(loc.expand_as(z), z, TIME)
    for correction, expected in (("none", 3.3e-2), ("van_vleck", 1.7e-2), ("van_vleck_curvature", 9e-5)):
        density = RiemannianHeatKernel(loc, TIME, metric, correction).log_prob(z) - 0.5 * metric.logdet(z)
        error = (weights * exact.exp() * (density - exact).abs()).sum().item()
        assert abs(error / expected - 1) < 0.06, correction


def test_both_corrections_on_the_sphere_within_a_ten_thousandth() -> None:
    metric = warped_sphere(2)
    loc = from_sphere(metric, torch.tensor([0.7, -0.4], dtype=F64))
    z, weights = sphere_rule(metric)
    exact = metric.log_heat_kernel(loc.expand_as(z), z, TIME)
    kernel = RiemannianHeatKernel(loc, TIME, metric, "van_vleck_curvature")
    density = kernel.log_prob(z) - 0.5 * metric.logdet(z)
    assert (weights * (density.exp() - exact.exp()).abs()).sum() < 1e-4


def test_errors_fall_at_the_rate_of_the_order() -> None:
    metric = warped_sphere(2)
    loc = torch.tensor([0.2, 0.1], dtype=F64)
    for correction, rate in (("van_vleck", 2.0), ("van_vleck_curvature", 4.0)):
        errors = []
        for time in (0.04, 0.02):
            kernel = RiemannianHeatKernel(loc, torch.tensor(time, dtype=F64), metric, correction)
            exact = metric.log_heat_kernel(loc, loc, time) + 0.5 * metric.logdet(loc)
            errors.append((kernel.log_prob(loc) - exact).abs().item())
        assert abs(errors[0] / errors[1] / rate - 1) < 0.2, (correction, errors)


@pytest.mark.parametrize("metric", [Hyperbolic(3), half_space_log_height(3)], ids=["ball", "half-space"])
def test_exact_on_hyperbolic_three_space(metric: Hyperbolic) -> None:
    torch.manual_seed(0)
    loc, z = torch.tensor([0.1, -0.2, 0.3], dtype=F64), torch.rand(200, 3, dtype=F64) - 0.5
    kernel = RiemannianHeatKernel(loc, TIME, metric, "van_vleck_curvature")
    exact = metric.log_heat_kernel(loc.expand_as(z), z, TIME) + 0.5 * metric.logdet(z)
    assert (kernel.log_prob(z) - exact).abs().max() < 1e-12


def test_exact_on_the_three_sphere_before_the_images_matter() -> None:
    metric = warped_sphere(3)
    torch.manual_seed(0)
    loc = torch.tensor([0.1, -0.2, 0.3], dtype=F64)
    z = metric.expmap(loc.expand(100, 3), 0.15 * torch.randn(100, 3, dtype=F64))
    kernel = RiemannianHeatKernel(loc, TIME, metric, "van_vleck_curvature")
    exact = metric.log_heat_kernel(loc.expand_as(z), z, TIME) + 0.5 * metric.logdet(z)
    assert (kernel.log_prob(z) - exact).abs().max() < 1e-10


def test_mass_where_curvature_varies_is_second_order() -> None:
    metric = paraboloid()
    loc, times = torch.tensor([0.4, 0.3], dtype=F64), torch.tensor([0.02, 0.01], dtype=F64)
    with torch.no_grad():
        plain = RiemannianHeatKernel(loc, times, metric, "van_vleck").log_normalizer().value
        both = RiemannianHeatKernel(loc, times, metric, "van_vleck_curvature").log_normalizer().value
    assert abs(plain[0] / plain[1] / 2 - 1) < 0.15
    assert abs(both[0] / both[1] / 4 - 1) < 0.15
    assert (both.abs() < 0.1 * plain.abs()).all()


def test_the_curvature_of_both_ends_is_in_the_density() -> None:
    """Of the graph of a (x^2 + 2 y^2) / 2, where R = 4 a^2 / (1 + a^2 (x^2 + 4 y^2))^2."""
    metric = paraboloid(0.8)
    loc, z = torch.tensor([[0.1, 0.0], [0.5, 0.4]], dtype=F64)
    curvature = [4 * 0.64 / (1 + 0.64 * (x.square() + 4 * y.square())) ** 2 for x, y in (loc, z)]
    assert curvature[0] > 2 * curvature[1]
    laws = [RiemannianHeatKernel(loc, TIME, metric, correction) for correction in ("van_vleck", "van_vleck_curvature")]
    plain, both = (law.log_prob(z) for law in laws)
    torch.testing.assert_close(both - plain, TIME * (curvature[0] + curvature[1]) / 24)


# ---------------------------------------------------------------- charts


@pytest.mark.parametrize("correction", ("none", "van_vleck", "van_vleck_curvature"))
def test_density_in_dM_does_not_depend_on_the_chart(correction: str) -> None:
    torch.manual_seed(0)
    x = 0.5 * torch.randn(6, 2, dtype=F64)
    y = x + 0.15 * torch.randn(6, 2, dtype=F64)
    values = []
    for metric in (Sphere(2), warped_sphere(2), sphere_pullback(2)):
        if isinstance(metric, Sphere):
            loc, z = x, y
        else:
            loc, z = warped_sphere(2).from_base(x), warped_sphere(2).from_base(y)
        density = RiemannianHeatKernel(loc, TIME, metric, correction).log_prob(z)
        values.append(density - 0.5 * metric.logdet(z))
    assert (values[0] - values[1]).abs().max() < 1e-11
    assert (values[0] - values[2]).abs().max() < 1e-5  # nothing in closed form


def test_the_density_of_the_paper_depends_on_centre_and_chart() -> None:
    masses = {}
    for name, metric in SPHERES.items():
        for centre in [(0.0, 0.0), (0.7, -0.4), (3.0, 2.0)]:
            loc = from_sphere(metric, torch.tensor(centre, dtype=F64))
            kernel = RiemannianHeatKernel(loc, TIME, metric, "kalatzis2020")
            masses[name, centre] = kernel.log_normalizer().value.exp().item()
            if name == "stereographic":
                mass = total_mass(kernel.log_prob, metric, *sphere_rule(metric))
                assert mass == pytest.approx(masses[name, centre], rel=1e-6)
    assert masses["stereographic", (0.0, 0.0)] == pytest.approx(0.24183, abs=1e-5)
    assert masses["stereographic", (3.0, 2.0)] == pytest.approx(47.3989, abs=1e-3)
    centre = (0.7, -0.4)
    assert abs(masses["warped", centre] / masses["stereographic", centre] - 1) > 0.1


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize(
    "metric, cosine, rate", [(twisted_sphere(0.6)[0], torch.cos, -1.0), (hyperboloid_chart(2), torch.cosh, 1.0)]
)
def test_draws_follow_brownian_motion(metric: WarpedMetric, cosine: Callable[[Tensor], Tensor], rate: float) -> None:
    torch.manual_seed(0)
    loc, time = torch.tensor([0.6, -0.3], dtype=F64), 0.25
    z = RiemannianHeatKernel(loc, time, metric, num_steps=32).sample((4000,))
    values, expected = cosine(metric.dist(loc.expand_as(z), z)), math.exp(rate * time)
    # 4e-3: the discretisation, as measured with 32 steps
    assert abs(values.mean() - expected) < 4 * values.std() / len(z) ** 0.5 + 4e-3 * expected


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "correction, normalize", [*((name, False) for name in CORRECTIONS), ("van_vleck_curvature", True), ("none", True)]
)
def test_gradients_of_the_density(correction: str, normalize: bool) -> None:
    metric, strength = twisted_sphere(0.4)
    point = torch.tensor([[0.3, -0.2], [0.5, 0.4]], dtype=F64)

    def log_prob(loc: Tensor, z: Tensor, time: Tensor) -> Tensor:
        return RiemannianHeatKernel(loc, time, metric, correction, normalize=normalize).log_prob(z)

    def with_strength(value: Tensor) -> Tensor:
        moved = twisted_sphere(value)[0]
        kernel = RiemannianHeatKernel(point[0], TIME, moved, correction, normalize=normalize)
        return kernel.log_prob(point[1])

    loc, z, time = point[0].clone().requires_grad_(), point[1].clone().requires_grad_(), TIME.clone().requires_grad_()
    gradients = torch.autograd.grad(log_prob(loc, z, time), (loc, z, time, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: log_prob(x, z, time), loc), atol=1e-8)
    assert torch.allclose(gradients[1], derivative(lambda x: log_prob(loc, x, time), z), atol=1e-8)
    assert torch.allclose(gradients[2], derivative(lambda x: log_prob(loc, z, x), time), atol=1e-8)
    assert torch.allclose(gradients[3], derivative(with_strength, strength), atol=1e-8)


def test_gradients_on_a_pullback_without_closed_forms() -> None:
    metric = paraboloid()
    bend = metric.immersion.bend  # type: ignore[attr-defined]
    point = torch.tensor([[0.3, -0.2], [0.5, 0.4]], dtype=F64)
    loc, z = point[0].clone().requires_grad_(), point[1].clone().requires_grad_()
    gradients = torch.autograd.grad(RiemannianHeatKernel(loc, TIME, metric).log_prob(z), (loc, z, bend))
    assert torch.allclose(
        gradients[0], derivative(lambda x: RiemannianHeatKernel(x, TIME, metric).log_prob(z), loc), atol=1e-6
    )
    assert torch.allclose(gradients[1], derivative(RiemannianHeatKernel(loc, TIME, metric).log_prob, z), atol=1e-6)

    def with_bend(value: Tensor) -> Tensor:
        return RiemannianHeatKernel(loc, TIME, paraboloid(value.item())).log_prob(z)

    assert torch.allclose(gradients[2], derivative(with_bend, bend), atol=1e-6)


def test_draws_are_pathwise_in_loc_time_and_metric() -> None:
    metric, strength = twisted_sphere(0.4)

    def draw(loc: Tensor, time: Tensor, law: object = metric) -> Tensor:
        torch.manual_seed(3)
        return RiemannianHeatKernel(loc, time, law, num_steps=4).rsample((5,)).square().sum()  # type: ignore[arg-type]

    loc = torch.tensor([0.3, -0.2], dtype=F64, requires_grad=True)
    time = TIME.clone().requires_grad_()
    gradients = torch.autograd.grad(draw(loc, time), (loc, time, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: draw(x, time), loc), atol=1e-8)
    assert torch.allclose(gradients[1], derivative(lambda x: draw(loc, x), time), atol=1e-8)
    assert torch.allclose(
        gradients[2], derivative(lambda x: draw(loc, time, twisted_sphere(x)[0]), strength), atol=1e-8
    )


# ---------------------------------------------------------------- as a distribution


@pytest.mark.filterwarnings("ignore:A RiemannianHeatKernel gives the density of its own draw:UserWarning")
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_shapes_expand_copy_pickle_trace_and_single_precision(correction: str) -> None:
    torch.manual_seed(0)
    metric = warped_sphere(2)
    loc, time = torch.randn(3, 2, dtype=F64) / 2, torch.tensor([[0.1], [0.2]], dtype=F64)
    kernel = RiemannianHeatKernel(loc, time, metric, correction, num_steps=4)
    assert (kernel.batch_shape, kernel.event_shape) == ((2, 3), (2,))
    assert RiemannianHeatKernel.infer_shapes(loc=(3, 2), time=(2, 1)) == ((2, 3), (2,))
    wide = kernel.expand((4, 2, 3))
    z = wide.sample()
    assert z.shape == (4, 2, 3, 2)
    assert wide.correction == correction
    assert torch.equal(wide.log_prob(z), kernel.log_prob(z))
    one = RiemannianHeatKernel(loc[1], time[1, 0], metric, correction)
    assert torch.allclose(one.log_prob(z[2, 1, 1]), wide.log_prob(z)[2, 1, 1], atol=1e-12)
    again = pickle.loads(pickle.dumps(kernel))
    assert torch.equal(copy.deepcopy(again).log_prob(z), kernel.log_prob(z))

    def function(x: Tensor, centre: Tensor, t: Tensor) -> Tensor:
        return RiemannianHeatKernel(centre, t, metric, correction).log_prob(x)

    traced = torch.jit.trace(function, (z, loc, time), check_trace=False)
    other = kernel.sample((4,))
    assert torch.allclose(traced(other, loc, time), kernel.log_prob(other), atol=1e-12)
    small = RiemannianHeatKernel(loc.float(), time.float(), metric, correction)
    assert small.sample().dtype == torch.float32
    assert torch.allclose(small.log_prob(z.float()).double(), kernel.log_prob(z), atol=1e-3, rtol=1e-4)


def test_long_times_warn_once() -> None:
    kernel = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 1.0, Sphere(2), "van_vleck_curvature")
    with pytest.warns(UserWarning, match="time R / 12"):
        kernel.log_prob(torch.ones(2, dtype=F64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            kernel.log_prob(torch.ones(2, dtype=F64))
    assert len(caught) == 1


EUCLIDEAN = EuclideanMetric(2)
ZERO, ONE = torch.zeros(2), torch.tensor(1.0)


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        ((torch.zeros(3), ONE, EUCLIDEAN), ValueError, "loc"),
        ((torch.tensor(0.0), ONE, EUCLIDEAN), ValueError, "loc"),
        ((torch.tensor([0.0, math.nan]), ONE, EUCLIDEAN), ValueError, "loc"),
        ((torch.tensor([0.0, math.inf]), ONE, EUCLIDEAN), ValueError, "loc"),
        ((torch.zeros(2, dtype=torch.long), ONE, EUCLIDEAN), TypeError, "loc"),
        (([0.0, 0.0], ONE, EUCLIDEAN), TypeError, "loc"),
        ((ZERO, torch.tensor(0.0), EUCLIDEAN), ValueError, "time"),
        ((ZERO, torch.tensor(-1.0), EUCLIDEAN), ValueError, "time"),
        ((ZERO, torch.tensor(math.nan), EUCLIDEAN), ValueError, "time"),
        ((ZERO, torch.tensor(math.inf), EUCLIDEAN), ValueError, "time"),
        ((ZERO, ONE.double(), EUCLIDEAN), TypeError, "time"),
        ((ZERO, "long", EUCLIDEAN), TypeError, "time"),
        ((torch.zeros(3, 2), torch.ones(4), EUCLIDEAN), ValueError, "time"),
        ((ZERO, ONE, lambda z: z), TypeError, "metric"),
        ((ZERO, ONE, EUCLIDEAN, "full"), ValueError, "correction"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        RiemannianHeatKernel(*arguments, validate_args=True)


@pytest.mark.parametrize(
    "value, error",
    [
        (torch.zeros(3), ValueError),
        (torch.tensor([0.0, math.nan]), ValueError),
        (torch.tensor([0.0, math.inf]), ValueError),
        (torch.zeros(2, dtype=F64), TypeError),
        (torch.zeros(2, dtype=torch.long), TypeError),
        (0.0, TypeError),
    ],
)
def test_bad_values_are_named(value: Tensor, error: type[Exception]) -> None:
    kernel = RiemannianHeatKernel(ZERO, ONE, EUCLIDEAN, validate_args=True)
    with pytest.raises(error, match="value"):
        kernel.log_prob(value)


@pytest.mark.parametrize("settings", [{"num_steps": 0}, {"num_directions": 3}])
def test_bad_settings_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RiemannianHeatKernel(ZERO, ONE, EUCLIDEAN, **settings)  # type: ignore[arg-type]


def test_as_a_guide_it_says_that_there_is_no_bound() -> None:
    """Without data every ELBO is at most 0: that of a density whose mass is below 1 is not, and a warning says so."""
    loc, metric = torch.tensor([0.3, -0.2, 0.1], dtype=F64), Sphere(3)

    def elbo(kernel: RiemannianHeatKernel) -> float:
        z = kernel.rsample((4000,))
        return (RiemannianWrappedNormal(loc, 1.5, metric).log_prob(z) - kernel.log_prob(z)).mean().item()

    assert elbo(RiemannianHeatKernel(loc, 1.5, metric, normalize=True)) < 0.02
    kernel = RiemannianHeatKernel(loc, 6.0, metric)
    mass = kernel.log_normalizer().value.item()
    with pytest.warns(UserWarning, match=rf"its log mass: {mass:.3g}.*such an evidence lower bound is none"):
        assert elbo(kernel) > 0.3
    kernel.log_prob(kernel.sample())  # said once, and no word where the density is not that of a draw of its own
    RiemannianHeatKernel(loc, 0.9, Sphere(3)).log_prob(loc)
    for harmless in (ConstantMetric(torch.eye(3, dtype=F64)), Sphere(3)):
        kernel = RiemannianHeatKernel(loc, 1e-3, harmless)
        kernel.log_prob(kernel.sample())
    kernel = RiemannianHeatKernel(loc[:2], 0.1, paraboloid(), num_steps=2)
    z = kernel.rsample()
    pickle.loads(pickle.dumps(kernel)).log_prob(z.clone())
    with pytest.warns(UserWarning, match="its log mass: not known"):
        kernel.log_prob(z)
