"""Sampling on the GPU: draws stay there, and their estimates agree with those of the processor.

``PYRO_RIEMANN_TEST_DEVICE=cpu`` checks these tests themselves.
"""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

from pyro_riemann import KernelMetric, plotting, to_arviz
from pyro_riemann.autoencoders import GaussianMixtureSampler, UniformSampler
from pyro_riemann.sampling import (
    HamiltonianKernel,
    MixtureProposal,
    TemperedKernel,
    default_box,
    hmc,
    importance_resampling,
    independence_metropolis,
    interpolate,
    sample_uniform,
    tempered_smc,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("PYRO_RIEMANN_TEST_DEVICE", "cuda"))


def kernels(dim: int) -> tuple[KernelMetric, KernelMetric]:
    """The same metric on the processor and on the device."""
    centroids = torch.randn(12, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    reference = KernelMetric(centroids, torch.full_like(centroids, 16.0), bandwidth=1.0, regularization=1e-3)
    return reference, copy.deepcopy(reference).to(DEVICE)


def check_same_volume(result: Any, reference: Any) -> None:
    """Two estimates of one log volume, from different random numbers, agree within five standard errors."""
    assert result.draws.device.type == result.chains.device.type == DEVICE.type
    assert bool(((result.draws >= result.low) & (result.draws <= result.high)).all())
    error = float(result.log_volume.standard_error) + float(reference.log_volume.standard_error)
    difference = abs(float(result.log_volume.value) - float(reference.log_volume.value))
    assert difference < 5 * error + 1e-3


@pytest.mark.parametrize(
    "method, dim", [("table", 2), ("importance", 4), ("metropolis", 4), ("tempered", 4), ("auto", 2), ("auto", 4)]
)
def test_uniform_draws(method: str, dim: int) -> None:
    reference, metric = kernels(dim)
    check_same_volume(
        sample_uniform(metric, 400, method=method, seed=0), sample_uniform(reference, 400, method=method, seed=0)
    )


@pytest.mark.parametrize("sampler", [importance_resampling, independence_metropolis, tempered_smc, hmc])
def test_samplers_by_name(sampler: Any) -> None:
    _, metric = kernels(3)
    settings = {"num_chains": 8, "num_steps": 40, "warm_up": 10} if sampler is hmc else {}
    result = sampler(metric, 200, seed=0, **settings)
    assert result.draws.device.type == DEVICE.type
    assert bool(torch.isfinite(metric.logdet(result.draws)).all())
    assert to_arviz(result)["posterior"]["z"].shape[-1] == 3


def test_box_and_proposal() -> None:
    reference, metric = kernels(3)
    for corner, expected in zip(default_box(metric), default_box(reference), strict=True):
        assert corner.device.type == DEVICE.type
        torch.testing.assert_close(corner.cpu(), expected)
    low, high = default_box(metric)
    proposal = MixtureProposal.of_peaks(metric, low, high)
    draws = proposal.draw(50)
    assert draws.device.type == DEVICE.type
    ours, theirs = proposal.log_prob(draws), MixtureProposal.of_peaks(reference, low.cpu(), high.cpu())
    torch.testing.assert_close(ours.cpu(), theirs.log_prob(draws.cpu()), rtol=1e-5, atol=1e-6)


def test_kernels() -> None:
    low, high = torch.zeros(2, device=DEVICE), torch.ones(2, device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    moves = HamiltonianKernel(lambda z: z.sum(-1), low, high)
    state, info = moves.step(generator, moves.init(torch.rand(8, 2, device=DEVICE)))
    assert state.position.device.type == info.acceptance.device.type == DEVICE.type
    tempered = TemperedKernel(lambda z: 0 * z[:, 0], lambda z: 4 * z.sum(-1), low, high)
    particles = tempered.init(torch.rand(8, 200, 2, device=DEVICE))
    while particles.temperature < 1:
        particles, _ = tempered.step(generator, particles)
    value, error = tempered.log_integral(particles)
    assert value.device.type == DEVICE.type
    assert abs(float(value) - 2 * math.log(math.expm1(4) / 4)) < 5 * float(error)


@pytest.mark.parametrize("kind", ["line", "geodesic", "volume"])
def test_interpolations(kind: str) -> None:
    def decoder(z: Tensor) -> Tensor:
        return z.sum(-1, keepdim=True) + torch.zeros(4, dtype=z.dtype, device=z.device)

    reference, metric = kernels(2)
    start, end = reference.centroids[0], reference.centroids[1]
    path = interpolate(metric, start.to(DEVICE), end.to(DEVICE), decoder, kind, num_frames=5)
    expected = interpolate(reference, start, end, decoder, kind, num_frames=5)
    assert path.frames is not None
    assert path.points.device.type == path.frames.device.type == DEVICE.type
    torch.testing.assert_close(path.points.cpu(), expected.points, rtol=1e-3, atol=1e-4)
    plotting.plot_interpolations([path], (2, 2))
    if path.curve is not None:
        plotting.plot_decoded_curves(decoder, path.curve, (2, 2), num_frames=4)
    plt.close("all")


def test_volume_element_and_files(tmp_path: Path) -> None:
    reference, metric = kernels(2)
    pixels = [plotting.log_volume_element(one, (-1.0, -1.0), (1.0, 1.0), 6) for one in (metric, reference)]
    torch.testing.assert_close(*map(torch.from_numpy, pixels), rtol=1e-6, atol=1e-8)
    metric.save(tmp_path)
    assert KernelMetric.load(tmp_path, device=DEVICE).centroids.device.type == DEVICE.type


def test_samplers_of_autoencoders() -> None:
    _, metric = kernels(3)
    assert UniformSampler(metric).sample(5).device.type == DEVICE.type
    assert bool(torch.isfinite(GaussianMixtureSampler(metric.centroids, num_components=2).sample(5)).all())
