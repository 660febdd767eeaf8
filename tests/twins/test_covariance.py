"""Wrapped normals with a covariance: both twins have the same densities and moments."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.manifolds import Hyperboloid
from pyro_riemann.numpyro import to_numpyro

close: Any = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
LONG = torch.tensor([[0.9, 0.0], [-0.5, 0.3]], dtype=torch.float64)
METRICS = [here.EuclideanMetric(2), here.Sphere(2, 1.3), Hyperboloid(2), here.FlatTorus(2, [3.0, float("inf")])]


@jax.jit
def density(law: twin.RiemannianWrappedNormal, y: Array) -> Array:
    return law.log_prob(y)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_densities_moments_and_draws(metric: here.RiemannianMetric) -> None:
    z, y = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 2))
    ours = here.RiemannianWrappedNormal(torch.tensor(z), None, metric, scale_tril=LONG)
    theirs = to_numpyro(ours)
    close(theirs.log_prob(jnp.asarray(y)), ours.log_prob(torch.tensor(y)))
    close(density(theirs, jnp.asarray(y)), ours.log_prob(torch.tensor(y)))
    close(theirs.mean, ours.mean)
    close(theirs.variance, ours.variance)
    assert theirs.sample(jax.random.key(0), (5,)).shape == (5, 3, 2)
    if type(metric) is here.EuclideanMetric:
        assert theirs.take(jnp.array([2, 0])).scale_tril.shape == (2, 2, 2)
        assert "scale_tril" in repr(theirs)


def test_entropies_are_the_gaussian_s() -> None:
    metric = here.ConstantMetric(torch.tensor([[2.0, 0.3], [0.3, 0.5]], dtype=torch.float64))
    loc, times = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    wide = here.RiemannianWrappedNormal(loc, None, metric, scale_tril=LONG.expand(3, 2, 2))
    round_ones = here.RiemannianWrappedNormal(loc, times, metric)
    for law, covariance in (
        (wide, (LONG @ LONG.mT).expand(3, 2, 2)),
        (round_ones, times[:, None, None] * torch.linalg.inv(metric.metric(loc))),
    ):
        exact = torch.distributions.MultivariateNormal(loc, covariance).entropy()
        close(law.entropy(), exact)
        close(to_numpyro(law).entropy(), exact)


@pytest.mark.parametrize("covariance", [False, True])
def test_laws_at_an_index_of_the_last_axis_of_a_batch(covariance: bool) -> None:
    """Of two rows of three laws, four times one of each row: centres and spreads are those at the index."""
    random = np.random.default_rng(0)
    loc, index = random.normal(size=(2, 3, 2)), np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    spread = random.uniform(0.1, 0.9, (2, 3))
    if covariance:
        spread = spread[..., None, None] * LONG.numpy()
    wanted = [np.stack([part[row, index[:, row]] for row in range(2)], 1) for part in (loc, spread)]
    name = "scale_tril" if covariance else "time"
    settings = {"scale_tril": None, "time": None}
    ours = here.RiemannianWrappedNormal(
        torch.tensor(loc), metric=here.Sphere(2), **(settings | {name: torch.tensor(spread)})
    )
    theirs = twin.RiemannianWrappedNormal(
        jnp.asarray(loc), metric=twin.Sphere(2), **(settings | {name: jnp.asarray(spread)})
    )
    for taken in (ours.take(torch.tensor(index)), theirs.take(jnp.asarray(index))):
        assert tuple(taken.batch_shape) == (4, 2)
        close(taken.loc, wanted[0])
        close(getattr(taken, name), wanted[1])


def test_what_is_too_wide_or_wrong_is_said() -> None:
    z = jnp.zeros((3, 2))
    wide = twin.RiemannianWrappedNormal(z, None, twin.FlatTorus(2, 0.1), scale_tril=jnp.eye(2))
    with pytest.raises(NotImplementedError, match="images"):
        wide.log_prob(z)
    assert jnp.isnan(density(wide, z)).all()
    with pytest.raises(ValueError, match="Give one"):
        twin.RiemannianWrappedNormal(z, 0.1, twin.Sphere(2), scale_tril=jnp.eye(2))
    with pytest.raises(ValueError, match="lower triangular"):
        twin.RiemannianWrappedNormal(z, None, twin.Sphere(2), scale_tril=jnp.ones((2, 2)))


def test_the_gradient_is_that_of_torch() -> None:
    z, y = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 2))
    factor = LONG.clone().requires_grad_()
    ours = here.RiemannianWrappedNormal(torch.tensor(z), None, here.Sphere(2), scale_tril=factor)
    (slope,) = torch.autograd.grad(ours.log_prob(torch.tensor(y)).sum(), factor)

    @jax.jit
    def total(factor: Array) -> Array:
        law = twin.RiemannianWrappedNormal(jnp.asarray(z), None, twin.Sphere(2), scale_tril=factor)
        return law.log_prob(jnp.asarray(y)).sum()

    close(np.tril(jax.grad(total)(jnp.asarray(LONG.numpy()))), slope.tril())
