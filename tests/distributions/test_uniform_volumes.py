"""Volumes that are known and hard to find: narrow bumps, warped charts, tables; the same law in every chart."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann import (
    ConstantMetric,
    FlatTorus,
    GridMetric,
    KernelMetric,
    PullbackMetric,
    RiemannianMetric,
    RiemannianUniform,
    WarpedMetric,
)
from pyro_riemann._estimate import Estimate
from pyro_riemann.sampling import sample_uniform
from tests.distributions._volumes import DTYPE, Bumps, isolated_bumps


def scores(volume: Estimate, exact: float) -> float:
    return (float(volume.value) - exact) / float(volume.standard_error)


# -------------------------------------------------------------------- metrics that know nothing of their bumps


@pytest.mark.parametrize("dim, width", [(1, 2e-4), (2, 0.004), (3, 0.03), (3, 0.15), (5, 0.1), (8, 0.15)])
def test_narrow_bump_is_found(dim, width):
    """Half of the volume within a few hundredths of the box, somewhere in it."""
    place = 2 * torch.rand(1, dim, generator=torch.Generator().manual_seed(dim), dtype=DTYPE) - 1.0
    metric = Bumps(place, torch.full((1, dim), width, dtype=DTYPE), torch.tensor([4.0**dim]).log(), 4.0**dim)
    law = RiemannianUniform(metric, -2.0, torch.full((dim,), 2.0, dtype=DTYPE))
    volume = law.log_volume()
    assert abs(scores(volume, math.log(2) + dim * math.log(4.0))) < 4
    assert float(volume.standard_error) < 0.02
    draws = law.sample((2000,))
    near = ((draws - place) / width).square().sum(-1) < stats.chi2(dim).ppf(0.9999)
    # the bump's half, and what the flat half has there
    ball = math.exp(0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim + 1))
    flat = ball * (width * math.sqrt(stats.chi2(dim).ppf(0.9999)) / 4) ** dim
    share = 0.5 + 0.5 * min(flat, 1.0)
    assert abs(float(near.double().mean()) - share) < 4 * math.sqrt(0.25 / 2000)
    if dim > 2:
        assert "no climb from 2048 points found is not counted" in law.reports[0].reason
        result = sample_uniform(metric, 2000, -2.0, torch.full((dim,), 2.0, dtype=DTYPE), seed=0)
        assert abs(scores(result.log_volume, math.log(2) + dim * math.log(4.0))) < 4


def test_bump_that_a_nonlinear_chart_deforms():
    """The volume stays, the draws are pushed forward: KS of a coordinate between charts."""
    place = torch.tensor([[0.7, -0.4, 0.2]], dtype=DTYPE)
    metric = Bumps(place, torch.full((1, 3), 0.05, dtype=DTYPE), torch.tensor([8.0]).log(), 8.0)
    warped = WarpedMetric(metric, (torch.sinh, torch.asinh))  # each axis for itself: boxes stay boxes
    low = torch.full((3,), -1.0, dtype=DTYPE)
    laws = RiemannianUniform(metric, low, -low), RiemannianUniform(warped, low.asinh(), -low.asinh())
    for law in laws:
        assert abs(scores(law.log_volume(), math.log(16.0))) < 4
    draws = laws[0].sample((3000,)), laws[1].sample((3000,)).sinh()
    for axis in range(3):
        assert stats.ks_2samp(draws[0][:, axis].numpy(), draws[1][:, axis].numpy()).pvalue > 1e-3


def random_instance(seed: int) -> Bumps:
    """One to four bumps of like widths, of random place, shape and mass, on a flat ground."""
    generator = torch.Generator().manual_seed(seed)
    dim, count = (2, 3, 5, 8)[seed % 4], 1 + seed % 3

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=DTYPE)

    width = 10 ** (-1.6 + 0.08 * (dim - 2) + 0.3 * float(draw(1))) * (0.7 + 0.6 * draw(count, dim))
    place = 2.4 * draw(count, dim) - 1.2
    log_mass = dim * math.log(4.0) + 3 * draw(count) - 1.5
    return Bumps(place, width, log_mass, 4.0**dim)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_stated_errors_are_the_errors(count):
    """(estimate - exact) / stated error over random instances."""
    found = []
    for seed in range(count):
        metric = random_instance(seed)
        bound = torch.full((metric.dim,), 2.0, dtype=DTYPE)
        found.append(scores(RiemannianUniform(metric, -bound, bound).log_volume(), metric.exact_log_volume()))
    spread = torch.tensor(found)
    assert 0.5 < float(spread.std()) < 1.5
    assert float(spread.abs().max()) < 5


# -------------------------------------------------------------------- metrics that know their bumps


@pytest.mark.parametrize("dim", [3, 6, pytest.param(16, marks=pytest.mark.slow)])
def test_kernel_metric_has_one_volume_in_every_chart(dim):
    metric = isolated_bumps(dim)
    scale = torch.linspace(0.5, 3.0, dim, dtype=DTYPE)
    low, high = torch.full((dim,), -1.0, dtype=DTYPE), torch.full((dim,), 11.0, dtype=DTYPE)
    shear = torch.eye(dim, dtype=DTYPE) * scale

    def there(w: Tensor) -> Tensor:  # stretches each axis by itself, more the farther out
        return (w @ shear) + 0.02 * (w @ shear) ** 3

    def back(z: Tensor) -> Tensor:
        u = z / (1 + 0.02 * 4.0)
        for _ in range(60):
            u = u - (u + 0.02 * u**3 - z) / (1 + 0.06 * u**2)
        return u / scale

    warped = WarpedMetric(metric, (there, back))
    laws = RiemannianUniform(metric, low, high), RiemannianUniform(warped, back(low), back(high))
    first, second = (law.log_volume() for law in laws)
    joint = math.hypot(float(first.standard_error), float(second.standard_error))
    assert abs(float(first.value - second.value)) < 4 * joint
    assert joint < 0.05
    bump = math.log(20) + 0.5 * dim * math.log(2 * math.pi * 1.5**2 / dim)
    floor = 0.5 * dim * math.log(1e-3) + dim * math.log(12.0)
    if dim > 3:  # there a bump's tails add to the floor
        assert abs(float(second.value) - float(torch.tensor([bump, floor], dtype=DTYPE).logsumexp(0))) < 1e-2
    draws = laws[0].sample((2000,)), there(laws[1].sample((2000,)))
    for axis in range(0, dim, 3):
        assert stats.ks_2samp(draws[0][:, axis].numpy(), draws[1][:, axis].numpy()).pvalue > 1e-3


class Hidden(RiemannianMetric):
    """Somebody's wrapper around a metric."""

    def __init__(self, base: RiemannianMetric, tells: bool) -> None:
        super().__init__()
        self.base, self.dim, self.tells = base, base.dim, tells

    def metric(self, z: Tensor) -> Tensor:
        return 4 * self.base.metric(z)

    def peaks(self):
        return self.base.peaks() if self.tells else None


