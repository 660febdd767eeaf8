"""The uniform law of both twins on the same metrics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.manifolds import HalfSpace
from pyro_riemann.numpyro.manifolds import HalfSpace as TwinHalfSpace


def kernel(dim: int) -> tuple[here.KernelMetric, twin.KernelMetric]:
    generator = np.random.default_rng(1)
    centroids, precisions = generator.normal(size=(12, dim)), generator.uniform(0.3, 0.7, (12, dim)) ** -2
    return (
        here.KernelMetric(torch.from_numpy(centroids), torch.from_numpy(precisions), 1.5, 2.0**-7),
        twin.KernelMetric(jnp.asarray(centroids), jnp.asarray(precisions), 1.5, 2.0**-7),
    )


def half_plane(dim: int) -> tuple[HalfSpace, TwinHalfSpace]:
    return HalfSpace(dim), TwinHalfSpace(dim)


@pytest.mark.parametrize("make", [half_plane, kernel])
def test_densities_moments_and_gradients_agree_in_the_plane(make: Any) -> None:
    pair = make(2)
    low, high = np.array([-1.0, -1.5]), np.array([1.0, 2.0])
    z = np.random.default_rng(0).uniform(-0.9, 0.9, (5, 2))
    expected = here.RiemannianUniform(pair[0], torch.from_numpy(low), torch.from_numpy(high))
    law = twin.RiemannianUniform(pair[1], low, high)
    leaf = torch.from_numpy(z).requires_grad_()
    log_prob = expected.log_prob(leaf)
    np.testing.assert_allclose(law.log_volume().value, expected.log_volume().value, rtol=0, atol=1e-9)
    np.testing.assert_allclose(law.log_prob(jnp.asarray(z)), log_prob.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(law.mean, expected.mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(law.variance, expected.variance, rtol=0, atol=1e-9)
    slope = jax.grad(lambda point: law.log_prob(point).sum())(jnp.asarray(z))
    np.testing.assert_allclose(slope, torch.autograd.grad(log_prob.sum(), leaf)[0], rtol=0, atol=1e-9)


def test_mixtures_of_both_sides_estimate_one_volume() -> None:
    """Quasi-random points differ; all else is equal, and the volumes agree within their errors."""
    metric, twin_metric = kernel(5)
    expected, law = here.RiemannianUniform(metric, -4.0, 4.0), twin.RiemannianUniform(twin_metric, -4.0, 4.0)
    ours, theirs = law.log_volume(), expected.log_volume()
    gap = ours.value.item() - theirs.value.item()
    assert abs(gap) < 4 * float(np.hypot(ours.standard_error.item(), theirs.standard_error.item()))
    z = np.random.default_rng(0).uniform(-1, 1, (5, 5))
    difference = np.asarray(law.log_prob(jnp.asarray(z))) - expected.log_prob(torch.from_numpy(z)).detach().numpy()
    np.testing.assert_allclose(difference, -gap, rtol=0, atol=1e-9)
