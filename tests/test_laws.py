"""What every law owes on every kind of metric, each by a route that shares nothing with the law's own."""

from __future__ import annotations

import copy
import inspect
import math
from functools import lru_cache

import pyro
import pytest
import torch
from pyro.distributions import Distribution
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.stats import ks_2samp
from torch import Tensor

from pyro_riemann import (
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    WarpedMetric,
    distributions,
)
from pyro_riemann.manifolds import Hyperboloid
from tests.design import in_turn
from tests.laws import HIGH, LAWS, LOW, ON_THE_CHART, WRONG, Law
from tests.metrics_zoo import F64, SPECIMENS, bend_space, straighten

LOC = torch.tensor([0.2, -0.3], dtype=F64)
TIME = 0.08
SLOW = ("user-written", "pullback by module", "pullback by closure", "table")  # thousands of boundary-value problems
quick_metrics = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SPECIMENS]
)
every_metric = pytest.mark.parametrize("name", SPECIMENS)
ALWAYS = ("closed form", "kernel")  # metrics on which every law is tried; on each other one of them, in turn
every_pair = pytest.mark.parametrize("name, law", in_turn(SPECIMENS, list(LAWS), ALWAYS))


@lru_cache
def grid(size: int = 22, reach: float = 1.8) -> tuple[Tensor, float]:
    """Midpoints of the cells of a square around the centre, and the area of a cell."""
    step = 2 * reach / size
    axis = -reach + step * (torch.arange(size, dtype=F64) + 0.5)
    return LOC + torch.cartesian_prod(axis, axis), step**2


def time_of(value: float = TIME) -> Tensor:
    return torch.tensor(value, dtype=F64)


def check_mass(law: Law, metric: RiemannianMetric) -> None:
    """By a sum over the chart, which knows nothing of tangent spaces; its gradient is the score identity."""
    loc, time = LOC.clone().requires_grad_(), time_of().requires_grad_()
    points, area = grid()
    mass = area * law(loc, time, metric).log_prob(points).exp().sum()
    assert abs(mass.item() - 1) < 1e-3
    by_loc, by_time = torch.autograd.grad(mass, (loc, time))
    # in units of the density's own width
    assert TIME**0.5 * by_loc.norm() < 5e-3
    assert TIME * by_time.abs() < 5e-3


def check_draws(
    law: Law, metric: RiemannianMetric, count: int = 4000, time: float = TIME, cells: tuple[int, float] = (22, 1.8)
) -> None:
    """The first two moments of draws are those of the density, by a sum over the chart."""
    points, area = grid(*cells)
    density = law(LOC, time_of(time), metric)
    weight = area * density.log_prob(points).exp()
    torch.manual_seed(0)
    draws = density.sample((count,))

    def features(z: Tensor) -> Tensor:
        x, y = (z - LOC).unbind(-1)
        return torch.stack([x, y, x * x, x * y, y * y], -1)

    expected = (weight[:, None] * features(points)).sum(0)
    error = features(draws).std(0) / count**0.5
    assert ((features(draws).mean(0) - expected).abs() < 5 * error + 1e-3).all()


def test_the_table_has_every_law() -> None:
    classes = {
        name
        for name in distributions.__all__
        if inspect.isclass(law := getattr(distributions, name)) and issubclass(law, Distribution)
    }
    assert classes == set(LAWS)
    metric = SPECIMENS["closed form"]().metric
    assert all(type(law(LOC, time_of(), metric)).__name__ == name for name, law in LAWS.items())


@pytest.mark.parametrize("name, law", in_turn(SPECIMENS, ON_THE_CHART, ALWAYS))
def test_mass_is_one_whatever_the_parameters(name: str, law: str) -> None:
    check_mass(LAWS[law], SPECIMENS[name]().metric)


@quick_metrics
@pytest.mark.parametrize("law", ["RiemannianWrappedNormal", "RiemannianNormal", "VampPrior"])
def test_draws_have_the_density(name: str, law: str) -> None:
    """Those of the heat kernel are Brownian motion's, of which its density is the leading order in time."""
    check_draws(LAWS[law], SPECIMENS[name]().metric)


@pytest.mark.parametrize("law", WRONG)
def test_a_wrong_law_is_found_out(law: str) -> None:
    """The checks of this page can fail: each wrong copy of a normal fails one on a metric of curvature -1."""
    metric = Hyperboloid(2)
    check_mass(LAWS["RiemannianNormal"], metric)
    wide = 40_000, 0.4, (100, 8.0)
    check_draws(LAWS["RiemannianNormal"], metric, *wide)
    with pytest.raises(AssertionError):  # noqa: PT012  # either of them
        check_mass(WRONG[law], metric)
        check_draws(WRONG[law], metric, *wide)


@every_metric
def test_a_uniform_law_is_one_over_the_volume_of_its_box(name: str) -> None:
    metric = SPECIMENS[name]().metric
    size = 100
    steps = (HIGH - LOW) / size
    axes = [low + step * (torch.arange(size, dtype=F64) + 0.5) for low, step in zip(LOW, steps, strict=True)]
    points = torch.cartesian_prod(*axes)
    uniform = RiemannianUniform(metric, LOW, HIGH)
    mass = steps.prod() * uniform.log_prob(points).exp().sum()
    value, error = uniform.log_volume()
    assert abs(mass.log()) < 5 * error + 1e-4
    assert torch.allclose(0.5 * metric.logdet(points) - uniform.log_prob(points), value, atol=1e-8)