@pytest.mark.parametrize("tells", [True, False])
def test_wrapper_of_one_s_own(tells):
    metric = isolated_bumps(5)
    low, high = torch.full((5,), -1.0, dtype=DTYPE), torch.full((5,), 11.0, dtype=DTYPE)
    plain, wrapped = (RiemannianUniform(m, low, high).log_volume() for m in (metric, Hidden(metric, tells)))
    joint = math.hypot(float(plain.standard_error), float(wrapped.standard_error))
    assert abs(float(wrapped.value - plain.value) - 5 * math.log(2)) < 4 * joint + 1e-6


@pytest.mark.parametrize("full", [False, True])
def test_peaks_travel_through_wrappers(full):
    generator = torch.Generator().manual_seed(0)
    centroids = torch.rand(4, 2, generator=generator, dtype=DTYPE)
    precisions = 30 + 20 * torch.rand(4, 2, generator=generator, dtype=DTYPE)
    if full:
        tilt = torch.tensor([[1.0, 0.0], [0.4, 1.0]], dtype=DTYPE)
        precisions = tilt @ torch.diag_embed(precisions) @ tilt.mT
    metric = KernelMetric(centroids, precisions, 1.2, 1e-3)
    known = metric.peaks()
    matrices = precisions if full else torch.diag_embed(precisions)
    covariance = 1.2**2 / 2 * torch.linalg.inv(matrices)
    torch.testing.assert_close(known.covariance, covariance if full else covariance.diagonal(dim1=-2, dim2=-1))
    shear = torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=DTYPE)
    warped = WarpedMetric(metric, (lambda w: w @ shear.mT, lambda z: z @ torch.linalg.inv(shear).mT)).peaks()
    torch.testing.assert_close(warped.loc @ shear.mT, centroids)
    torch.testing.assert_close(shear @ warped.covariance @ shear.mT, covariance)
    cut = centroids[:, 0].sort().values[1:3].mean()
    high = torch.stack([cut, torch.tensor(1.5, dtype=DTYPE)])
    for outside, count in (("error", 2), ("metric", 4)):
        table = GridMetric(metric, torch.full((2,), -0.5, dtype=DTYPE), high, 60, outside=outside)
        assert len(table.peaks().loc) == count
        assert len(GridMetric(table, table.table.low, table.table.high, 8, outside=outside).peaks().loc) == count
    assert metric.conformal().peaks() is None
    assert PullbackMetric(lambda z: torch.cat([z, z**2], -1), 2).peaks() is None


# -------------------------------------------------------------------- closed forms, floors, modes


