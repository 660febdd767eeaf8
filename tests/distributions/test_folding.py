"""Wrapped normals where geodesics meet again: mass one at every time, honest bounds, and what is folded elsewhere."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import stats
from torch import Tensor

from pyro_riemann import (
    EuclideanMetric,
    FlatTorus,
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
)
from pyro_riemann._formulas import folding
from pyro_riemann.distributions._folded_mass import _step
from tests.charts import OnlyMetric, shear, unshear, warped_hyperbolic, warped_sphere, warped_torus
from tests.distributions._shared import F64, derivative, from_sphere, paraboloid

TIMES = [0.05, 0.3, 1.0, 4.0, 20.0, 250.0]
LOC = torch.tensor([0.4, -0.7, 0.2], dtype=F64)


def polar_rule(metric: RiemannianMetric, loc: Tensor, size: int = 64) -> tuple[Tensor, Tensor]:
    """Points of a sphere's chart and weights for dM, in polar coordinates about ``loc``; no node at a pole of these."""
    dim, sphere = metric.dim, Sphere(metric.dim)
    base = metric.to_base(loc) if isinstance(metric, WarpedMetric) else loc
    nodes, weight = np.polynomial.legendre.leggauss(size)
    radius, along = torch.from_numpy((nodes + 1) * math.pi / 2), torch.from_numpy(weight * math.pi / 2)
    if dim == 1:
        units, area = torch.tensor([[1.0], [-1.0]], dtype=F64), torch.ones(2, dtype=F64)
    elif dim == 2:
        angle = 2 * math.pi * torch.arange(16, dtype=F64) / 16
        units, area = torch.stack([angle.cos(), angle.sin()], -1), torch.full((16,), math.pi / 8, dtype=F64)
    else:  # an octahedron: exact where the integrand does not depend on the direction
        units = torch.cat([torch.eye(3, dtype=F64), -torch.eye(3, dtype=F64)])
        area = torch.full((6,), 4 * math.pi / 6, dtype=F64)
    v = units * radius[:, None, None] * (1 + base.square().sum()) / 2
    points = sphere.expmap(base.expand_as(v), v).reshape(-1, dim)
    weights = (along * radius.sin() ** (dim - 1)).unsqueeze(-1) * area
    return from_sphere(metric, points), weights.reshape(-1)


SPHERES = {
    "S1": Sphere(1),
    "S2": Sphere(2),
    "S3": Sphere(3),
    "warped S2": warped_sphere(2),
    "warped S3": warped_sphere(3),
}


@pytest.mark.parametrize("name", SPHERES)
@pytest.mark.parametrize("time", TIMES)
def test_mass_one_on_spheres(name: str, time: float) -> None:
    metric = SPHERES[name]
    loc = LOC[: metric.dim]
    z, weights = polar_rule(metric, loc)
    density = (RiemannianWrappedNormal(loc, time, metric).log_prob(z) - 0.5 * metric.logdet(z)).exp()
    assert abs(float((weights * density).sum()) - 1) < 1e-9


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("periods", [[2.0, 3.0], [2.0, math.inf]], ids=["torus", "cylinder"])
def test_mass_one_over_a_period_of_a_sheared_torus(periods: list[float], time: float) -> None:
    metric = WarpedMetric(FlatTorus(2, periods), (shear, unshear))
    reach = 9 * math.sqrt(time) if math.isinf(periods[1]) else periods[1] / 2
    axes = [torch.arange(n, dtype=F64) / n - 0.5 for n in (64, 400)]
    base = torch.cartesian_prod(axes[0] * periods[0] + 0.3, axes[1] * 2 * reach)
    z = metric.from_base(base)
    law = RiemannianWrappedNormal(metric.from_base(torch.tensor([0.1, 0.2], dtype=F64)), time, metric)
    density = (law.log_prob(z) - 0.5 * metric.logdet(z)).exp()
    assert abs(float(density.mean()) * periods[0] * 2 * reach - 1) < 1e-9


