"""Brownian paths of both twins, driven by the same noise."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.brownian import METHODS, default_method
from pyro_riemann.numpyro.brownian import METHODS as TWIN_METHODS
from pyro_riemann.numpyro.brownian import default_method as twin_default

NOISE = np.random.default_rng(0).normal(size=(6, 4, 3, 2))
START = np.random.default_rng(1).normal(size=(4, 3, 2)) / 2
TIME = np.array([0.05, 0.1, 0.2])


def metrics() -> dict[str, here.RiemannianMetric]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 9), nn.ELU(), nn.Linear(9, 12)).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    centroids = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return {
        "decoder": here.PullbackMetric(network, 2),
        "kernel": here.KernelMetric(centroids, torch.full((6, 2), 3.0, dtype=torch.float64), 2.0, 0.5),
        "sphere": here.Sphere(2),
    }


@pytest.mark.parametrize("name", ["decoder", "kernel", "sphere"])
def test_paths(name: str) -> None:
    metric = metrics()[name]
    other = twin.to_numpyro(metric)
    assert METHODS == TWIN_METHODS
    assert default_method(metric) == twin_default(other)
    for method in METHODS if name == "decoder" else (default_method(metric),):
        wanted = here.brownian_motion(
            metric, torch.from_numpy(START), torch.from_numpy(TIME), 6, method, True, torch.from_numpy(NOISE)
        )
        found = twin.brownian_motion(other, jnp.asarray(START), jnp.asarray(TIME), 6, method, True, jnp.asarray(NOISE))
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-9)


def test_ambient_noise() -> None:
    metric = metrics()["decoder"]
    noise = np.random.default_rng(2).normal(size=(3, 4, 14))
    wanted = here.brownian_motion(metric, torch.from_numpy(START[:, 0]), 0.1, 3, noise=torch.from_numpy(noise))
    found = twin.brownian_motion(twin.to_numpyro(metric), jnp.asarray(START[:, 0]), 0.1, 3, noise=jnp.asarray(noise))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-9)