def test_constant_metrics_are_exact():
    matrix = torch.diag(torch.tensor([4.0, 9.0, 1.0], dtype=DTYPE))
    low, high = -torch.ones(3, dtype=DTYPE), torch.tensor([1.0, 0.5, 2.0], dtype=DTYPE, requires_grad=True)
    for metric, density in ((ConstantMetric(matrix), 6.0), (FlatTorus(3), 1.0)):
        law = RiemannianUniform(metric, low, high)
        volume = law.log_volume()
        assert volume.value.item() == pytest.approx(math.log(density * 2 * 1.5 * 3), abs=1e-12)
        assert float(volume.standard_error) == 0
        assert law.reports[0].method == "exact"
        torch.testing.assert_close(law.variance, (high - low).square().detach() / 12)
        torch.testing.assert_close(torch.autograd.grad(volume.value, high)[0], 1 / (high - low).detach())


def test_flat_ground_has_no_error_of_zero():
    """Replicates that agree exactly have seen one number: that is no closed form."""
    metric = Bumps(torch.zeros(0, 3, dtype=DTYPE), torch.zeros(0, 3, dtype=DTYPE), torch.zeros(0, dtype=DTYPE), 8.0)
    volume = RiemannianUniform(metric, -torch.ones(3, dtype=DTYPE), 1.0).log_volume()
    assert float(volume.value) == pytest.approx(math.log(8.0), abs=1e-9)
    assert 0 < float(volume.standard_error) < 1e-6


def test_share_of_the_mass_on_the_jitter_of_a_saturated_decoder():
    """G is diagonal, sech^4 + jitter: on the floor is where neither axis is well above the jitter."""
    jitter = 1e-3
    metric = PullbackMetric(torch.tanh, 2, jitter)
    law = RiemannianUniform(metric, torch.full((2,), -400.0, dtype=DTYPE), 400.0)
    with pytest.warns(UserWarning, match="of the draws lie where `metric` is only the constant"):
        reports = law.reports
    axis = torch.linspace(-400, 400, 800_001, dtype=DTYPE)
    length = axis.cosh() ** -4 + jitter
    below = (length.sqrt() * (length < 10 * jitter)).sum() / length.sqrt().sum()
    assert abs(reports[0].on_floor - float(below**2)) < 2e-3
    assert abs(float(law.share_on_floor(law.sample((2000,)))) - float(below**2)) < 0.01
    near = RiemannianUniform(metric, torch.full((2,), -0.5, dtype=DTYPE), 0.5)
    assert near.reports[0].on_floor == 0
    assert PullbackMetric(torch.tanh, 2, jitter=0.0).on_floor(torch.zeros(2)) is None


def test_peaks_that_one_climb_alone_has_found_are_not_all():
    """More needles than there are climbs that feel one: the volume is short, and says so."""
    place = 1.8 * torch.rand(40, 5, generator=torch.Generator().manual_seed(0), dtype=DTYPE) - 0.9
    metric = Bumps(place, torch.full((40, 5), 6e-3, dtype=DTYPE), torch.full((40,), math.log(5.0)), 32.0)
    law = RiemannianUniform(metric, -torch.ones(5, dtype=DTYPE), 1.0)
    with pytest.warns(UserWarning, match="found by one climb alone"):
        volume = law.log_volume()
    assert abs(scores(volume, metric.exact_log_volume())) < 5


class Plain(RiemannianMetric):
    """A metric that keeps its state where no module would look for it."""

    def __init__(self, rate: Tensor | float, dim: int) -> None:
        super().__init__()
        self.rate, self.dim = rate, dim

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed((2 * self.rate * z).exp())


def exact(rate: Tensor, dim: int) -> Tensor:
    """Log volume of the box from -1 to 1."""
    return dim * (2 * torch.sinh(rate) / rate).log()


@pytest.mark.parametrize("dim", [2, 3])
def test_volume_follows_state_that_no_module_registers(dim):
    metric = Plain(0.5, dim)
    law = RiemannianUniform(metric, -torch.ones(dim, dtype=DTYPE), 1.0)
    for rate in (0.5, 1.0, 0.5):
        metric.rate = rate
        volume = law.log_volume()
        want = float(exact(torch.tensor(rate, dtype=DTYPE), dim))
        assert abs(float(volume.value) - want) < 4 * float(volume.standard_error) + 1e-9


@pytest.mark.parametrize("dim", [2, 3])
def test_gradient_of_a_latent_rate_in_every_mode(dim):
    rate = torch.tensor(0.8, dtype=DTYPE, requires_grad=True)
    law = RiemannianUniform(Plain(rate, dim), -torch.ones(dim, dtype=DTYPE), 1.0)
    z = torch.full((dim,), 0.3, dtype=DTYPE)
    with torch.no_grad():
        silent = law.log_prob(z)
    slopes = []
    for _ in range(2):  # and a second backward pass through the same law
        value = law.log_prob(z)
        assert value.item() == silent.item()
        slopes.append(torch.autograd.grad(value, rate)[0])
    assert torch.equal(*slopes)
    want = torch.autograd.grad(rate * z.sum() - exact(rate, dim), rate)[0]
    assert abs(float(slopes[0] - want)) < (1e-6 if dim == 2 else 2e-2)
