"""Decoders that return distributions: both sides have the same images and metrics, each in its library's classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as theirs
import torch
from numpyro.distributions import Independent
from pyro.distributions import GammaPoisson, ZeroInflatedNegativeBinomial
from torch import Tensor
from torch import distributions as ours

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.metrics._families import known_family
from pyro_riemann.metrics._fisher import unwrapped
from pyro_riemann.numpyro.metrics._families import known_family as known_twin

RANDOM = np.random.default_rng(0)
FIRST, SECOND, THIRD = RANDOM.normal(size=(2, 6)), RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 4))
ROOT = np.eye(4) + np.tril(np.full((4, 4), 0.3))
Z = np.array([[0.3, -0.4], [-1.1, 0.2], [0.8, 0.9]])


def pair(xp: Any, z: Any) -> tuple[Any, Any]:
    weights = [xp.asarray(weight) for weight in (FIRST, SECOND, THIRD)]
    hidden = xp.tanh(z @ weights[0])
    return hidden @ weights[1], hidden @ weights[2]


def flat_in_torch(z: Tensor) -> tuple[Any, ...]:
    a, b = pair(torch, z)
    return (
        ours.Bernoulli(logits=a),
        ours.Bernoulli(b.sigmoid()),
        ours.Categorical(logits=a),
        ours.Categorical(b.softmax(-1)),
        ours.Poisson(b.exp()),
        ours.NegativeBinomial(2.5, logits=a),
        ours.NegativeBinomial(2.5, b.sigmoid()),
        GammaPoisson(2.5, a.exp()),
        ours.Independent(ours.Normal(b, torch.tensor([0.5, 1.0, 2.0, 3.0])), 1),
        ours.LogNormal(a, 0.7),
        ours.Laplace(b, 0.7),
        ours.StudentT(3.0, a, 0.7),
        ours.MultivariateNormal(b, scale_tril=torch.from_numpy(ROOT)),
        ours.Exponential(a.exp()),
        ours.Gamma(2.5, b.exp()),
        ours.VonMises(a, torch.tensor(1.7, dtype=torch.float64)),
    )


def flat_in_jax(z: Any) -> tuple[Any, ...]:
    a, b = pair(jnp, z)
    return (
        theirs.Bernoulli(logits=a),
        theirs.Bernoulli(jax.nn.sigmoid(b)),
        theirs.Categorical(logits=a),
        theirs.Categorical(jax.nn.softmax(b)),
        theirs.Poisson(jnp.exp(b)),
        theirs.NegativeBinomialLogits(2.5, a),
        theirs.NegativeBinomialProbs(2.5, jax.nn.sigmoid(b)),
        theirs.NegativeBinomial2(2.5 * jnp.exp(-a), 2.5),
        theirs.Normal(b, jnp.array([0.5, 1.0, 2.0, 3.0])).to_event(1),
        theirs.LogNormal(a, 0.7),
        theirs.Laplace(b, 0.7),
        theirs.StudentT(3.0, a, 0.7),
        theirs.MultivariateNormal(b, scale_tril=ROOT),
        theirs.Exponential(jnp.exp(a)),
        theirs.Gamma(2.5, jnp.exp(b)),
        theirs.VonMises(a, 1.7),
    )


def curved_in_torch(z: Tensor) -> dict[str, Any]:
    a, b = pair(torch, z)
    counts = ZeroInflatedNegativeBinomial(2.5, logits=a, gate_logits=b, validate_args=False)
    normals, waits = ours.Normal(a, b.exp()), ours.Gamma(a.exp(), b.exp())
    return {"w": counts, "x": normals, "y": waits, "z": ours.Poisson(b.exp())}


def curved_in_jax(z: Any) -> dict[str, Any]:
    a, b = pair(jnp, z)
    return {
        "w": theirs.ZeroInflatedNegativeBinomial2(2.5 * jnp.exp(a), 2.5, gate_logits=b),
        "x": theirs.Normal(a, jnp.exp(b)),
        "y": theirs.Gamma(jnp.exp(a), jnp.exp(b)),
        "z": theirs.Poisson(jnp.exp(b)),
    }


def test_the_same_immersions() -> None:
    laws, twins = flat_in_torch(torch.from_numpy(Z)), flat_in_jax(Z)
    for law, other in zip(laws, twins, strict=True):
        law, other = unwrapped(law), other.base_dist if isinstance(other, Independent) else other
        family, twin_family = known_family(law), known_twin(other)
        assert family is not None
        assert twin_family is not None
        np.testing.assert_allclose(twin_family.immersion(other), family.immersion(law), rtol=1e-9, atol=1e-9)


def test_the_same_metric() -> None:
    metric, other = here.PullbackMetric(curved_in_torch, 2), twin.PullbackMetric(curved_in_jax, 2)
    np.testing.assert_allclose(other.metric(Z), metric.metric(torch.from_numpy(Z)), rtol=1e-8)
