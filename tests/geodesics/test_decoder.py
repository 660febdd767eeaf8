"""Geodesics on decoders trained on digits, against shortest paths on a fine grid, in torch and in JAX."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import GridMetric, PullbackMetric
from pyro_riemann.datasets import load_dataset
from pyro_riemann.geodesics import _graph, _spline
from pyro_riemann.numpyro import to_numpyro
from pyro_riemann.vae import VAE, TrainingConfig, encode_all, make_vae, train

FINE = 512
Solve = Callable[[PullbackMetric, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(scope="module")
def trained() -> tuple[VAE, Tensor]:
    data = load_dataset("digits")
    vae = make_vae(64, 2, prior="normal", posterior="normal", hidden=(100, 100), num_centers=60, seed=0)
    train(vae, data.train, config=TrainingConfig(warm_up_epochs=60, epochs=10, seed=0), progress=False)
    vae.requires_grad_(False).eval()
    return vae, encode_all(vae, data.train)


def lengths(metric: PullbackMetric, curves: Tensor) -> Tensor:
    """Lengths of polygons ``(P, T, 2)`` by ambient chords."""
    return metric.embed(curves).diff(dim=1).norm(dim=-1).sum(-1)


def in_torch(metric: PullbackMetric, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fine polygons ``(P, T, 2)``, energies and ``converged``."""
    curve = metric.geodesic(z, y, init="graph")
    return curve(torch.linspace(0, 1, FINE + 1)).transpose(0, 1), curve.energy, curve.converged


def in_jax(metric: PullbackMetric, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    curve = to_numpyro(metric).geodesic(jnp.asarray(z.numpy()), jnp.asarray(y.numpy()), init="graph")
    points = np.swapaxes(curve(jnp.linspace(0, 1, FINE + 1)), 0, 1)
    return torch.tensor(points), torch.tensor(np.asarray(curve.energy)), torch.tensor(np.asarray(curve.converged))


@pytest.mark.parametrize("solve", [in_torch, pytest.param(in_jax, marks=pytest.mark.slow)])
@pytest.mark.parametrize("walls", [False, True])
def test_graph_start_is_short_and_never_tunnels(trained: tuple[VAE, Tensor], walls: bool, solve: Solve) -> None:
    vae, codes = trained
    metric = PullbackMetric(vae.decoder if walls else vae.decoder.mean, 2)
    picked = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))[:200]]
    z, y = picked[:100], picked[100:]
    metric.solver = metric.solver.replace(num_knots=16, num_segments=64)
    curves, energy, converged = solve(metric, z, y)
    ours = lengths(metric, curves)
    # Dijkstra on a grid, then polished on the decoder at twice the resolution
    grid = GridMetric(metric, codes.amin(0) - 0.5, codes.amax(0) + 0.5, 256)
    path = _graph.grid_curves(grid, z, y, 16, 240)
    raw = lengths(metric, _spline.uniform_basis(16, FINE, path) @ path)
    solver = metric.solver.replace(num_segments=128)
    with torch.no_grad():
        polished = solver._in_chunks(metric, solver._minimise, solver.energy(metric), path).control
    best = lengths(metric, _spline.uniform_basis(16, FINE, polished) @ polished)
    long = (ours / torch.minimum(best, ours) - 1) > 0.01
    assert long.float().mean().item() <= (0.02 if walls else 0.0)
    assert (ours < 0.98 * torch.minimum(raw, best)).sum().item() == 0
    # what the solver reports is the length of its curve: chords did not jump a wall
    honest = (2 * energy).sqrt() / ours - 1
    assert honest[converged].abs().max().item() < 0.01
    assert converged.float().mean().item() >= 0.95
