"""Scaled metrics, products and positive definite matrices: both twins have the same laws."""

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
from pyro_riemann.manifolds import SPD, HalfSpace, ProductMetric, ScaledMetric
from pyro_riemann.numpyro import to_numpyro
from pyro_riemann.numpyro.manifolds import ScaledMetric as TwinScaled

close: Any = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
PRODUCT = ProductMetric([here.Sphere(2, 0.9), ScaledMetric(HalfSpace(1), 2.0), here.FlatTorus(1, 3.0)])


def some_points(dim: int) -> np.ndarray:
    return np.random.default_rng(dim).uniform(-0.5, 0.5, (2, 3, dim))


@pytest.mark.parametrize("law", ["RiemannianNormal", "RiemannianWrappedNormal", "RiemannianHeatKernel"])
def test_laws_on_a_product(law: str) -> None:
    z, y = some_points(PRODUCT.dim)
    ours = getattr(here, law)(torch.tensor(z), 0.4, PRODUCT)
    theirs = to_numpyro(ours)
    assert isinstance(theirs, getattr(twin, law))
    close(theirs.log_prob(jnp.asarray(y)), ours.log_prob(torch.tensor(y)))
    if law == "RiemannianNormal":
        close(theirs.log_normalizer().value, ours.log_normalizer().value)
        assert theirs.sampling_report.method == "exact"


def test_draws_and_moments_on_a_product() -> None:
    product = ProductMetric([ScaledMetric(here.EuclideanMetric(1), 4.0), here.FlatTorus(1, 2.0)])
    ours = here.RiemannianNormal(torch.tensor(some_points(2)[0]), 0.6, product)
    theirs = to_numpyro(ours)
    close(theirs.mean, ours.mean)
    close(theirs.variance, ours.variance)
    draws = theirs.sample(jax.random.key(0), (4000,))
    assert (np.abs(draws.mean(0) - theirs.mean) < 4 * np.sqrt(theirs.variance / 4000)).all()
    assert (np.abs(draws.var(0) / theirs.variance - 1) < 4 * np.sqrt(2 / 4000)).all()


def test_factor_is_differentiated_under_jit() -> None:
    z, y = some_points(2)

    @jax.jit
    def total(factor: Array) -> Array:
        law = twin.RiemannianNormal(jnp.asarray(z), 0.4, TwinScaled(twin.Sphere(2), factor))
        return law.log_prob(jnp.asarray(y)).sum()

    factor = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    ours = here.RiemannianNormal(torch.tensor(z), 0.4, ScaledMetric(here.Sphere(2), factor)).log_prob(torch.tensor(y))
    (slope,) = torch.autograd.grad(ours.sum(), factor)
    close(jax.grad(total)(jnp.asarray(1.7)), slope)


def test_matrices_and_ambient_coordinates() -> None:
    ours = SPD(3)
    theirs = to_numpyro(ours)
    z, y = some_points(ours.dim)
    close(theirs.to_matrix(jnp.asarray(z)), ours.to_matrix(torch.tensor(z)))
    close(theirs.from_matrix(theirs.to_matrix(jnp.asarray(z))), z)
    close(theirs.squared_dist(jnp.asarray(z), jnp.asarray(y)), ours.squared_dist(torch.tensor(z), torch.tensor(y)))
    small, one = to_numpyro(SPD(2)), jnp.zeros(3)
    close(jax.grad(lambda x: small.log_van_vleck(x, one))(one), np.zeros(3))
    close(jax.jit(jax.hessian(lambda x: small.squared_dist(x, one) / 2))(one), small.metric(one))
    for metric, shape, hint in (
        (theirs, (4, 3, 3), "SPD.from_matrix"),
        (twin.Sphere(2, 2.0), (4, 3), "Sphere.from_ambient"),
        (to_numpyro(PRODUCT), (5,), "Sphere\\(2\\), ScaledMetric\\(1\\)"),
    ):
        with pytest.raises(ValueError, match=hint):
            metric.squared_dist(jnp.ones(shape), jnp.ones(shape))
    curved, flat = to_numpyro(here.Hyperbolic(3, -2.0)), here.Hyperbolic(3, -2.0)
    close(curved.to_ambient(jnp.asarray(z[:, :3])), flat.to_ambient(torch.tensor(z[:, :3])))
    close(curved.from_ambient(curved.to_ambient(jnp.asarray(z[:, :3]))), z[:, :3])
