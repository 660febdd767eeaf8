"""The mixture proposal is the density that it draws from; its peaks are peaks."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann import KernelMetric
from pyro_riemann._formulas import climbs, unit_fit
from pyro_riemann._formulas.unit_mixture import UnitMixture
from pyro_riemann.sampling import MixtureProposal
from pyro_riemann.sampling._law import independence_chain
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import Target

DTYPE = torch.float64
LOW, HIGH = torch.full((2,), -6.0, dtype=DTYPE), torch.full((2,), 6.0, dtype=DTYPE)


def kernel(dim: int = 2, full: bool = False, spread: float = 1.0, count: int = 6) -> KernelMetric:
    generator = torch.Generator().manual_seed(3)
    centroids = spread * torch.randn(count, dim, generator=generator, dtype=DTYPE)
    precisions = 2 + 4 * torch.rand(count, dim, generator=generator, dtype=DTYPE)
    if full:
        tilt = torch.eye(dim, dtype=DTYPE) + 0.4 * torch.ones(dim, dim, dtype=DTYPE).tril(-1)
        precisions = tilt @ torch.diag_embed(precisions) @ tilt.mT
    return KernelMetric(centroids, precisions, 1.2, 1e-2)


def grid(steps: int = 400) -> tuple[Tensor, float]:
    axis = -6 + 12 * (torch.arange(steps, dtype=DTYPE) + 0.5) / steps
    return torch.cartesian_prod(axis, axis), (12 / steps) ** 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("fitted", [False, True])
def test_density_has_mass_one_and_is_that_of_the_draws(full: bool, fitted: bool) -> None:
    metric = kernel(full=full, spread=0.3 if fitted else 1.0)
    proposal = MixtureProposal.of_peaks(metric, LOW, HIGH)
    if fitted:
        target = Target(metric, LOW, HIGH)
        proposal = proposal._replace(unit=target.on_device(target.proposal().mixture))
    points, cell = grid()
    density = proposal.log_prob(points).exp()
    assert abs(float(density.sum()) * cell - 1) < 1e-5
    draws = proposal.draw(20_000, torch.Generator().manual_seed(0))
    mean, second = density @ points * cell, density @ points.square() * cell
    assert torch.all((draws.mean(0) - mean).abs() < 4 * draws.std(0) / 20_000**0.5)
    assert torch.all((draws.square().mean(0) - second).abs() < 4 * draws.square().std(0) / 20_000**0.5)


def test_one_isolated_bump_leaves_nothing_to_weigh() -> None:
    metric = KernelMetric(torch.zeros(1, 4, dtype=DTYPE), torch.full((1, 4), 9.0, dtype=DTYPE), 1.0, 1e-12)
    box = torch.full((4,), 3.0, dtype=DTYPE)
    proposal = MixtureProposal.of_peaks(metric, -box, box)
    z = proposal.draw(500, torch.Generator().manual_seed(0))
    near = ((z.square() * 9).sum(-1) < 6) & (z.abs() < 3).all(-1)  # where the bump outweighs the uniform part
    log_weight = proposal.weigh(metric, z, DTYPE)[near]
    exact = 2 * math.log(2 * math.pi / 4) - math.log(0.95)
    assert torch.all(log_weight < exact + 1e-6)
    assert float((log_weight - exact).abs().median()) < 1e-3


@pytest.mark.parametrize("full", [False, True])
def test_climbs_end_at_maxima_with_their_curvature(full: bool) -> None:
    metric = kernel(dim=3, full=full, spread=0.5)
    low = torch.full((3,), -6.0, dtype=DTYPE)
    land = Target(metric, low, -low).land
    bumps = climbs.bumps(land.slopes, unit_fit._climbs(land, unit_fit._look(land, 0), 512), 64)
    loc, covariance = low + 12 * torch.from_numpy(bumps.loc), 144 * torch.from_numpy(bumps.covariance)
    log_mass = torch.from_numpy(bumps.log_mass)
    assert 1 <= len(loc) <= 12  # a few in the void beside the six, where the floor is flat
    top = log_mass.argmax()
    hessian = torch.autograd.functional.hessian(lambda z: 0.5 * metric.logdet(z), loc[top])
    slope = 0.5 * metric.logdet_gradient(loc[top])
    assert float((slope * covariance[top].diagonal().sqrt()).abs().max()) < 0.03  # standard deviations away
    torch.testing.assert_close(covariance[top], -torch.linalg.inv(hessian), rtol=2e-2, atol=1e-3)


def effective_share(log_weight: Tensor) -> float:
    return float((2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()) / len(log_weight)


def test_fit_improves_where_bumps_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(200, 12, generator=generator)
    metric = KernelMetric(centroids, torch.full((200, 12), 4.0), 5.0, 1e-4)
    box = torch.full((12,), 12.0)
    bumps = MixtureProposal.of_peaks(metric, -box, box)
    before = effective_share(bumps.weigh(metric, bumps.draw(4000, generator), torch.float32))
    target = Target(metric, -box, box)
    fitted = target.proposal()
    proposal = bumps._replace(unit=target.on_device(fitted.mixture))
    after = effective_share(proposal.weigh(metric, proposal.draw(4000, generator), torch.float32))
    assert before < 0.3
    assert after > 0.6
    assert abs(fitted.efficiency - after) < 0.1
    assert "fitted to the peaks" in fitted.reason
    assert float(proposal.shares[-201:-1].sum()) >= 0.09  # the bumps stay within reach


def test_fit_is_deterministic_and_takes_no_random_numbers() -> None:
    state = torch.get_rng_state()
    fits = [unit_fit.fit(Target(kernel(spread=0.3), LOW, HIGH).land) for _ in range(2)]
    assert fits[0].efficiency == fits[1].efficiency
    assert (fits[0].mixture.loc == fits[1].mixture.loc).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_independence_chain_has_the_law_of_its_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    proposals = torch.randint(4, (4000, 30), generator=generator)  # uniform over four states
    target = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DTYPE)
    path = independence_chain(target.log()[proposals], generator)
    ends = proposals.gather(1, path)[:, -1]
    assert stats.chisquare(torch.bincount(ends).numpy(), (4000 * target).numpy()).pvalue > 1e-3


def test_chain_leaves_a_start_outside_the_box() -> None:
    weights = torch.tensor([[-torch.inf, -torch.inf, 0.0, -torch.inf]], dtype=DTYPE)
    assert independence_chain(weights).tolist()[0][2:] == [2, 2]


@pytest.mark.parametrize("full", [False, True])
def test_slopes_are_those_of_the_densities(full: bool) -> None:
    """Closed forms against automatic differentiation: of the volume element, and of a mixture."""
    metric = kernel(full=full, spread=0.3)
    proposal, target = MixtureProposal.of_peaks(metric, LOW, HIGH), Target(metric, LOW, HIGH)
    z = target.unit(proposal.draw(50, torch.Generator().manual_seed(0))).clamp(0, 1).requires_grad_()
    mixture: UnitMixture = proposal.unit
    log_volume_element = 0.5 * metric.logdet(LOW + (HIGH - LOW) * z) + (HIGH - LOW).log().sum()
    found = [(mixture.slopes(RUNTIME, z.detach()), mixture.log_prob(RUNTIME, z))]
    found += [(target.slopes(z.detach()), log_volume_element)]
    for (value, slope), reference in found:
        (gradient,) = torch.autograd.grad(reference.sum(), z)
        torch.testing.assert_close(value, reference.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(slope, gradient, rtol=1e-7, atol=1e-7 * float(gradient.abs().max()))
