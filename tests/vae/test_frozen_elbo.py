"""The bound of training steps: what its gradient is, and how far its draws are from the posterior's."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_riemann import PullbackMetric, RiemannianHeatKernel, RiemannianWrappedNormal
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import FrozenPosteriorELBO, TrainingConfig, set_phase
from pyro_riemann.vae._frozen_laws import FrozenHeatKernel, PartlySolvedHeatKernel, SecondOrderNormal, table_alone
from pyro_riemann.vae._training import TwoPhases
from tests.vae.test_models import curve_data, phase_two_vae


def paraboloid(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z.square().sum(-1, keepdim=True)], -1)


def gradient(vae, elbo: Trace_ELBO, data: torch.Tensor) -> torch.Tensor:
    vae.zero_grad()
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        elbo.loss_and_grads(vae.model, vae.guide, data)
    return torch.cat([value.grad.flatten() for value in vae.parameters() if value.requires_grad])


@pytest.mark.parametrize("metric", ["fixed", "grid"])
def test_with_all_distances_the_gradient_is_that_of_the_bound(metric: str):
    """Of a heat kernel, whose draws are as they are: what is left out is constant, and log det G cancels."""
    data = curve_data(60)
    vae = phase_two_vae(data, "heat_kernel", "heat_kernel", metric)
    if metric == "grid":  # or curves start elsewhere than those of the bound that it is compared with
        vae.metric.solver = GeodesicSolver(num_knots=6, num_segments=18, tolerance=1e-10)
    expected = gradient(vae, Trace_ELBO(), data[:16])
    found = gradient(vae, FrozenPosteriorELBO(distances=1.0), data[:16])
    assert float(expected.norm()) > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("posterior", ["normal", "wrapped_normal", "heat_kernel"])
@pytest.mark.parametrize("phase", [1, 2])
def test_a_posterior_that_is_trained_is_left_alone(posterior: str, phase: int):
    data = curve_data(60)
    vae = phase_two_vae(data, "heat_kernel", posterior, "fixed")
    set_phase(vae, phase, ("posterior", "prior"))
    same = [gradient(vae, elbo, data[:8]) for elbo in (Trace_ELBO(), FrozenPosteriorELBO())]
    assert torch.equal(*same)


def test_a_share_of_the_distances_is_unbiased():
    """The mean gradient over many choices of rows is that of all, within 4 standard errors; each choice is another."""
    metric = PullbackMetric(paraboloid, 2)
    loc = torch.tensor([0.1, -0.2], dtype=torch.float64, requires_grad=True)
    log_time = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    z = torch.randn(10, 2, dtype=torch.float64)

    def slopes(share: float) -> torch.Tensor:
        law = PartlySolvedHeatKernel(RiemannianHeatKernel(loc, log_time.exp(), metric), metric, share)
        return torch.cat([part.flatten() for part in torch.autograd.grad(law.log_prob(z).sum(), (loc, log_time))])

    whole = RiemannianHeatKernel(loc, log_time.exp(), metric).log_prob(z).sum()
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(whole, (loc, log_time))])
    torch.testing.assert_close(slopes(1.0), expected, rtol=1e-8, atol=1e-8)
    some = torch.stack([slopes(0.2) for _ in range(60)])
    assert bool((some.std(0) > 0.05 * expected.norm()).all())
    assert bool(((some.mean(0) - expected).abs() < 4 * some.std(0) / math.sqrt(len(some))).all())


def test_draws_are_those_of_the_exponential_map_to_second_order():
    """Halving the root of the time divides what is left by eight."""
    metric, loc = PullbackMetric(paraboloid, 2), torch.tensor([0.5, 0.3], dtype=torch.float64).expand(500, 2)
    errors = []
    for time in (0.04, 0.01):
        exact, quick = RiemannianWrappedNormal(loc, time, metric), SecondOrderNormal(loc, time, metric)
        draws = []
        for law in (exact, quick):
            torch.manual_seed(0)
            draws.append(law.sample())
        errors.append(float((draws[0] - draws[1]).norm(dim=-1).median()))
    assert 0 < errors[1] < errors[0] < 0.05 * 0.2
    assert math.log2(errors[0] / errors[1]) == pytest.approx(3, abs=0.3)


class Wall(RiemannianMetric):
    """A line whose metric rises by e^60 within a unit."""

    dim = 1

    def metric(self, z: torch.Tensor) -> torch.Tensor:
        return (60 * z.clamp(-5, 5)).exp().unsqueeze(-1)


def test_no_draw_beside_a_wall_is_far_away():
    loc = torch.zeros(1000, 1, dtype=torch.float64)
    torch.manual_seed(0)
    z = SecondOrderNormal(loc, 1.0, Wall()).sample()
    assert float(z.abs().max()) < 1.5 * 5  # half more than the longest of so many standard normal vectors


def test_the_constant_of_a_frozen_law_is_a_density_with_respect_to_the_volume():
    metric, loc = PullbackMetric(paraboloid, 2), torch.randn(5, 2, dtype=torch.float64)
    for law in (SecondOrderNormal(loc, 0.01, metric), FrozenHeatKernel(loc, 0.01, metric)):
        z = law.rsample()
        in_dz, law.in_volume = law.log_prob(z), True
        torch.testing.assert_close(in_dz - law.log_prob(z), 0.5 * metric.logdet(z))
        # at short times log V is small and a geodesic straight
        complete = RiemannianWrappedNormal(loc, 0.01, metric).log_prob(z.clone())
        assert float((in_dz - complete).abs().max()) < 0.1


def test_distances_on_a_table_start_from_shortest_paths():
    """Across a ridge that ends at y = 1 the straight line is a local minimum; the path on the grid goes round."""

    def ridge(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, 4 * torch.exp(-8 * z[:, :1].square()) * torch.sigmoid(10 * (1 - z[:, 1:]))], -1)

    grid = GridMetric(PullbackMetric(ridge, 2), -2.0, 2.0, 100)
    z, y = torch.tensor([[-1.5, -0.5]]), torch.tensor([[1.5, -0.5]])
    shortest = GeodesicSolver(num_knots=16, num_segments=64, init="graph").squared_dist(grid, z, y).sqrt()
    assert float(shortest) < 2 * math.hypot(1.5, 2.5)  # a straight way round
    grid.solver = GeodesicSolver(on_failure="ignore")
    assert float(grid.dist(z, y)) > 1.4 * float(shortest)
    assert float(table_alone(grid).dist(z, y)) == pytest.approx(float(shortest), rel=1e-2)


def test_training_takes_it():
    vae = phase_two_vae(curve_data(60), "heat_kernel", "wrapped_normal", "fixed")
    svi = TwoPhases(vae, TrainingConfig(0, 1)).svi(pyro.optim.Adam({"lr": 1e-3}))
    assert isinstance(svi.loss.__self__, FrozenPosteriorELBO)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ValueError, match=r"`distances` is a share of the rows in \(0, 1\]"):
        FrozenPosteriorELBO(distances=share)
