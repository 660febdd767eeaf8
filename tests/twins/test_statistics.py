"""Statistics of both twins on the same points."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann import statistics as ours
from pyro_riemann.manifolds import SPD
from pyro_riemann.numpyro import statistics as theirs
from pyro_riemann.numpyro import to_numpyro
from tests.charts import OnlyMetric

close: Any = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8)
METRICS = [here.Hyperbolic(2), pytest.param(SPD(2), marks=pytest.mark.slow)]


class Numerical(twin.RiemannianMetric):
    """The hyperbolic plane without its closed forms."""

    dim = 2

    def metric(self, z: jax.Array) -> jax.Array:
        return twin.Hyperbolic(2).metric(z)


def some(dim: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(dim).uniform(-0.4, 0.4, (*shape, dim))


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_means_and_their_gradients(metric: here.RiemannianMetric) -> None:
    points, weights = some(metric.dim, 3, 6), np.random.default_rng(1).uniform(0.1, 1, (3, 6))
    x, w = torch.tensor(points, requires_grad=True), torch.tensor(weights, requires_grad=True)
    mean = ours.frechet_mean(metric, x, w)
    slopes = torch.autograd.grad(mean.sin().sum(), (x, w))
    other = to_numpyro(metric)

    def total(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = theirs.frechet_mean(other, x, w)
        return jnp.sin(found).sum(), found

    (_, found), twins = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
        jnp.asarray(points), jnp.asarray(weights)
    )
    close(found, mean.detach())
    for slope, expected in zip(twins, slopes, strict=True):
        close(slope, expected)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_transport_and_principal_geodesics(metric: here.RiemannianMetric) -> None:
    z, y, u = some(metric.dim, 3, 4)
    other = to_numpyro(metric)
    moved = theirs.parallel_transport(other, *map(jnp.asarray, (z, y, u)))
    close(moved, ours.parallel_transport(metric, *map(torch.tensor, (z, y, u))))
    points = some(metric.dim, 9)
    found, expected = (
        theirs.tangent_pca(other, jnp.asarray(points), 2),
        ours.tangent_pca(metric, torch.tensor(points), 2),
    )
    close(found.mean, expected.mean)
    close(found.variance, expected.variance)
    close(found.explained, expected.explained)
    sign = np.sign((np.asarray(found.directions) * expected.directions.numpy()).sum(-1))  # eigenvectors have none
    close(found.directions * sign[:, None], expected.directions)
    close(
        found.points(found.coordinates(jnp.asarray(points)) * 0.5),
        expected.points(expected.coordinates(torch.tensor(points)) * 0.5),
    )


@pytest.mark.slow
def test_statistics_without_closed_forms() -> None:
    """By solver and Runge-Kutta steps: the mean to the solver's error, transport to 1e-6."""
    metric, (z, y, u) = Numerical(), some(2, 3, 2)
    exact = theirs.parallel_transport(twin.Hyperbolic(2), *map(jnp.asarray, (z, y, u)))
    moved = theirs.parallel_transport(metric, *map(jnp.asarray, (z, y, u)))
    np.testing.assert_allclose(moved, exact, atol=1e-5)
    np.testing.assert_allclose(
        moved, ours.parallel_transport(OnlyMetric(here.Hyperbolic(2)), *map(torch.tensor, (z, y, u))), atol=1e-5
    )


def test_clusters_and_their_errors() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [centre + 0.05 * rng.standard_normal((15, 2)) for centre in ([0.5, 0], [-0.5, 0], [0, 0.6])]
    )
    found = theirs.kmeans(twin.Hyperbolic(2), jnp.asarray(points), 3, jax.random.key(0))
    expected = ours.kmeans(here.Hyperbolic(2), torch.tensor(points), 3, seed=0)
    order, other = (np.lexsort(np.round(np.asarray(run.centers), 3).T) for run in (found, expected))
    close(np.asarray(found.centers)[order], expected.centers.numpy()[other])
    close(found.inertia, expected.inertia)
    assert found.converged
    with pytest.raises(TypeError, match="transformation"):
        jax.jit(lambda x: theirs.kmeans(twin.Sphere(2), x, 2, jax.random.key(0)).labels)(jnp.asarray(points))
    with pytest.raises(ValueError, match="weights"):
        theirs.frechet_mean(twin.Sphere(2), jnp.asarray(points), -jnp.ones(45))
    with pytest.warns(UserWarning, match="have not converged"):
        theirs.frechet_mean(twin.Hyperbolic(2), jnp.asarray(points), max_iterations=1)
