"""The mixture proposal is the density that it draws from; its peaks are peaks."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann import KernelMetric
from pyro_riemann._formulas import climbs
from pyro_riemann.distributions._box import log_volume_slope
from pyro_riemann.distributions._box_fit import fit_proposal, steps_to_forget
from pyro_riemann.distributions._box_law import independence_chain
from pyro_riemann.distributions._box_mixture import GaussianParts, MixtureProposal, effective_share
from pyro_riemann.distributions._box_peaks import Landscape
from pyro_riemann.distributions._box_tempered import systematic

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
    proposal = fit_proposal(metric, LOW, HIGH).proposal if fitted else MixtureProposal.of_peaks(metric, LOW, HIGH)
    points, cell = grid()
    density = proposal.log_prob(points).exp()
    assert abs(float(density.sum()) * cell - 1) < 1e-5
    draws = proposal.draw(20_000, torch.Generator().manual_seed(0))
    mean, second = density @ points * cell, density @ points.square() * cell
    assert torch.all((draws.mean(0) - mean).abs() < 4 * draws.std(0) / 20_000**0.5)
    assert torch.all((draws.square().mean(0) - second).abs() < 4 * draws.square().std(0) / 20_000**0.5)


@pytest.mark.parametrize("full", [False, True])
def test_parts_are_textbook_gaussians(full: bool) -> None:
    metric = kernel(dim=3, full=full)
    precisions = metric.precisions if full else torch.diag_embed(metric.precisions)
    covariance = torch.linalg.inv(precisions)
    weight = torch.rand(6, dtype=DTYPE)
    parts = GaussianParts(metric.centroids, covariance if full else 1 / metric.precisions, weight.log())
    z = 2 * torch.randn(50, 3, dtype=DTYPE)
    law = torch.distributions.MultivariateNormal(metric.centroids, covariance)
    expected = (law.log_prob(z.unsqueeze(1)) + (weight / weight.sum()).log()).logsumexp(-1)
    # sums of exponentials are in single precision
    torch.testing.assert_close(parts.log_prob(z), expected, rtol=1e-6, atol=1e-6)


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
    land = Landscape(metric, low, -low)
    bumps = climbs.bumps(land, land.climb(land.look(), 512), 64)
    loc, covariance, log_mass = land.chart(bumps)
    assert 1 <= len(loc) <= 12  # a few in the void beside the six, where the floor is flat
    top = log_mass.argmax()
    hessian = torch.autograd.functional.hessian(lambda z: 0.5 * metric.logdet(z), loc[top])
    slope = 0.5 * metric.logdet_gradient(loc[top])
    assert float((slope * covariance[top].diagonal().sqrt()).abs().max()) < 0.03  # standard deviations away
    torch.testing.assert_close(covariance[top], -torch.linalg.inv(hessian), rtol=2e-2, atol=1e-3)


def test_fit_improves_where_bumps_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(200, 12, generator=generator)
    metric = KernelMetric(centroids, torch.full((200, 12), 4.0), 5.0, 1e-4)
    box = torch.full((12,), 12.0)
    bumps = MixtureProposal.of_peaks(metric, -box, box)
    before = effective_share(bumps.weigh(metric, bumps.draw(4000, generator), torch.float32))
    fitted = fit_proposal(metric, -box, box)
    after = effective_share(fitted.proposal.weigh(metric, fitted.proposal.draw(4000, generator), torch.float32))
    assert before < 0.3
    assert after > 0.6
    assert abs(fitted.efficiency - after) < 0.1
    assert "fitted to the peaks" in fitted.reason
    assert float(fitted.proposal.shares[1]) >= 0.09  # the bumps stay within reach


def test_fit_is_deterministic_and_takes_no_random_numbers() -> None:
    state = torch.get_rng_state()
    fits = [fit_proposal(kernel(spread=0.3), LOW, HIGH) for _ in range(2)]
    assert fits[0].efficiency == fits[1].efficiency
    assert torch.equal(fits[0].proposal.blocks[0].loc, fits[1].proposal.blocks[0].loc)
    assert torch.equal(torch.get_rng_state(), state)


def test_independence_chain_has_the_law_of_its_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    proposals = torch.randint(4, (4000, 30), generator=generator)  # uniform over four states
    target = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DTYPE)
    path = independence_chain(target.log()[proposals], generator)
    ends = proposals.gather(1, path)[:, -1]
    assert stats.chisquare(torch.bincount(ends).numpy(), (4000 * target).numpy()).pvalue > 1e-3
    # the heaviest state, of weight 1.6, forgets at the rate 1 - 1 / 1.6 a step: 0.4 of it at 8 steps is 2e-4
    assert steps_to_forget(target.log()[proposals].flatten(), bias=1e-3, most=64) == 8


def test_chain_leaves_a_start_outside_the_box() -> None:
    weights = torch.tensor([[-torch.inf, -torch.inf, 0.0, -torch.inf]], dtype=DTYPE)
    assert independence_chain(weights).tolist()[0][2:] == [2, 2]


def test_systematic_resampling_keeps_expected_counts() -> None:
    weights = torch.rand(3, 50, dtype=DTYPE)
    weights = weights / weights.sum(1, keepdim=True)
    chosen = systematic(weights, 200, torch.Generator().manual_seed(0))
    assert torch.all(chosen.diff(dim=1) >= 0)
    for row, weight in zip(chosen, weights, strict=True):
        assert torch.all((torch.bincount(row, minlength=50) - 200 * weight).abs() < 1)


@pytest.mark.parametrize("full", [False, True])
def test_slopes_are_those_of_the_densities(full: bool) -> None:
    """Closed forms against automatic differentiation: of the volume element, and of a mixture in single precision."""
    metric = kernel(spread=0.3)
    proposal = MixtureProposal.of_peaks(metric, LOW, HIGH)
    if full:
        block = proposal.blocks[0]
        turned = torch.diag_embed(block.covariance) + 0.05 * block.covariance.min()
        proposal = MixtureProposal([GaussianParts(block.loc, turned, block.log_weight)], proposal.shares, LOW, HIGH)
    z = proposal.draw(50, torch.Generator().manual_seed(0)).clamp(LOW, HIGH).requires_grad_()
    found = [(proposal.with_slope(z.detach()), proposal.log_prob(z))]
    found += [(log_volume_slope(metric, z.detach().to(LOW)), 0.5 * metric.logdet(z.to(LOW)))]
    for (value, slope), reference in found:
        (gradient,) = torch.autograd.grad(reference.sum(), z)
        torch.testing.assert_close(value, reference.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            slope.double(), gradient.double(), rtol=1e-4, atol=1e-4 * float(gradient.abs().max())
        )
