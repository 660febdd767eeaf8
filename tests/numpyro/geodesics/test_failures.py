"""Pairs that are hard: solved again, or counted in a warning, where values are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import EuclideanMetric, GeodesicSolver, RiemannianMetric, Sphere
from pyro_riemann.numpyro.geodesics import _refine
from tests import steep_metrics
from tests.numpyro import charts


def uniform(count: int, seed: int) -> tuple[Array, Array]:
    """Pairs of uniform points of the sphere, in the stereographic chart."""
    x = np.random.default_rng(seed).normal(size=(2, count, 3))
    z, y = Sphere(2).from_ambient(jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True)))
    return z, y


@pytest.mark.slow
def test_user_written_sphere() -> None:
    """Far from the origin a short way is a long run of coordinates, and ways lead through infinity."""
    z, y = uniform(150, seed=3)
    metric, exact = charts.OnlyMetric(Sphere(2)), Sphere(2).dist(z, y)
    curve = metric.geodesic(z, y, init="line")
    assert curve.converged.all()
    np.testing.assert_allclose(metric.dist(z, y), exact, rtol=1e-3)
    np.testing.assert_allclose(curve.length, exact, rtol=1e-3)
    np.testing.assert_allclose(curve(1.0), y, rtol=1e-9)
    slope, wanted = (jax.grad(lambda at, m=m: m.dist(at, y).sum())(z) for m in (metric, Sphere(2)))
    error = jnp.linalg.norm(slope - wanted, axis=-1) * (1 + jnp.square(z).sum(-1)) / 2
    assert jnp.quantile(error, 0.95) < 0.02


class Spheroid(RiemannianMetric):
    """A metric that has its tensor and nothing else."""

    dim = 2

    def metric(self, z: Array) -> Array:
        return steep_metrics.spheroid(jnp, z)


def test_the_geodesic_that_is_found_is_the_shortest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some percent of straight starts end at another geodesic, which passes every check of its own."""
    z, y, exact = (jnp.asarray(part) for part in steep_metrics.spheroid_pairs(128, 11))
    found = {}
    for challenge in (True, False):
        monkeypatch.setattr(_refine, "unguided", lambda metric, challenge=challenge: challenge)
        found[challenge] = np.asarray(jnp.abs(Spheroid().dist(z, y) / exact - 1))
    assert found[True].max() < 1e-3
    assert found[False].max() > 0.01


def test_all_arcs_between_antipodes_are_as_long_as_half_a_great_circle() -> None:
    """Circles of the stereographic chart through opposite points of the equator are great ones."""
    angle = jnp.array([0.3, 2.0])
    z = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    lengths = _refine.bent(Sphere(2), z, -z)
    assert lengths.shape == (4, 2)
    np.testing.assert_allclose(lengths, np.pi, rtol=1e-3)
    half = 0.5 * np.pi * np.array([turn for _, turn in _refine.rival_bends(z)])
    flat = _refine.bent(EuclideanMetric(2), z, -z)
    np.testing.assert_allclose(flat, np.broadcast_to(2 * half[:, None] / np.sin(half)[:, None], (4, 2)), rtol=1e-3)


def test_failures_are_counted_and_said() -> None:
    metric: RiemannianMetric = charts.OnlyMetric(charts.warped_sphere(2))
    z, y = jnp.array([[0.3, -0.8], [0.2, 0.2]]), jnp.full((2, 2), 0.2)
    rough = {"max_iterations": 1, "max_polish": 0, "num_knots": 2, "num_segments": 8}
    metric.solver = GeodesicSolver(**rough)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="1 of 2 pairs of points have no converged geodesic") as said:
        value = metric.dist(z, y)
    assert [warning.filename for warning in said] == [__file__]  # where the caller can see it
    # a compiled program cannot warn
    np.testing.assert_allclose(jax.jit(metric.dist)(z, y), value, rtol=1e-12)
    metric.solver = GeodesicSolver(**rough, on_failure="raise")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="1 of 2 pairs"):
        metric.logmap(z, y)
    metric.solver = GeodesicSolver(**rough, on_failure="ignore")  # type: ignore[arg-type]
    assert metric.geodesic(z, y, init="line").converged.tolist() == [False, True]
