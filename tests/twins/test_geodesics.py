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
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._audit import audit as here_audit
from pyro_riemann.geodesics._energy import ChordEnergy, QuadratureEnergy
from pyro_riemann.numpyro.geodesics import _energy as twin_energy
from pyro_riemann.numpyro.geodesics._audit import audit as twin_audit
from tests import charts

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


@pytest.mark.parametrize("kind", ["chords", "Gauss nodes"])
def test_stated_errors_of_curves_are_their_errors(kind: str) -> None:
    """Of shortest splines on the sphere, whose distances are known; chords are too short, and tell by how much."""
    exact, knots, segments = here.Sphere(2), 3, 16
    z, y = 0.35 * torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metric = here.PullbackMetric(exact.to_ambient, 2, jitter=0.0) if kind == "chords" else charts.OnlyMetric(exact)
    solver = here.GeodesicSolver(num_knots=knots, num_segments=segments, richardson=False)
    control = solver.control_points(metric, z, y).control
    energy, truth = solver.energy(metric), exact.dist(z, y)
    wrong = ((2 * energy.value(control)).sqrt() / truth - 1).abs().numpy()
    verdicts = [here_audit(energy, control)]
    if kind == "Gauss nodes":
        its = twin_energy.QuadratureEnergy(twin.Sphere(2), knots, segments)
        verdicts += [jax.jit(lambda control: twin_audit(its, control))(jnp.asarray(control.numpy()))]  # type: ignore[list-item]
    for verdict in verdicts:
        np.testing.assert_allclose(np.asarray(verdict.length), truth.numpy(), rtol=1e-3)
        ratio = np.asarray(verdict.error) / wrong
        assert np.median(ratio) == pytest.approx(1, abs=0.3), ratio
        assert ((ratio > 0.3) & (ratio < 3)).all(), ratio


@pytest.mark.parametrize("kind", ["chords", "dense chords", "quadrature"])
def test_curves_at_a_pace_of_their_own_are_judged_alike(kind: str) -> None:
    """Also a few of them at a time."""
    generator, knots = np.random.default_rng(0), 8
    z, y = 0.3 * generator.standard_normal((2, 5, 2))
    control = _spline.line(knots, torch.from_numpy(z), torch.from_numpy(y)).numpy().copy()
    control[:, 1:-1] += 0.05 * generator.standard_normal(control[:, 1:-1].shape)
    first, second = generator.standard_normal((2, 20)), generator.standard_normal((20, 30))
    guide, few, segments = torch.from_numpy(control), np.array([1, 3]), 1024 if kind == "dense chords" else 32
    one: ChordEnergy | QuadratureEnergy
    other: twin_energy.ChordEnergy | twin_energy.QuadratureEnergy
    if kind == "quadrature":
        one = QuadratureEnergy(here.Hyperbolic(2), knots, segments, guide)
        other = twin_energy.QuadratureEnergy(twin.Hyperbolic(2), knots, segments, jnp.asarray(control))
    else:
        surface = here.PullbackMetric(lambda z: torch.tanh(z @ torch.from_numpy(first)) @ torch.from_numpy(second), 2)
        one = ChordEnergy(surface, knots, segments, False, guide)
        same = twin.PullbackMetric(lambda z: jnp.tanh(z @ first) @ second, 2)
        other = twin_energy.ChordEnergy(same, knots, segments, False, jnp.asarray(control))
    for rows in (np.arange(5), few):
        verdict = here_audit(one.rows(torch.from_numpy(rows)), guide[torch.from_numpy(rows)])
        its = twin_audit(other.rows(jnp.asarray(rows)), jnp.asarray(control[rows]))
        np.testing.assert_allclose(its.length, verdict.length.numpy(), rtol=1e-9)
        np.testing.assert_allclose(its.error, verdict.error.numpy(), rtol=1e-6)
        np.testing.assert_array_equal(its.kinked, verdict.kinked.numpy())
        assert bool((verdict.error > 0).all())


@pytest.mark.parametrize("kind", ["decoder", "kernel"])
@pytest.mark.parametrize("dim", [2, 6])
def test_rough_distances_of_a_training(kind: str, dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    metric: here.RiemannianMetric
    if kind == "decoder":
        network = nn.Sequential(nn.Linear(dim, 16), nn.Tanh(), nn.Linear(16, 30)).double()
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
        metric = here.PullbackMetric(network.requires_grad_(False), dim)
    else:
        centroids = torch.randn(20, dim, generator=generator, dtype=torch.float64)
        metric = here.KernelMetric(centroids, torch.full((20, dim), 3.0, dtype=torch.float64), dim**0.5, 0.5)
    other = twin.to_numpyro(metric)
    points = torch.randn(2, 20, dim, generator=generator, dtype=torch.float64)
    exact = metric.dist(*points)
    metric.solver, other.solver = here.geodesics.training_solver(dim), twin.geodesics.training_solver(dim)
    rough = metric.dist(*points)
    np.testing.assert_allclose(other.dist(*map(jnp.asarray, points.numpy())), rough, rtol=1e-6)
    assert float((rough / exact - 1).abs().median()) < (1e-3 if dim == 2 else 0.04)
    assert bool((rough > exact * (1 - 0.01)).all())  # curves are no shorter than the shortest, but for few nodes
