"""Mixtures of exact heat kernels: mass, dense sums, likelihood under EM, recovery, held-out weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import ExpTransform

from pyro_riemann import EuclideanMetric, FlatTorus, Hyperbolic, KernelMetric, RiemannianMetric, Sphere, WarpedMetric
from pyro_riemann._formulas.mixtures import concave_maximum
from pyro_riemann.mixtures import HeatKernelMixture, _em, fit_kernels, fit_mixture
from pyro_riemann.mixtures._mixture import nearest, pairs_within
from tests.distributions._shared import F64, derivative, sphere_rule, total_mass

SPHERE = Sphere(2)
LOC = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.7, 0.6]], dtype=F64)
TIME = torch.tensor([[0.01], [0.05], [0.2]], dtype=F64)
WEIGHTS = torch.tensor([[0.5], [0.3], [0.2]], dtype=F64)


def truth(cutoff: float = 18.0) -> HeatKernelMixture:
    return HeatKernelMixture(LOC, TIME, WEIGHTS.log(), SPHERE, cutoff=cutoff)


def points(count: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return truth().sample((count,))


@pytest.mark.parametrize("cutoff, tolerance", [(math.inf, 1e-9), (18.0, 1e-7)])
def test_mass_is_one(cutoff: float, tolerance: float) -> None:
    """By quadrature over the sphere, which knows nothing of kernels; a share exp(-18) may be left out."""
    law = HeatKernelMixture(
        LOC, torch.tensor([0.02, 0.3, 40.0], dtype=F64), torch.zeros(3, 3, dtype=F64), SPHERE, cutoff=cutoff
    )
    assert abs(total_mass(law.log_prob, SPHERE, *sphere_rule(SPHERE)) - 1) < tolerance


@pytest.mark.parametrize("metric", [SPHERE, Hyperbolic(2), FlatTorus(2, 3.0)], ids=["sphere", "hyperbolic", "torus"])
def test_density_is_the_dense_sum(metric: RiemannianMetric) -> None:
    torch.manual_seed(0)
    loc, time = 0.4 * torch.rand(30, 2, dtype=F64), torch.logspace(-4, 1, 60, dtype=F64).view(30, 2)
    logits = torch.randn(30, 2, dtype=F64)
    logits[3, 1] = -torch.inf
    z = 0.4 * torch.rand(50, 2, dtype=F64)
    kernels = metric.log_heat_kernel(loc[:, None], z[:, None, None], time) + logits
    expected = kernels.flatten(1).logsumexp(1) - logits.flatten().logsumexp(0) + metric.logdet(z) / 2
    law = HeatKernelMixture(loc, time, logits, metric)
    assert (law.log_prob(z) - expected).abs().max() < 1e-6
    wide = HeatKernelMixture(loc, time, logits, metric, cutoff=math.inf).expand([50])
    assert (wide.log_prob(z) - expected).abs().max() < 1e-12


def test_a_far_point_has_its_nearest_kernel() -> None:
    law = HeatKernelMixture(LOC, torch.full((3, 1), 1e-6, dtype=F64), torch.zeros(3, 1, dtype=F64), SPHERE)
    z = torch.tensor([[3.0, 2.0]], dtype=F64)
    exact = (SPHERE.log_heat_kernel(LOC, z, 1e-6)).amax() - math.log(3) + SPHERE.logdet(z) / 2
    assert torch.allclose(law.log_prob(z), exact)


def test_gradients_against_differences() -> None:
    z = points(40)

    def value(arguments: list[Tensor]) -> Tensor:
        loc, time, logits = arguments
        return HeatKernelMixture(loc, time, logits, SPHERE, cutoff=60.0).log_prob(z).mean()

    arguments = [LOC.clone().requires_grad_(), TIME.clone().requires_grad_(), WEIGHTS.log().requires_grad_()]
    gradients = torch.autograd.grad(value(arguments), arguments)
    for i, gradient in enumerate(gradients):

        def of_one(x: Tensor, i: int = i) -> Tensor:
            return value([*arguments[:i], x, *arguments[i + 1 :]])

        assert (gradient - derivative(of_one, arguments[i].detach(), 1e-5)).abs().max() < 1e-5


def test_draws_have_the_law() -> None:
    """Of a mixture of one kernel E cos l = exp(-t)."""
    torch.manual_seed(0)
    law = HeatKernelMixture(LOC[1:2], torch.tensor([[0.3]], dtype=F64), torch.zeros(1, 1, dtype=F64), SPHERE)
    cosine = SPHERE.dist(law.sample((4000,)), LOC[1]).cos()
    assert abs(cosine.mean() - math.exp(-0.3)) < 4 * cosine.std() / 4000**0.5 + 0.01 * 0.3
    assert law.expand([3]).sample((2,)).shape == (2, 3, 2)


# ---------------------------------------------------------------- expectation maximisation


@pytest.mark.parametrize("background", [None, 40.0])
def test_em_never_lowers_the_likelihood(background: float | None) -> None:
    fit = fit_mixture(points(600), SPHERE, 6, background=background, num_steps=25, tolerance=0.0, seed=3)
    assert len(fit.log_likelihood) > 10
    assert (fit.log_likelihood.diff() >= 0).all()
    z = points(600)
    reported = (fit.mixture.log_prob(z) - SPHERE.logdet(z) / 2).mean()
    assert torch.allclose(reported, fit.log_likelihood[-1])


def test_em_does_not_depend_on_how_many_points_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    z = points(300)
    whole = fit_mixture(z, SPHERE, 3)
    monkeypatch.setattr(_em, "ROWS", 70)
    with torch.no_grad():
        parts = fit_mixture(z, SPHERE, 3)
    assert torch.allclose(whole.mixture.loc, parts.mixture.loc, atol=1e-9)
    assert torch.allclose(whole.log_likelihood, parts.log_likelihood, atol=1e-12)


def test_em_recovers_a_simulated_mixture() -> None:
    z = points(3000)
    fit = fit_mixture(z, SPHERE, 3).mixture
    order = nearest(LOC, fit.loc, SPHERE)
    spread = (TIME[:, 0] / (3000 * WEIGHTS[:, 0])).sqrt()  # standard error of a centre's coordinates
    assert (SPHERE.dist(fit.loc[order], LOC) < 5 * spread).all()
    # log time has the standard error of a mean of exponential variables
    assert ((fit.time[order] / TIME).log().abs() < 5 / (3000 * WEIGHTS).sqrt()).all()
    error = (WEIGHTS * (1 - WEIGHTS) / 3000).sqrt()
    assert ((fit.log_weights.exp()[order] - WEIGHTS).abs() < 5 * error).all()
    # at the maximum the likelihood is no lower than at the truth
    assert fit.log_prob(z).mean() >= truth().log_prob(z).mean()


def test_em_in_a_flat_torus_is_that_of_normals() -> None:
    """One kernel: the step leads to mean and variance."""
    torch.manual_seed(0)
    torus = FlatTorus(2, 100.0)
    z = 0.5 * torch.randn(500, 2, dtype=F64) + 1
    fit = fit_mixture(z, torus, 1, tolerance=0.0, num_steps=20).mixture
    assert (fit.loc[0] - z.mean(0)).abs().max() < 1e-9
    assert abs(fit.time[0, 0] - z.var(0, correction=0).mean()) < 1e-9


def test_smallest_time_holds_where_points_coincide() -> None:
    z = LOC.repeat(20, 1)
    fit = fit_mixture(z, SPHERE, 3, min_time=1e-7).mixture
    assert torch.allclose(fit.time, torch.full_like(fit.time, 1e-7))


def test_svi_gains_likelihood() -> None:
    z, start = points(300), LOC + 0.1

    def model() -> None:
        time = pyro.param("time", torch.full((3, 1), 0.1, dtype=F64), pyro.distributions.constraints.positive)
        law = HeatKernelMixture(pyro.param("loc", start), time, torch.zeros(3, 1, dtype=F64), SPHERE)
        with pyro.plate("points", 300):
            pyro.sample("z", law, obs=z)

    optimiser = pyro.optim.ClippedAdam({"lr": 0.05})
    svi = pyro.infer.SVI(model, lambda: None, optimiser, pyro.infer.Trace_ELBO())
    losses = [svi.step() for _ in range(30)]
    assert losses[-1] < losses[0] - 30


# ---------------------------------------------------------------- kernels on all points


def test_kernels_on_points_predict_and_have_mass_one() -> None:
    z, fresh = points(400), points(400, seed=1)
    law = fit_kernels(z, SPHERE, torch.logspace(-2.5, -1, 4, dtype=F64), background=40.0, num_groups=2)
    assert abs(total_mass(law.log_prob, SPHERE, *sphere_rule(SPHERE, 160)) - 1) < 1e-6
    exact, fitted = truth().log_prob(fresh).mean(), law.log_prob(fresh).mean()
    uniform = SPHERE.logdet(fresh).mean() / 2 - math.log(4 * math.pi)
    assert exact > fitted > exact - 0.25 > uniform


def test_weights_are_at_the_maximum() -> None:
    """Optimality of a concave problem: every column's mean ratio to the mixture is 1, or less where its weight is 0."""
    table = torch.rand(200, 6, dtype=F64, generator=torch.Generator().manual_seed(0)) ** 4
    table[:, 5] = 0.2 * table[:, 4]
    weights = concave_maximum(torch, table, num_steps=20000, tolerance=1e-9)
    ratio = (table / (table @ weights)[:, None]).mean(0)
    assert ratio.max() < 1 + 1e-6
    assert ((ratio - 1).abs() < 1e-4)[weights > 1e-3].all()
    assert weights[5] < 1e-6


