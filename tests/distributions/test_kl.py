"""Registered divergences are closed forms; the others are estimated, with their error, here and by Pyro itself."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, kl_divergence

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    VampPrior,
)
from pyro_riemann.distributions import monte_carlo_kl
from tests.charts import warped_sphere
from tests.distributions._shared import F64, SPHERES, derivative, from_sphere, sphere_rule, twisted_sphere


def gaussian_family(loc: Tensor, time: float, metric: ConstantMetric) -> list[Distribution]:
    return [
        RiemannianHeatKernel(loc, time, metric, "van_vleck_curvature"),
        RiemannianWrappedNormal(loc, time, metric),
        RiemannianNormal(loc, math.sqrt(time), metric),
        MultivariateNormal(loc, time * torch.linalg.inv(metric.matrix)),
    ]


def test_constant_metrics_have_closed_forms() -> None:
    torch.manual_seed(0)
    roots = torch.randn(2, 3, 3, dtype=F64)
    first, second = (ConstantMetric(root @ root.mT + torch.eye(3, dtype=F64)) for root in roots)
    one, two = torch.randn(4, 3, dtype=F64), torch.randn(5, 1, 3, dtype=F64)
    exact = kl_divergence(gaussian_family(one, 0.3, first)[-1], gaussian_family(two, 0.7, second)[-1])
    for p in gaussian_family(one, 0.3, first):
        for q in gaussian_family(two, 0.7, second):
            assert (kl_divergence(p, q) - exact).abs().max() < 1e-10


def test_independent_normals_have_closed_forms() -> None:
    loc = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    metric = EuclideanMetric(2)
    normal = dist.Normal(loc, 0.5).to_event(1)
    exact = kl_divergence(normal, dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1))
    prior = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 1.0, metric)
    assert (kl_divergence(normal, prior) - exact).abs().max() < 1e-10
    back = kl_divergence(dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1), normal)
    assert (kl_divergence(prior, normal) - back).abs().max() < 1e-10


def test_the_density_of_the_paper_shifts_the_divergence() -> None:
    metric = ConstantMetric(torch.diag(torch.tensor([4.0, 9.0], dtype=F64)))
    zero = torch.zeros(2, dtype=F64)
    p = RiemannianWrappedNormal(zero, 0.3, metric)
    q, paper = (RiemannianHeatKernel(zero + 0.1, 0.5, metric, c) for c in ("none", "kalatzis2020"))
    shift = 0.5 * math.log(36.0)
    assert abs(kl_divergence(p, paper) - kl_divergence(p, q) - shift) < 1e-10
    assert abs(monte_carlo_kl(p, paper, 10).value - monte_carlo_kl(p, q, 10).value - shift) < 2  # the same convention


def laws(metric: RiemannianMetric) -> dict[str, Distribution]:
    one, two = (from_sphere(metric, torch.tensor(x, dtype=F64)) for x in ([0.2, -0.1], [0.4, 0.1]))
    return {
        "wrapped": RiemannianWrappedNormal(one, 0.05, metric),
        "normal": RiemannianNormal(one, 0.22, metric),
        "heat": RiemannianHeatKernel(two, 0.1, metric, "van_vleck_curvature"),
        "wrapped2": RiemannianWrappedNormal(two, 0.1, metric),
        "normal2": RiemannianNormal(two, 0.35, metric),
    }


def test_the_divergence_of_the_paper_depends_on_the_chart() -> None:
    """Eq. 3.8: the invariant divergence plus half the log ratio of the volumes at the two centres."""
    values, shifts = [], []
    for metric in SPHERES.values():
        one, two = (from_sphere(metric, torch.tensor(x, dtype=F64)) for x in ([0.2, -0.1], [1.5, 1.0]))
        z, weights = sphere_rule(metric)
        p, q = (RiemannianHeatKernel(x, 0.1, metric, "kalatzis2020") for x in (one, two))
        law = RiemannianHeatKernel(one, 0.1, metric, normalize=True)  # one law for both charts
        mass = weights * (law.log_prob(z) - 0.5 * metric.logdet(z)).exp()
        values.append((mass * (p.log_prob(z) - q.log_prob(z))).sum())
        shifts.append(0.5 * (metric.logdet(two) - metric.logdet(one)))
    assert abs(values[0] - values[1]) > 0.1
    assert abs((values[0] - shifts[0]) - (values[1] - shifts[1])) < 1e-6


def test_errors_of_monte_carlo_are_its_errors() -> None:
    """Of 600 estimates of log 2 - 1/2 the scores have variance one; equal laws have no error at all."""
    torch.manual_seed(0)
    p = RiemannianWrappedNormal(torch.zeros(600, 2, dtype=F64), 0.1, EuclideanMetric(2))
    value, error = monte_carlo_kl(p, RiemannianWrappedNormal(p.loc, 0.2, EuclideanMetric(2)), 200)
    scores = (value - math.log(2) + 0.5) / error
    assert float(scores.square().mean()) == pytest.approx(1, abs=4 * (2 / 600) ** 0.5)
    assert monte_carlo_kl(p, p, 2).standard_error.max() < 1e-12


@pytest.mark.filterwarnings("ignore:A RiemannianHeatKernel gives the density of its own draw:UserWarning")
@pytest.mark.parametrize("chart", SPHERES)
def test_monte_carlo_is_within_its_error_and_signed(chart: str) -> None:
    torch.manual_seed(0)
    metric = SPHERES[chart]
    family, (z, weights) = laws(metric), sphere_rule(metric)
    for p in ("wrapped", "normal"):
        log_p, log_q = family[p].log_prob(z), family["heat"].log_prob(z)
        density = (log_p - 0.5 * metric.logdet(z)).exp()
        exact = (weights * density * torch.where(density > 1e-30, log_p - log_q, 0.0)).sum()
        estimate = monte_carlo_kl(family[p], family["heat"], 5000)
        assert abs(estimate.value - exact) < 4 * estimate.standard_error
    # a mass below 1 makes the divergence to oneself the negative log mass, not its absolute value
    plain = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 0.1, Sphere(2))
    honest = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 0.1, Sphere(2), normalize=True)
    assert abs(monte_carlo_kl(plain, honest, 10).value - math.log(0.96732391)) < 1e-6


def test_pairs_without_a_closed_form_are_not_registered() -> None:
    metric = warped_sphere(2)
    family, zero = laws(metric), torch.zeros(3, 2, dtype=F64)
    normal, student = dist.Normal(zero, 0.3).to_event(1), dist.StudentT(3.0, zero, 0.3).to_event(1)
    flat = RiemannianWrappedNormal(zero, 0.3, EuclideanMetric(2))
    box = RiemannianUniform(metric, -0.5, 0.5)
    mixture = VampPrior(normal)
    curved = [(p, q) for p in family.values() for q in (*family.values(), normal, mixture)]
    for p, q in (*curved, (normal, family["heat"]), (flat, mixture), (flat, student), (mixture, flat), (box, normal)):
        with pytest.raises(NotImplementedError):
            kl_divergence(p, q)


PEAKS = VampPrior(dist.Normal(torch.tensor([[-1.2, 0.3], [0.9, 0.9], [0.4, -1.5]], dtype=F64), 0.15).to_event(1))
PRIORS = {
    "mixture": (PEAKS, EuclideanMetric(2)),
    "sphere": (dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1), warped_sphere(2)),
    "flat": (RiemannianHeatKernel(torch.ones(2, dtype=F64), 0.5, EuclideanMetric(2)), EuclideanMetric(2)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_mean_field_elbo_is_the_elbo(name: str) -> None:
    """Where there is no closed form Pyro takes draws by itself; where there is one it is the same number."""
    prior, metric = PRIORS[name]

    def model() -> None:
        pyro.sample("z", prior)

    def guide() -> None:
        pyro.sample("z", RiemannianWrappedNormal(torch.tensor([0.1, 0.2], dtype=F64), 0.3, metric))

    pyro.set_rng_seed(0)
    values = []
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        losses = [elbo(100, max_plate_nesting=0, vectorize_particles=True).loss(model, guide) for _ in range(20)]
        values.append(torch.tensor(losses))
    (plain, field), errors = values, [x.std() / 20**0.5 for x in values]
    assert abs(plain.mean() - field.mean()) < 4 * torch.stack(errors).norm() + 1e-9


def test_gradients_in_the_parameters_of_both() -> None:
    metric, strength = twisted_sphere(0.4)
    one = torch.tensor([0.2, -0.1], dtype=F64, requires_grad=True)
    two = torch.tensor([0.4, 0.1], dtype=F64, requires_grad=True)
    time = torch.tensor(0.05, dtype=F64, requires_grad=True)

    def divergence(x: Tensor, y: Tensor, t: Tensor, law: RiemannianMetric | None = None) -> Tensor:
        law = metric if law is None else law
        torch.manual_seed(0)
        return monte_carlo_kl(RiemannianWrappedNormal(x, t, law), RiemannianHeatKernel(y, 2 * t, law), 20).value

    gradients = torch.autograd.grad(divergence(one, two, time), (one, two, time, strength))
    assert torch.allclose(gradients[0], derivative(lambda x: divergence(x, two, time), one), atol=1e-7)
    assert torch.allclose(gradients[1], derivative(lambda x: divergence(one, x, time), two), atol=1e-7)
    assert torch.allclose(gradients[2], derivative(lambda x: divergence(one, two, x), time), atol=1e-6)
    moved = derivative(lambda x: divergence(one, two, time, twisted_sphere(x)[0]), strength)
    assert torch.allclose(gradients[3], moved, atol=1e-7)


def test_score_function_gradient_where_draws_are_not_reparametrised() -> None:
    torch.manual_seed(0)
    scale = torch.tensor(0.5, dtype=F64, requires_grad=True)
    metric, zero = EuclideanMetric(2), torch.zeros(2, dtype=F64)
    p, q = RiemannianNormal(zero, scale, metric), RiemannianNormal(zero, 1.0, metric)
    exact = torch.autograd.grad(kl_divergence(p, q), scale)[0]
    draws = torch.stack([torch.autograd.grad(monte_carlo_kl(p, q, 200).value, scale)[0] for _ in range(50)])
    assert abs(draws.mean() - exact) < 4 * draws.std() / 50**0.5
    # score (w^2 - 2) / s of a draw w s, times the log ratio less its mean: 200 draws with the mean of the others
    w = torch.randn(200_000, 2, dtype=F64).square().sum(-1)
    ratio = -2 * math.log(0.5) - w / 2 + w / 8
    expected = ((ratio - ratio.mean()) * (w - 2) / 0.5).std() / 200**0.5
    assert 0.7 < draws.std() / expected < 1.4


def test_uniforms_on_boxes() -> None:
    metric = warped_sphere(2)
    small, large = RiemannianUniform(metric, -0.5, 0.5), RiemannianUniform(metric, -1.0, 0.5)
    ratio = large.log_volume().value - small.log_volume().value
    assert abs(kl_divergence(small, large) - ratio) < 1e-12
    assert kl_divergence(large, small) == math.inf
    torch.manual_seed(0)
    assert abs(monte_carlo_kl(small, large, 100).value - ratio) < 1e-4
    heat = RiemannianHeatKernel(torch.zeros(2), 0.1, metric)
    assert kl_divergence(heat, small) == math.inf
    assert kl_divergence(dist.Normal(torch.zeros(4, 2), 1.0).to_event(1), small).tolist() == [math.inf] * 4


def test_a_flat_torus_is_not_mistaken_for_a_plane() -> None:
    torus, loc = FlatTorus(2), torch.tensor([3.0, 0.0], dtype=F64)
    p, q = RiemannianWrappedNormal(loc, 0.1, torus), RiemannianWrappedNormal(-loc, 0.1, torus)
    with pytest.raises(NotImplementedError):
        kl_divergence(p, q)
    torch.manual_seed(0)
    estimate = monte_carlo_kl(p, q, 5000)
    assert abs(estimate.value - (2 * math.pi - 6) ** 2 / 0.2) < 4 * estimate.standard_error


def test_points() -> None:
    heat = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 0.1, Sphere(2))
    point = torch.tensor([0.1, 0.2], dtype=F64)
    assert torch.allclose(kl_divergence(dist.Delta(point, event_dim=1), heat), -heat.log_prob(point))


def test_bad_arguments_are_named() -> None:
    heat = RiemannianHeatKernel(torch.zeros(2), 0.1, Sphere(2))
    with pytest.raises(ValueError, match="num_samples"):
        monte_carlo_kl(heat, heat, 1)
    with pytest.raises(ValueError, match="event shape"):
        kl_divergence(heat, dist.Normal(torch.zeros(3), 1.0).to_event(1))