@quick_metrics
def test_constants_and_draws_do_not_depend_on_the_chart(name: str) -> None:
    metric = SPECIMENS[name]().metric
    other = WarpedMetric(metric, (bend_space, straighten))
    time = time_of()
    here, there = RiemannianNormal(LOC, time.sqrt(), metric), RiemannianNormal(straighten(LOC), time.sqrt(), other)
    mass, mass_there = here.log_normalizer(), there.log_normalizer()
    assert abs(mass.value - mass_there.value) < 5 * (mass.standard_error + mass_there.standard_error) + 1e-5
    heat = RiemannianHeatKernel(LOC, time, metric).log_normalizer()
    heat_there = RiemannianHeatKernel(straighten(LOC), time, other).log_normalizer()
    assert abs(heat.value - heat_there.value) < 5 * (heat.standard_error + heat_there.standard_error) + 1e-5
    torch.manual_seed(0)
    for law in ("RiemannianNormal", "RiemannianWrappedNormal"):
        draws = LAWS[law](LOC, time, metric).sample((2000,))
        draws_there = bend_space(LAWS[law](straighten(LOC), time, other).sample((2000,)))
        for axis in (0, 1):
            assert ks_2samp(draws[:, axis], draws_there[:, axis]).pvalue > 1e-4


@every_pair
def test_modes_do_not_change_a_value(name: str, law: str) -> None:
    metric = SPECIMENS[name]().metric
    points = LOC + torch.tensor([[0.0, 0.0], [0.3, 0.1], [-0.2, 0.4]], dtype=F64)

    def value(loc: Tensor, time: Tensor) -> Tensor:
        return LAWS[law](loc, time, metric).log_prob(points).detach()

    plain = value(LOC, time_of())
    assert torch.isfinite(plain).all()
    with torch.no_grad():
        assert torch.allclose(value(LOC, time_of()), plain, rtol=0, atol=1e-12)
    asked = value(LOC.clone().requires_grad_(), time_of().requires_grad_())
    assert torch.allclose(asked, plain, rtol=0, atol=1e-12)
    metric.train(not metric.training)
    assert torch.allclose(value(LOC, time_of()), plain, rtol=0, atol=1e-12)
    for parameter in metric.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    assert torch.allclose(value(LOC, time_of()), plain, rtol=0, atol=1e-12)


@every_pair
def test_a_changed_metric_is_seen(name: str, law: str) -> None:
    metric, change = SPECIMENS[name]()
    points = LOC + torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=F64)
    held = LAWS[law](LOC, time_of(), metric)
    before = held.log_prob(points)
    change()
    # the copy shares closures, not whatever was kept of the metric
    fresh = LAWS[law](LOC, time_of(), copy.deepcopy(metric)).log_prob(points)
    assert not torch.allclose(fresh, before, atol=1e-3)
    assert torch.allclose(held.log_prob(points), fresh, rtol=0, atol=1e-10)


@quick_metrics
def test_a_draw_has_the_density_of_its_clone_before_and_after_a_change(name: str) -> None:
    metric, change = SPECIMENS[name]()
    wrapped = RiemannianWrappedNormal(LOC, time_of(), metric)
    torch.manual_seed(1)
    z = wrapped.rsample((6,))
    assert torch.allclose(wrapped.log_prob(z), wrapped.log_prob(z.clone()), atol=1e-4)
    change()
    assert torch.allclose(wrapped.log_prob(z), wrapped.log_prob(z.clone()), atol=1e-4)


def gap(prior: Distribution, guide: Distribution, elbo: type[Trace_ELBO]) -> tuple[float, float]:
    """ELBO of a model without data, whose log evidence is 0, and its standard error."""

    def model() -> None:
        with pyro.plate("draws", 150):
            pyro.sample("z", prior)

    def variational() -> None:
        with pyro.plate("draws", 150):
            pyro.sample("z", guide)

    losses = torch.tensor([elbo().loss(model, variational) for _ in range(4)]) / 150
    return -float(losses.mean()), float(losses.std()) / 2


@pytest.mark.parametrize(
    "name, law",
    in_turn(SPECIMENS, ("RiemannianHeatKernel", "RiemannianWrappedNormal"), ["closed form"], [*SLOW, "warped kernel"]),
)
def test_no_guide_beats_the_evidence(name: str, law: str) -> None:
    metric = SPECIMENS[name]().metric
    prior = LAWS["RiemannianNormal"](LOC, time_of(0.06), metric)
    guide = LAWS[law](LOC + 0.1, time_of(), metric)
    pyro.set_rng_seed(0)
    bound, error = gap(prior, guide, Trace_ELBO)
    mean_field, mean_field_error = gap(prior, guide, TraceMeanField_ELBO)
    assert bound < 5 * error
    assert abs(bound - mean_field) < 5 * math.hypot(error, mean_field_error)
    # and the bound is not idle: its size is that of the divergence, by a sum over the chart
    points, area = grid()
    log_q = guide.log_prob(points)
    divergence = area * (log_q.exp() * (log_q - prior.log_prob(points))).sum()
    assert abs(-bound - divergence) < 5 * error + 0.01
