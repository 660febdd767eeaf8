"""The mixture of posteriors at pseudo-inputs."""

from __future__ import annotations

import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from pyro_riemann import RiemannianHeatKernel, RiemannianNormal, RiemannianWrappedNormal, Sphere, VampPrior
from pyro_riemann._estimate import Estimate
from tests.charts import warped_sphere
from tests.distributions._shared import F64, from_sphere, sphere_rule, total_mass

LOC = torch.tensor([[0.0, 0.0], [0.6, -0.3], [-0.4, 0.8]], dtype=F64)
LOGITS = torch.tensor([0.3, -0.5, 0.1], dtype=F64)


def test_normal_components_give_the_textbook_mixture() -> None:
    components = dist.Normal(LOC, 0.4).to_event(1)
    prior = VampPrior(components, LOGITS)
    exact = MixtureSameFamily(torch.distributions.Categorical(logits=LOGITS), components)
    z = torch.randn(5, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(prior.log_prob(z), exact.log_prob(z), atol=1e-12)
    assert torch.allclose(prior.mean, exact.mean)
    assert torch.allclose(prior.variance, exact.variance)
    assert prior.log_normalizer().value == 0
    assert prior.log_normalizer().standard_error == 0
    torch.manual_seed(0)
    draws = prior.sample((20000,))
    assert ((draws.mean(0) - exact.mean).abs() < 4 * (exact.variance / 20000).sqrt()).all()


def test_mass_of_a_mixture_of_what_is_not_normalised() -> None:
    """Masses 2 and 6 with weights 1/4 and 3/4 and relative errors 0.1 and 0.3: 5 in all, of which 1.4 are uncertain."""
    components = dist.Normal(LOC[:2], 0.4).to_event(1)
    masses = Estimate(torch.tensor([2.0, 6.0]).log(), torch.tensor([0.1, 0.3]))
    components.log_mass = lambda: masses
    value, error = VampPrior(components, torch.tensor([1.0, 3.0], dtype=F64).log()).log_normalizer()
    assert float(value) == pytest.approx(math.log(5))
    assert float(error) == pytest.approx(1.4 / 5)


@pytest.mark.parametrize("kind", ["heat", "wrapped", "normal"])
def test_mass_of_riemannian_mixtures(kind: str) -> None:
    metric = warped_sphere(2)
    loc = from_sphere(metric, LOC)
    components = {
        "heat": RiemannianHeatKernel(loc, torch.tensor([0.05, 0.1, 0.15], dtype=F64), metric),
        "wrapped": RiemannianWrappedNormal(loc, 0.1, metric),
        "normal": RiemannianNormal(loc, 0.3, metric),
    }[kind]
    prior = VampPrior(components, LOGITS)
    mass, error = prior.log_normalizer()
    assert abs(total_mass(prior.log_prob, metric, *sphere_rule(metric)) - mass.exp()) < 1e-7
    assert error < 1e-7
    if kind == "heat":
        assert mass < -0.01


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_shapes_expand_draws_and_pickle(batch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    metric = Sphere(2)
    components = RiemannianWrappedNormal(0.3 * torch.randn(*batch, 3, 2, dtype=F64), 0.001, metric)
    prior = VampPrior(components, LOGITS)
    assert (prior.batch_shape, prior.event_shape) == (batch, (2,))
    z = prior.sample((50,))
    assert z.shape == (50, *batch, 2)
    # every draw lies near one of the components of its own batch entry
    assert metric.dist(z.unsqueeze(-2), components.loc).amin(-1).max() < 0.2
    wide = prior.expand((5, *batch))
    assert wide.sample((2,)).shape == (2, 5, *batch, 2)
    value = wide.sample()
    assert torch.allclose(wide.log_prob(value), prior.log_prob(value))
    assert torch.equal(pickle.loads(pickle.dumps(prior)).log_prob(value), prior.log_prob(value))


def test_components_are_drawn_with_their_weights() -> None:
    torch.manual_seed(0)
    prior = VampPrior(RiemannianHeatKernel(LOC, 1e-4, Sphere(2), num_steps=1), LOGITS)
    z = prior.sample((5000,))
    share = (z.unsqueeze(-2) - LOC).norm(dim=-1).argmin(-1).bincount(minlength=3) / 5000
    weights = LOGITS.softmax(-1)
    assert ((share - weights).abs() < 4 * (weights * (1 - weights) / 5000).sqrt()).all()


def test_gradients_reach_components_and_weights() -> None:
    loc, logits = LOC.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    VampPrior(RiemannianWrappedNormal(loc, 0.1, Sphere(2)), logits).log_prob(torch.zeros(2, dtype=F64)).backward()
    assert loc.grad is not None
    assert logits.grad is not None
    assert abs(logits.grad.sum()) < 1e-12  # a common shift of the logits changes nothing


@pytest.mark.parametrize(
    "components, logits, name",
    [
        (dist.Normal(torch.zeros(3, 2), 1.0), None, "components"),
        (dist.Normal(torch.zeros(2), 1.0).to_event(1), None, "components"),
        (torch.zeros(3, 2), None, "components"),
        (dist.Normal(torch.zeros(3, 2), 1.0).to_event(1), torch.zeros(4), "logits"),
        (dist.Normal(torch.zeros(3, 2), 1.0).to_event(1), torch.zeros(3, dtype=F64), "logits"),
    ],
)
def test_bad_arguments_are_named(components: object, logits: Tensor | None, name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        VampPrior(components, logits)  # type: ignore[arg-type]
