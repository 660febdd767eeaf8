"""Geodesics of both twins: same weights, same discretisation, float64."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import pyro_riemann as here
import pyro_riemann.numpyro as twin

POINTS = np.random.default_rng(0).normal(size=(2, 5, 2))
SETTINGS = {"tolerance": 1e-16}


@cache
def pair(name: str) -> tuple[here.RiemannianMetric, twin.RiemannianMetric]:
    generator = torch.Generator().manual_seed(0)
    metric: here.RiemannianMetric
    if name == "decoder":
        network = nn.Sequential(nn.Linear(2, 12), nn.ELU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 20)).double()
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
        metric = here.PullbackMetric(network.requires_grad_(False), 2)
    else:
        centroids = torch.randn(6, 2, generator=generator, dtype=torch.float64)
        metric = here.KernelMetric(centroids, torch.full((6, 2), 3.0, dtype=torch.float64), 2.0, 0.5)
    metric.solver = here.GeodesicSolver(**SETTINGS)  # type: ignore[arg-type]
    other = twin.to_numpyro(metric)
    other.solver = twin.GeodesicSolver(**SETTINGS)  # type: ignore[arg-type]
    return metric, other


@pytest.mark.parametrize("name", ["decoder", "kernel"])
def test_squared_distances_and_their_gradients(name: str) -> None:
    metric, other = pair(name)
    z, y = (torch.from_numpy(points.copy()).requires_grad_() for points in POINTS)
    wanted = metric.squared_dist(z, y)
    slopes = torch.autograd.grad(wanted.sum(), (z, y))
    found, pull = jax.vjp(other.squared_dist, *map(jnp.asarray, POINTS))
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-9)
    for mine, theirs in zip(pull(jnp.ones_like(found)), slopes, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


def test_curves_logmap_and_van_vleck_determinant() -> None:
    metric, other = pair("decoder")
    z, y = map(torch.from_numpy, POINTS)
    mine, theirs = (
        other.geodesic(jnp.asarray(POINTS[0]), jnp.asarray(POINTS[1]), init="line"),
        metric.geodesic(z, y, init="line"),
    )
    np.testing.assert_array_equal(mine.converged, theirs.converged.numpy())
    np.testing.assert_allclose(mine.points, theirs.points.numpy(), rtol=0, atol=1e-8)
    np.testing.assert_allclose(mine.length, theirs.length.numpy(), rtol=1e-9)
    np.testing.assert_allclose(mine.energy, theirs.energy.numpy(), rtol=1e-9)
    np.testing.assert_allclose(
        other.log_van_vleck(*map(jnp.asarray, POINTS)), metric.log_van_vleck(z, y).numpy(), rtol=0, atol=1e-8
    )
    shoot, arrive = POINTS[0], POINTS[1] / 4
    np.testing.assert_allclose(
        other.expmap(jnp.asarray(shoot), jnp.asarray(arrive)), metric.expmap(*map(torch.from_numpy, (shoot, arrive)))
    )
