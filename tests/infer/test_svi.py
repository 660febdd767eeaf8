"""Stochastic variational inference: every ELBO with every law."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam

from tests.infer.models import (
    LAWS,
    guide,
    law,
    local_guide,
    local_model,
    model,
    observations,
    posterior,
    prior,
    prior_guide,
    score_guide,
    sphere,
)

ELBOS = {
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "JitTrace_ELBO": partial(JitTrace_ELBO, ignore_jit_warnings=True),
}


# one law on both sides: what is not normalised cancels
@pytest.mark.filterwarnings("ignore:A RiemannianHeatKernel gives the density of its own draw:UserWarning")
@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("name", LAWS)
def test_loss_is_zero_where_guide_and_model_agree(name, elbo):
    """One law on both sides: every sample of the log ratio is 0, whatever the estimator."""
    estimator, sides = ELBOS[elbo](), (partial(prior, name), partial(prior_guide, name))
    if elbo == "TraceMeanField_ELBO" and not law(name).has_rsample:
        with pytest.raises(NotImplementedError, match="fully reparameterized"):
            estimator.loss(*sides)
        return
    assert abs(estimator.loss(*sides)) < 1e-8


@pytest.mark.parametrize("name", LAWS)
def test_vectorized_particles_are_as_many_independent_ones(name):
    """Same expectation: two means of 400 particles, one vectorised, within four standard errors."""
    data = observations()
    losses = torch.tensor([Trace_ELBO().loss(partial(model, name), partial(guide, name), data) for _ in range(200)])
    vectorized = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=1)
    together = vectorized.loss(partial(model, name), partial(guide, name), data)
    error = losses.std() * (1 / 200 + 1 / 400) ** 0.5
    assert abs(together - float(losses.mean())) < 4 * float(error)


@pytest.mark.parametrize("name", LAWS)
def test_compiled_gradient_is_the_gradient(name):
    data = observations()
    runs = []
    for elbo in (Trace_ELBO(), JitTrace_ELBO(ignore_jit_warnings=True)):
        pyro.clear_param_store()
        sides = partial(model, name), partial(guide, name)  # the same objects, or Pyro compiles anew
        elbo.loss_and_grads(*sides, data)
        parameters = [pyro.param(key).unconstrained() for key in ("centre", "spread")]
        for parameter in parameters:
            parameter.grad = None
        pyro.set_rng_seed(3)
        loss = elbo.loss_and_grads(*sides, data + 0.1)  # other data than the trace has seen
        runs.append([torch.tensor(loss), *(parameter.grad for parameter in parameters)])
    for eager, compiled in zip(*runs, strict=True):
        assert torch.allclose(eager, compiled, atol=1e-8)


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("name", LAWS)
def test_svi_learns_local_posteriors_from_subsamples(name, elbo):
    """The centres move to their own data; a subsample's loss is scaled to all data."""
    data = observations(12)
    arguments: tuple[object, ...] = (data, 4)
    # the compiled form keeps the indices it was traced with, as Pyro documents: no subsampling there
    if elbo == "JitTrace_ELBO":
        arguments = (data,)
    svi = SVI(partial(local_model, name), partial(local_guide, name), Adam({"lr": 0.05}), ELBOS[elbo]())
    full = Trace_ELBO(num_particles=20)
    svi.step(*arguments)
    before = full.loss(partial(local_model, name), partial(local_guide, name), data)
    for _ in range(60):
        svi.step(*arguments)
    assert full.loss(partial(local_model, name), partial(local_guide, name), data) < before - 1


@pytest.mark.parametrize("name", LAWS)
def test_subsampled_loss_is_unbiased(name):
    """Mean over subsamples against the loss of all data, four standard errors."""
    data = observations(8)
    one = torch.tensor(
        [Trace_ELBO().loss(partial(local_model, name), partial(local_guide, name), data, 4) for _ in range(200)]
    )
    all_data = torch.tensor(
        [Trace_ELBO().loss(partial(local_model, name), partial(local_guide, name), data) for _ in range(200)]
    )
    error = (one.var() / 200 + all_data.var() / 200).sqrt()
    assert abs(one.mean() - all_data.mean()) < 4 * error


@pytest.mark.parametrize("name", LAWS)
def test_guide_of_the_law_itself(name):
    """Pathwise or by the score function, the gradient estimates that of the expected loss."""
    data = observations(3)
    elbo = Trace_ELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=1)
    elbo.loss_and_grads(partial(model, name), partial(score_guide, name), data)
    spread = pyro.param("spread").unconstrained()
    if name == "uniform":  # its box is fixed: nothing to learn
        assert spread.grad is None or float(spread.grad.abs()) == 0
        return
    gradient, values = float(spread.grad), []
    for step in (-0.05, 0.05):
        pyro.clear_param_store()
        pyro.param(
            "spread",
            (torch.tensor(0.1, dtype=torch.float64).log() + step).exp(),
            torch.distributions.constraints.positive,
        )
        pyro.set_rng_seed(0)
        values.append(elbo.loss(partial(model, name), partial(score_guide, name), data))
    assert abs(gradient - (values[1] - values[0]) / 0.1) < 0.3


@pytest.mark.parametrize("name", LAWS)
def test_auto_normal_finds_the_mode(name):
    """The guide's median comes to the mean of the data, which outweigh the prior."""
    data = observations(40)
    guide = AutoNormal(partial(model, name))
    svi = SVI(partial(model, name), guide, Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(200):
        svi.step(data)
    z = guide.median(data)["z"]
    assert law(name).support.check(z)
    assert torch.allclose(z, data.mean(0), atol=0.12)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", LAWS)
def test_predictive_draws_from_the_prior_and_the_posterior(name, parallel):
    data = observations(4)
    draws = Predictive(partial(local_model, name), num_samples=50, parallel=parallel)(data)
    assert draws["z"].reshape(-1, 2).shape == (50 * 4, 2)
    assert law(name).support.check(draws["z"]).all()
    again = Predictive(partial(local_model, name), guide=partial(local_guide, name), num_samples=5, parallel=parallel)
    with torch.no_grad():
        assert again(data)["x"].shape[0] == 5


def test_parallel_predictive_has_the_law_of_the_prior():
    for name in LAWS:
        draws = Predictive(partial(prior, name), num_samples=2000, parallel=True)()["z"]
        own = law(name).sample((2000,))
        error = (draws.var(0) / 2000 + own.var(0) / 2000).sqrt()
        assert ((draws.mean(0) - own.mean(0)).abs() < 4 * error).all()


def test_prior_time_is_learned():
    """Gradients flow to a law's parameters in the model: time goes to the mean squared distance / d."""
    points = torch.tensor([[0.3, 0.0], [0.1, 0.3], [-0.2, -0.4]], dtype=torch.float64)

    def learned() -> None:
        time = pyro.param("time", torch.tensor(1.0, dtype=torch.float64), torch.distributions.constraints.positive)
        with pyro.plate("data", 3):
            pyro.sample("z", law("heat kernel", spread=time), obs=points)

    svi = SVI(learned, lambda: None, Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(400):
        svi.step()
    squared = sphere().squared_dist(torch.tensor([0.2, -0.1], dtype=torch.float64), points)
    assert torch.allclose(pyro.param("time"), squared.mean() / 2, rtol=1e-2)


def test_enumeration_is_refused():
    with pytest.raises(NotImplementedError):
        law("normal").enumerate_support()


def test_posterior_has_the_support_of_its_prior():
    for name in LAWS:
        centre = torch.zeros(2, dtype=torch.float64)
        assert law(name).support.check(posterior(name, centre).sample((100,))).all()
