"""Honest numbers: one value in every mode, a normalised posterior, what is folded is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_riemann import RiemannianHeatKernel, RiemannianWrappedNormal, Sphere
from pyro_riemann.manifolds import HalfSpace
from pyro_riemann.vae import FrozenPosteriorELBO, elbo_terms, evaluate, importance_log_likelihood, make_vae, prior_mass
from pyro_riemann.vae._evaluate import evaluation_mode
from tests.vae._models import curve_data

DATA = curve_data(12)
F64 = torch.float64


def curved_vae(posterior: str, metric: Any, time_factor: float = 3.0, **settings: Any) -> Any:
    vae = make_vae(6, metric.dim, "normal", posterior, metric, hidden=(8,), num_centers=4, seed=0, **settings).double()
    if vae.posterior_family.riemannian:
        vae.posterior_family.log_time_factor.data.fill_(time_factor)
    return vae.requires_grad_(False)


MEASURES: dict[str, Callable[[Any], Any]] = {
    "elbo_terms": lambda vae: elbo_terms(vae, DATA, 5).elbo,
    "importance": lambda vae: importance_log_likelihood(vae, DATA, 5),
    "evaluate": lambda vae: torch.tensor(list(evaluate(vae, DATA, num_importance=5).values())),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("dim", [2, 5])
def test_evaluation_is_the_same_in_every_mode(dim: int, name: str) -> None:
    vae = curved_vae("wrapped_normal", HalfSpace(dim))
    expected = MEASURES[name](vae.eval())
    fresh = make_vae(6, dim, "normal", "wrapped_normal", HalfSpace(dim), hidden=(8,), num_centers=4, seed=1).double()
    fresh.load_state_dict(vae.state_dict())
    fresh.encoder.eval()  # modes are restored module by module
    assert torch.equal(MEASURES[name](fresh), expected)
    with torch.no_grad():
        assert torch.equal(MEASURES[name](fresh), expected)
    assert (fresh.training, fresh.encoder.training, fresh.decoder.training) == (True, False, True)


def test_densities_do_not_depend_on_the_mode() -> None:
    """Nothing is trained: what a step of training leaves out is there in any mode."""
    vae = curved_vae("wrapped_normal", HalfSpace(3))
    losses = []
    for mode in (True, False):
        vae.train(mode)
        with pyro.get_param_store().scope():
            torch.manual_seed(0)
            losses.append(Trace_ELBO().loss(vae.model, vae.guide, DATA))
            torch.manual_seed(0)
            losses.append(float(Trace_ELBO().differentiable_loss(vae.model, vae.guide, DATA)))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)
    with pyro.get_param_store().scope():
        torch.manual_seed(0)
        assert FrozenPosteriorELBO().loss(vae.model, vae.guide, DATA) != pytest.approx(losses[0], abs=1e-3)


def test_a_heat_kernel_posterior_is_divided_by_its_mass() -> None:
    vae = curved_vae("heat_kernel", Sphere(2), time_factor=2.0, posterior_steps=2)
    with pytest.warns(UserWarning, match="not normalised"):
        honest = elbo_terms(vae, DATA, 3)
    with torch.no_grad(), evaluation_mode(vae):
        posterior = vae.posterior(DATA)
        mass = posterior.log_mass().value
        torch.manual_seed(0)
        z = posterior.rsample((3,))
        kl = (posterior.log_prob(z) - vae.prior_distribution().log_prob(z)).mean(0)
        normalized = RiemannianHeatKernel(posterior.loc, posterior.time, posterior.metric, normalize=True)
    assert mass.abs().mean() > 0.01
    assert torch.allclose(honest.kl, kl - mass, atol=1e-10)

    def proposal(rows: torch.Tensor) -> RiemannianHeatKernel:
        return normalized

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = importance_log_likelihood(vae, DATA, 4, proposal=proposal, chunk_size=10**6)
    normalized.normalize = False
    with pytest.warns(UserWarning, match="not normalised"):
        other = importance_log_likelihood(vae, DATA, 4, proposal=proposal, chunk_size=10**6)
    # the same density and, by num_steps, not the same draws: the proposals differ in nothing else
    assert torch.allclose(one, other, atol=1e-10)


def test_what_is_normalised_has_mass_one() -> None:
    vae = curved_vae("wrapped_normal", Sphere(2))
    kernel = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 0.5, Sphere(2), normalize=True)
    assert float(prior_mass(vae, kernel).value) == 0.0
    unnormalized = RiemannianHeatKernel(torch.zeros(2, dtype=F64), 0.5, Sphere(2))
    assert abs(float(prior_mass(vae, unnormalized).value)) > 0.01


def test_the_report_says_what_is_folded() -> None:
    metric = Sphere(2)
    exact = evaluate(curved_vae("wrapped_normal", metric, 2.0), DATA[:3], num_importance=0)
    assert exact["posterior_folded_mass"] == 0.0  # a closed form counts all geodesics
    flat = evaluate(curved_vae("normal", metric), DATA[:3], num_importance=0)
    assert "posterior_folded_mass" not in flat
    assert isinstance(curved_vae("wrapped_normal", metric).posterior(DATA), RiemannianWrappedNormal)
