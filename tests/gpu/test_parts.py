"""The smaller routines on the GPU: solvers, checkpoints and scores of a VAE.

``PYRO_RIEMANN_TEST_DEVICE=cpu`` checks these tests themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.distributions import Gamma, HalfNormal, Normal

from pyro_riemann import (
    GeodesicSolver,
    GridMetric,
    PullbackMetric,
    RiemannianWrappedNormal,
    Sphere,
    register_immersion,
)
from pyro_riemann.distributions import monte_carlo_kl
from pyro_riemann.geodesics import (
    PathTable,
    expmap,
    expmap_log_van_vleck,
    geodesic_flow,
    log_van_vleck,
    scalar_curvature,
)
from pyro_riemann.mixtures import fit_kernels, fit_mixture, fit_normals
from pyro_riemann.vae import (
    TrainingConfig,
    converged_share,
    elbo_terms,
    importance_log_likelihood,
    load_checkpoint,
    make_vae,
    prior_mass,
    save_checkpoint,
    set_phase,
    solver_settings,
    start_phase_two,
    train_ensemble,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("PYRO_RIEMANN_TEST_DEVICE", "cuda"))


def test_generic_geometry() -> None:
    """The numerical routines, on a sphere, against its closed forms on the device."""
    sphere = Sphere(2)
    z, v = torch.full((3, 2), 0.1, dtype=torch.float64, device=DEVICE), torch.eye(3, 2, dtype=torch.float64).to(DEVICE)
    end = sphere.expmap(z, v)
    torch.testing.assert_close(expmap(sphere, z, v), end, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(geodesic_flow(sphere, z, v)[0], end, rtol=1e-3, atol=1e-4)
    point, log_v = expmap_log_van_vleck(sphere, z, v)
    torch.testing.assert_close(point, end, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(log_v, sphere.expmap_log_van_vleck(z, v)[1], rtol=1e-3, atol=1e-4)
    y = -0.5 * z
    torch.testing.assert_close(log_van_vleck(sphere, z, y), sphere.log_van_vleck(z, y), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scalar_curvature(sphere, z), sphere.scalar_curvature(z), rtol=1e-4, atol=1e-5)
    solved = GeodesicSolver(num_knots=8, num_segments=32).solve(sphere, z, y)
    torch.testing.assert_close(solved.length, sphere.dist(z, y), rtol=1e-4, atol=1e-6)


def test_distributions() -> None:
    """Fisher's metric by an immersion, in half planes and by divergences, where it is 2 and 1 in closed form."""
    z = torch.full((3, 2), 0.1, dtype=torch.float64, device=DEVICE)
    register_immersion(HalfNormal, lambda law: 2**0.5 * law.scale.log())
    for law, expected in (
        (lambda z: HalfNormal(z.exp()), 2.0),
        (lambda z: Normal(z.sum() - z.sum(), z.exp()), 2.0),
        (lambda z: Gamma(1 + 1e-3 * z, z.exp()), 1.0),
    ):
        metric = PullbackMetric(law, 2, jitter=0.0)
        eye = expected * torch.eye(2, dtype=torch.float64, device=DEVICE)
        torch.testing.assert_close(metric.metric(z), eye.expand(3, 2, 2), rtol=5e-3, atol=5e-3)
        torch.testing.assert_close(
            metric.dist(z, -z), torch.full_like(z[:, 0], (0.08 * expected) ** 0.5), rtol=5e-3, atol=0.0
        )


def test_table_of_paths() -> None:
    grid = GridMetric(Sphere(2).to(DEVICE), torch.full((2,), -1.0, device=DEVICE), torch.ones(2, device=DEVICE), 16)
    start, end = torch.zeros(2, 2, device=DEVICE), torch.full((2, 2), 0.5, device=DEVICE)
    assert PathTable(grid, resolution=16)(start, end, 8).device.type == DEVICE.type


def test_estimated_divergence() -> None:
    loc, time = torch.zeros(2, device=DEVICE), torch.tensor(0.05, device=DEVICE)
    first, second = (RiemannianWrappedNormal(loc, scale * time, Sphere(2)) for scale in (1, 2))
    value = monte_carlo_kl(first, second, num_samples=2000).value
    assert value.device.type == DEVICE.type
    assert 0.1 < value.item() < 0.3  # in the flat plane: log 2 - 1 / 2 = 0.19


def test_ensemble_of_decoders(tmp_path: Path) -> None:
    ensemble = train_ensemble(
        lambda seed: make_vae(12, 2, "normal", "normal", hidden=(16,), num_centers=8, seed=seed),
        torch.rand(40, 12),
        (0, 1),
        config=TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20),
        bootstrap=True,
        device=DEVICE,
        checkpoint=tmp_path,
        progress=False,
    )
    z = torch.zeros(3, 2, device=DEVICE)
    assert ensemble.metric.metric(z).device.type == DEVICE.type


def test_scores_of_a_vae(tmp_path: Path) -> None:
    vae = make_vae(12, 2, "heat_kernel", "wrapped_normal", "grid", hidden=(16,), num_centers=8, seed=0).to(DEVICE)
    data = torch.rand(40, 12, device=DEVICE)
    set_phase(vae, 1)
    set_phase(vae, 2)
    start_phase_two(vae, data)
    vae.eval()
    terms = elbo_terms(vae, data[:6])
    assert terms.elbo.device.type == DEVICE.type
    assert importance_log_likelihood(vae, data[:6], num_samples=4).device.type == DEVICE.type
    assert prior_mass(vae).value.device.type == DEVICE.type
    with solver_settings(vae, GeodesicSolver(num_segments=64)):
        assert 0 <= converged_share(vae, vae.encode(data[:6])) <= 1
    save_checkpoint(tmp_path, dict(vae.state_dict()), {"epoch": 1})
    tensors, info = load_checkpoint(tmp_path, device=DEVICE)
    assert info["epoch"] == 1
    assert all(tensor.device.type == DEVICE.type for tensor in tensors.values())


def test_mixtures_of_heat_kernels() -> None:
    points = 0.3 * torch.randn(120, 2, device=DEVICE)
    times = torch.tensor([1e-3, 1e-2, 1e-1], device=DEVICE)
    normals = fit_normals(points, Sphere(2), 2, num_steps=2).mixture
    assert normals.log_prob(points).device == points.device
    few = fit_mixture(points, Sphere(2), 3, background=40.0, num_steps=3)
    assert (few.log_likelihood.diff() >= 0).all()
    for law in (few.mixture, fit_kernels(points, Sphere(2), times, background=40.0, num_groups=2)):
        value = law.log_prob(law.sample((5,)))
        assert value.device.type == DEVICE.type
        assert torch.isfinite(value).all()