def test_equal_points_pull_the_weight_to_the_smallest_time() -> None:
    z = points(60).repeat(4, 1)
    law = fit_kernels(z, SPHERE, torch.tensor([1e-8, 1e-2], dtype=F64), num_groups=1)
    assert law.log_weights.exp().sum(0)[0] > 0.8
    law = fit_kernels(points(240), SPHERE, torch.tensor([1e-8, 1e-2], dtype=F64), num_groups=1)
    assert law.log_weights.exp().sum(0)[0] < 1e-3


@pytest.mark.parametrize("metric", [SPHERE, FlatTorus(2, 100.0)], ids=["tree", "all pairs"])
def test_neighbours_against_all_distances(metric: RiemannianMetric) -> None:
    torch.manual_seed(0)
    z, y, squared = torch.randn(80, 2, dtype=F64), torch.randn(50, 2, dtype=F64), 4 * torch.rand(50, dtype=F64) ** 4
    every = metric.squared_dist(z[:, None], y)
    found = torch.zeros_like(every, dtype=torch.bool)
    found[pairs_within(z, y, squared, metric)] = True
    assert torch.equal(found, every <= squared)
    assert torch.equal(nearest(z, y, metric, 3), every.argsort(1)[:, 2])


@pytest.mark.parametrize(
    "change, name",
    [
        ({"metric": EuclideanMetric(2)}, "metric"),
        ({"loc": LOC[0]}, "loc"),
        ({"time": TIME[:2]}, "time"),
        ({"time": -TIME}, "time"),
        ({"logits": WEIGHTS[:2]}, "logits"),
        ({"cutoff": 0.0}, "cutoff"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], name: str) -> None:
    arguments = {"loc": LOC, "time": TIME, "logits": WEIGHTS.log(), "metric": SPHERE, **change}
    with pytest.raises((TypeError, ValueError), match=name):
        HeatKernelMixture(**arguments)


def test_bad_settings_of_the_fits_are_named() -> None:
    with pytest.raises(ValueError, match="num_components"):
        fit_mixture(LOC, SPHERE, 4)
    with pytest.raises(ValueError, match="min_time"):
        fit_mixture(LOC, SPHERE, 2, min_time=0.0)
    with pytest.raises(ValueError, match="num_folds"):
        fit_kernels(points(50), SPHERE, TIME[:, 0], num_folds=1)
    with pytest.raises(ValueError, match="points"):
        fit_kernels(LOC, SPHERE, TIME[:, 0])


@pytest.mark.parametrize("wrap", [lambda metric: metric, lambda metric: WarpedMetric(metric, ExpTransform())])
def test_a_metric_without_an_exact_heat_kernel_is_refused(wrap: Callable[[RiemannianMetric], RiemannianMetric]) -> None:
    loc, logits = torch.ones(3, 2), torch.zeros(3, 1)
    metric = KernelMetric(torch.ones(1, 2), torch.ones(1, 2), 1.0)
    with pytest.raises(TypeError, match="exact heat kernel"):
        HeatKernelMixture(loc, torch.ones(1), logits, wrap(metric))
    HeatKernelMixture(loc, torch.ones(1), logits, wrap(Sphere(2)))
