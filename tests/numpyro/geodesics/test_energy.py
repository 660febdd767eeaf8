"""Energies of given curves, and curves along shortest paths on tables, against what is known of straight lines."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann.numpyro import GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.numpyro.geodesics import PathTable
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy, QuadratureEnergy
from pyro_riemann.numpyro.geodesics._graph import _edge_lengths


@pytest.mark.parametrize("kind", ["chords", "extrapolated", "Gauss nodes"])
def test_energy_of_an_uneven_run_along_a_straight_line(kind: str) -> None:
    """Position t^2: twice the length squared over 3, less 1 / 6 N^2 for N chords, and half of it at its own pace."""
    times = np.linspace(0, 1, 9)
    shares = np.linalg.lstsq(splines.basis(2, times), times**2, rcond=None)[0]
    ends = np.array([[[0.2, -0.3]], [[-0.4, 0.5]]])
    control = jnp.asarray(ends[0] + shares[:, None] * (ends[1] - ends[0]) * np.array([1.0, -0.5])[:, None, None])
    squared = 4 * np.square(ends[1] - ends[0]).sum() * np.array([1.0, 0.25])

    def energy(guide: Array | None) -> Any:
        scaled = PullbackMetric(lambda z: 2 * z, 2, jitter=0.0)
        if kind == "Gauss nodes":
            return QuadratureEnergy(scaled, 2, 8, guide)
        return ChordEnergy(scaled, 2, 8, kind == "extrapolated", guide)

    np.testing.assert_allclose(energy(None).value(control) / squared, 2 / 3 - (kind == "chords") / 6 / 64, rtol=1e-9)
    np.testing.assert_allclose(energy(control).value(control) / squared, 1 / 2, rtol=1e-3)


class Wedge(RiemannianMetric):
    """exp(2 x) (dx^2 + dy^2): the plane in log-polar coordinates, in which rays from the origin run along x."""

    dim = 2

    def metric(self, z: Array) -> Array:
        return jnp.exp(2 * z[..., :1, None]) * jnp.eye(2)


def test_curves_along_paths_of_a_table_run_at_constant_speed() -> None:
    """On a ray of the plane in log-polar coordinates x is the log of a radius that grows evenly."""
    paths = PathTable(GridMetric(Wedge(), -1.0, 1.0, 33), 33)
    ends, heights = np.array([[-1.0, 1.0], [0.5, -0.75], [-0.25, 0.75]]), np.array([0.0, 0.5, -0.25])
    z, y = (jnp.asarray(np.stack([ends[:, k], heights], -1)) for k in range(2))
    times = np.linspace(0, 1, 21)
    points = splines.basis(8, times) @ np.asarray(paths(z, y, 8))
    exact = np.log(np.exp(ends[:, :1]) * (1 - times) + np.exp(ends[:, 1:]) * times)
    np.testing.assert_allclose(points[..., 0], exact, rtol=0, atol=2e-3)
    np.testing.assert_allclose(points[..., 1], np.broadcast_to(heights[:, None], (3, 21)), rtol=0, atol=1e-6)
    edges = _edge_lengths(Wedge(), np.asarray(z), np.asarray(y), z.dtype, 32)
    np.testing.assert_allclose(edges, np.abs(np.exp(ends[:, 1]) - np.exp(ends[:, 0])), rtol=1e-6)
