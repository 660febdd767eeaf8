"""Warnings name the line that a user can change: the test's own, through Pyro, NumPyro, decorators and methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpyro
import pyro
import pytest
import torch

import pyro_riemann as face
import pyro_riemann.numpyro as twin
from pyro_riemann.numpyro import statistics as twin_statistics
from pyro_riemann.statistics import frechet_mean, kmeans

F64 = torch.float64
CURVED = "van_vleck_curvature"
POINTS = torch.tensor([[0.5, 0.1], [-0.5, 0.2], [0.0, 0.4]], dtype=F64)


def density_in_a_model() -> None:
    law = face.RiemannianHeatKernel(torch.zeros(2, dtype=F64), 1.0, face.Sphere(2), CURVED)
    pyro.poutine.trace(lambda: pyro.sample("z", law)).get_trace().compute_log_prob()


def density_in_a_plate() -> None:
    law = face.RiemannianHeatKernel(torch.zeros(2, dtype=F64), 1.0, face.Sphere(2), CURVED)
    law.expand([3]).log_prob(torch.ones(3, 2, dtype=F64))


def mean() -> None:
    frechet_mean(face.Hyperbolic(2), POINTS, max_iterations=1)


def clusters() -> None:
    kmeans(face.Sphere(2), torch.linspace(-1, 1, 80, dtype=F64).reshape(2, 40).mT, 5, max_iterations=1, seed=0)


def walk() -> None:
    metric = face.PullbackMetric(lambda z: torch.tanh(torch.cat([z, 0.5 * z], -1)), 2)
    face.brownian_motion(metric, torch.full((400, 2), 3.2, dtype=F64), 0.2, 16)


def samples() -> None:
    metric = face.KernelMetric(torch.zeros(3, 2, dtype=F64), torch.ones(3, 2, dtype=F64), 0.01)
    face.sampling.tempered_smc(metric, 64, low=-9.0, high=9.0, seed=0)


def twin_density_in_a_model() -> None:
    law = twin.RiemannianHeatKernel(jnp.ones(2), 1.0, twin.Sphere(2), CURVED)
    numpyro.infer.util.log_density(lambda: numpyro.sample("z", law, obs=jnp.zeros(2)), (), {}, {})


def twin_mean() -> None:
    twin_statistics.frechet_mean(twin.Hyperbolic(2), jnp.asarray(POINTS.numpy()), max_iterations=1)


CALLS = [density_in_a_model, density_in_a_plate, mean, clusters, walk, samples, twin_density_in_a_model, twin_mean]


@pytest.mark.parametrize("call", CALLS)
def test_a_warning_names_the_caller(call: Callable[[], None]) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    assert said
    assert {warning.filename for warning in said} == {__file__}