@pytest.mark.parametrize("dim", [2, 3, 4, 9, 20])
@pytest.mark.parametrize("time", [0.02, 1.0, 30.0, 199.99, 200.01, 1e4])
def test_the_sum_over_all_turns(dim: int, time: float) -> None:
    """Against ten times as many terms, in logs; its two forms meet where one takes over from the other."""
    radius = torch.tensor([1e-4, 0.1, 1.0, 2.0, 3.0, math.pi - 1e-4], dtype=F64)
    turns = 2 * math.pi * torch.arange(-2000, 2001, dtype=F64)
    lengths = (radius.unsqueeze(-1) + turns).abs()
    terms = (dim - 1) * lengths.log() - lengths.square() / (2 * time)
    exact = terms.logsumexp(-1) - (dim - 1) * radius.sin().log() - 0.5 * dim * math.log(2 * math.pi * time)
    s, c = (radius / 2).sin().square(), (radius / 2).cos().square()
    turns_taken = folding.num_turns(time, dim)
    ours = folding.log_density(torch, s, c, torch.full_like(s, time), dim, turns_taken)
    assert (ours - exact).abs().max() < 1e-9


@pytest.mark.parametrize("metric", [warped_sphere(2), warped_sphere(3), warped_torus(2), warped_hyperbolic(2)])
@pytest.mark.parametrize("time", [0.3, 5.0, 300.0])
def test_gradients_of_the_folded_density(metric: WarpedMetric, time: float) -> None:
    loc, z = LOC[: metric.dim].clone(), torch.tensor([-0.3, 0.9, 0.5], dtype=F64)[: metric.dim]
    times = torch.tensor(time, dtype=F64)

    def log_prob(centre: Tensor, value: Tensor, t: Tensor) -> Tensor:
        return RiemannianWrappedNormal(centre, t, metric).log_prob(value)

    leaves = [x.clone().requires_grad_() for x in (loc, z, times)]
    gradients = torch.autograd.grad(log_prob(*leaves), leaves)
    assert torch.allclose(gradients[0], derivative(lambda x: log_prob(x, z, times), loc), atol=1e-7)
    assert torch.allclose(gradients[1], derivative(lambda x: log_prob(loc, x, times), z), atol=1e-7)
    assert torch.allclose(gradients[2], derivative(lambda x: log_prob(loc, z, x), times), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_poles_are_large_and_finite(dtype: torch.dtype) -> None:
    """Infinite in truth: all geodesics meet there. Values and gradients stay finite, also a rounding error away."""
    sphere, loc = Sphere(3), torch.tensor([0.5, 0.0, 0.0], dtype=dtype)
    antipode = -loc / loc.square().sum()
    for pole in (loc, antipode):
        for step in (0.0, 1e-12, 1e-6):
            z, time = (pole + step).requires_grad_(), torch.tensor(2.0, dtype=dtype, requires_grad=True)
            value = RiemannianWrappedNormal(loc, time, sphere).log_prob(z)
            assert torch.isfinite(value)
            assert all(torch.isfinite(x).all() for x in torch.autograd.grad(value, (z, time)))


@pytest.mark.parametrize("time", [0.5, 8.0])
def test_draws_have_the_folded_law(time: float) -> None:
    """The cosine of the distance to the centre, whose law is that of |N(0, t I)| folded into [0, pi]."""
    torch.manual_seed(0)
    metric, loc = warped_sphere(3), LOC
    z = RiemannianWrappedNormal(loc, time, metric).sample((4000,))
    radius = metric.dist(loc.expand_as(z), z)
    grid = torch.linspace(1e-6, math.pi - 1e-6, 4001, dtype=F64)
    s, c = (grid / 2).sin().square(), (grid / 2).cos().square()
    turns = folding.num_turns(time, 3)
    density = folding.log_density(torch, s, c, torch.full_like(s, time), 3, turns).exp() * 4 * math.pi * grid.sin() ** 2
    cdf = torch.cumulative_trapezoid(density, grid).numpy()
    assert abs(cdf[-1] - 1) < 1e-4
    assert stats.kstest(radius.numpy(), lambda r: np.interp(r, grid[1:].numpy(), cdf)).pvalue > 1e-3


def test_traced_and_vmapped() -> None:
    loc, z = LOC[:2], torch.tensor([[0.1, 0.3], [2.0, -1.0]], dtype=F64)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return RiemannianWrappedNormal(loc, t, Sphere(2), validate_args=False).log_prob(x)

    time = torch.tensor(3.0, dtype=F64)
    traced = torch.jit.trace(log_prob, (z, time), check_trace=False)
    assert torch.allclose(traced(z, 10 * time), log_prob(z, 10 * time), atol=1e-12)
    assert torch.allclose(torch.vmap(log_prob, (0, None))(z, time), log_prob(z, time), atol=1e-12)


# ---------------------------------------------------------------- bounds

NORMAL = dist.Normal(torch.zeros(2, dtype=F64), torch.tensor([1.0, 0.7], dtype=F64)).to_event(1)
KERNEL = KernelMetric(
    torch.tensor([[0.0, 0.0], [1.0, 0.5]]).double(), torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), 2.0, 0.5
)
GUIDES = {
    "sphere": (warped_sphere(2), [0.1, 1.0, 6.0, 40.0]),
    "torus": (warped_torus(2, 2.0), [0.1, 1.0, 6.0, 40.0]),
    "cylinder": (FlatTorus(2, [1.5, math.inf]), [0.1, 1.0, 6.0, 40.0]),
    "hyperbolic": (warped_hyperbolic(2), [0.1, 1.0]),
    "kernel": (KERNEL, [0.05, 0.3]),
    "pullback": (paraboloid().requires_grad_(False), [0.05, 0.3]),
}


@pytest.mark.parametrize("name", GUIDES)
def test_a_bound_without_data_is_at_most_zero(name: str) -> None:
    metric, times = GUIDES[name]
    closed = metric.log_folded_density(LOC[:2], LOC[:2], torch.tensor(1.0, dtype=F64)) is not None
    for time in times:
        pyro.set_rng_seed(0)
        guide = RiemannianWrappedNormal(torch.tensor([0.2, 0.1], dtype=F64), time, metric)
        z = guide.rsample((4000 if closed else 16,))
        gap = (NORMAL.log_prob(z) - guide.log_prob(z)).detach()
        assert gap.mean() < 4 * gap.std() / math.sqrt(len(gap)), time


def test_the_bound_on_a_compact_manifold_is_the_divergence_at_every_time() -> None:
    """S^3, where the heat kernel is known: no time passes the log evidence, 0, and the prior's comes near it."""
    metric = Sphere(3)

    class Kernel(dist.TorchDistribution):
        support, arg_constraints = dist.constraints.real_vector, {}

        def __init__(self) -> None:
            super().__init__((), (3,), validate_args=False)

        def log_prob(self, z: Tensor) -> Tensor:
            return metric.log_heat_kernel(torch.zeros_like(z), z, 0.7) + 0.5 * metric.logdet(z)

        def sample(self, shape: object = ()) -> Tensor:
            return torch.zeros(*shape, 3, dtype=F64)  # type: ignore[misc]

    losses = []
    for time in (0.1, 0.5, 1.5, 5.0, 30.0):
        pyro.set_rng_seed(0)
        elbo = Trace_ELBO(4000, vectorize_particles=True, max_plate_nesting=0)
        loss = elbo.loss(
            lambda: pyro.sample("z", Kernel()),
            lambda t=time: pyro.sample("z", RiemannianWrappedNormal(torch.zeros(3, dtype=F64), t, metric)),
        )
        losses.append(loss)
    assert min(losses) > -0.01
    assert losses[1] < 0.1 < min(losses[0], losses[3], losses[4])


@pytest.mark.parametrize("time", [0.1, 0.4])
def test_a_normalised_heat_kernel_gives_a_bound(time: float) -> None:
    metric = warped_sphere(2)
    torch.manual_seed(0)
    guide = RiemannianHeatKernel(torch.tensor([0.2, 0.1], dtype=F64), time, metric, "van_vleck", normalize=True)
    z = guide.sample((4000,))
    gap = NORMAL.log_prob(z) - guide.log_prob(z)
    assert gap.mean() < 4 * gap.std() / math.sqrt(len(gap))


# ---------------------------------------------------------------- where the sum is not known


class RoundSphere(RiemannianMetric):
    """S^2 in the stereographic chart, as a user writes it."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return 4 / (1 + z.square().sum(-1))[..., None, None] ** 2 * torch.eye(2, dtype=z.dtype)


def test_folded_mass_of_a_sphere_by_its_metric_alone() -> None:
    """P(|v| > pi) = exp(-pi^2 / 2t)."""
    loc = torch.tensor([0.4, 0.1], dtype=F64)
    for time in (0.2, 1.5):
        mass = RiemannianWrappedNormal(loc, time, RoundSphere()).folded_mass()
        assert abs(mass.value - math.exp(-(math.pi**2) / 2 / time)) < 3 * mass.standard_error
        assert mass.standard_error < 0.03
    assert RiemannianWrappedNormal(loc, 1.5, warped_sphere(2)).folded_mass().value == 0.0  # all are counted
    assert RiemannianWrappedNormal(loc, 1.5, EuclideanMetric(2)).folded_mass().value == 0.0


class OwnTorus(EuclideanMetric):
    """A flat torus by another hand: distances in closed form, and nothing about the images."""

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        step = y - z
        return (step - 2 * torch.round(step / 2)).square().sum(-1)


def test_folded_mass_where_distances_alone_are_closed_forms() -> None:
    law = RiemannianWrappedNormal(torch.zeros(2, dtype=F64), 0.2, OwnTorus(2))
    mass = law.folded_mass(256)
    inside = math.erf(1 / math.sqrt(2 * 0.2)) ** 2  # the square of half a period about the centre
    assert abs(mass.value - (1 - inside)) < 2e-3 + mass.standard_error


def test_a_fold_is_warned_of_once_with_its_number() -> None:
    metric, loc = RoundSphere(), torch.tensor([0.4, 0.1], dtype=F64)
    z = torch.tensor([[0.5, 0.3]], dtype=F64)
    RiemannianWrappedNormal(loc, 0.1, metric).log_prob(z)
    with pytest.warns(UserWarning, match=r"% of a RiemannianWrappedNormal with time 2 .* past the cut locus"):
        RiemannianWrappedNormal(loc, 2.0, metric).log_prob(z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RiemannianWrappedNormal(loc, 2.0, metric).log_prob(z)
        RiemannianWrappedNormal(loc.clone().requires_grad_(), 2.0, RoundSphere()).log_prob(z)  # in training
        metric = RoundSphere()
        RiemannianWrappedNormal(loc, 0.7, metric).log_prob(z)  # 0.07 %
    for time in (0.8, 1.0):  # 0.17 %, and more than twice that
        with pytest.warns(UserWarning, match="past the cut locus"):
            RiemannianWrappedNormal(loc, time, metric).log_prob(z)


def test_numbers_of_directions_are_checked() -> None:
    with pytest.raises(ValueError, match="num_directions"):
        RiemannianWrappedNormal(torch.zeros(2), 0.1, OnlyMetric(EuclideanMetric(2))).folded_mass(1)


def test_a_step_on_a_singular_metric_costs_one_geodesic() -> None:
    """The batch is split until the one that fails is alone."""

    class Singular(OnlyMetric):
        def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
            if bool((z > 0.9).any()):
                raise torch.linalg.LinAlgError("singular")
            return super().christoffel(z, v)

    z = torch.tensor([[0.1, 0.2], [0.95, 0.0], [0.3, -0.2], [0.0, 0.4], [-0.3, 0.1]], dtype=F64)
    v, share = torch.full_like(z, 0.3), torch.linspace(0.1, 0.5, 5, dtype=F64)
    end, velocity = _step(Singular(Sphere(2)), z, v, share)
    assert bool(torch.isnan(end[1]).all() & torch.isnan(velocity[1]).all())
    others = torch.tensor([0, 2, 3, 4])
    expected = _step(Sphere(2), z[others], v[others], share[others])
    torch.testing.assert_close(end[others], expected[0])
    torch.testing.assert_close(velocity[others], expected[1])
