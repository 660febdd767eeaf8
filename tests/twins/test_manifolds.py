"""Closed forms of both twins at the same points: values to 1e-9, and their gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import Array
from torch import Tensor

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from tests import charts as here_charts
from tests.numpyro import charts as twin_charts

close: Any = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
HERE, TWIN = here_charts.all_charts(), twin_charts.all_charts()
TIME = 0.3


def some_points(dim: int, batch: int = 4) -> list[np.ndarray]:
    """Two batches of points with |z| < 1 and one of vectors."""
    return list(np.random.default_rng(dim).uniform(-0.5, 0.5, (3, batch, dim)))


def everything(metric: Any, z: Any, y: Any, v: Any) -> dict[str, Any]:
    """Every closed form, by the interface that both sides have."""
    end, log_van_vleck = metric.expmap_log_van_vleck(z, v)
    jacobian = metric.metric_jacobian(z)
    return {
        "metric": metric.metric(z),
        "metric_jacobian": jacobian[1],
        "cholesky": metric.cholesky(z),
        "logdet": metric.logdet(z),
        "inner": metric.inner(z, y, v),
        "christoffel": metric.christoffel(z, v),
        "drift": metric.drift(z),
        "scalar_curvature": metric.scalar_curvature(z),
        "squared_dist": metric.squared_dist(z, y),
        "dist": metric.dist(z, y),
        "logmap": metric.logmap(z, y),
        "expmap": metric.expmap(z, v),
        "end": end,
        "log_van_vleck": metric.log_van_vleck(z, y),
        "log_van_vleck of velocity": log_van_vleck,
        "log_heat_kernel": metric.log_heat_kernel(z, y, TIME),
    }


def mixed(xp: Any, values: dict[str, Any]) -> Any:
    """A sum in which every form has a weight of its own, so that no gradient hides another."""
    return sum((0.3 + 0.1 * k) * xp.sum(value * xp.cos(value)) for k, value in enumerate(values.values()))


@jax.jit
def twin_values(metric: twin.RiemannianMetric, z: Array, y: Array, v: Array) -> dict[str, Array]:
    return everything(metric, z, y, v)


@jax.jit
def twin_slopes(metric: twin.RiemannianMetric, z: Array, y: Array, v: Array) -> tuple[dict[str, Array], Any]:
    def total(z: Array, y: Array, v: Array) -> tuple[Array, dict[str, Array]]:
        values = everything(metric, z, y, v)
        return mixed(jnp, values), values

    (_, values), slopes = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(z, y, v)
    return values, slopes


def agree(values: dict[str, Array], expected: dict[str, Tensor]) -> None:
    for key, value in values.items():
        close(value, expected[key].detach(), err_msg=key)


FEW = ["sphere2", "half-space3", "torus2"]
MORE = ["ball3", "hyperboloid2", "warped sphere2"]


@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_closed_forms_and_their_gradients_agree(name: str) -> None:
    points = some_points(HERE[name].dim)
    leaves = [torch.from_numpy(point).requires_grad_() for point in points]
    expected = everything(HERE[name], *leaves)
    values, slopes = twin_slopes(TWIN[name], *map(jnp.asarray, points))
    agree(values, expected)
    for slope, wanted in zip(slopes, torch.autograd.grad(mixed(torch, expected), leaves), strict=True):
        close(slope, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_closed_forms_agree_in_every_chart(name: str) -> None:
    points = some_points(HERE[name].dim)
    expected = everything(HERE[name], *map(torch.from_numpy, points))
    agree(twin_values(TWIN[name], *map(jnp.asarray, points)), expected)


@pytest.mark.parametrize("space, dims", [("Sphere", (1, 3, 4)), ("Hyperbolic", (4, 5))])
def test_heat_kernels_agree_at_small_and_large_times(space: str, dims: tuple[int, ...]) -> None:
    times = np.array([[0.02], [0.6], [1.5], [8.0]])
    for dim in dims:
        z, _, v = some_points(dim)
        z, y = (
            0.6 * z,
            0.6 * z + 0.3 * v,
        )  # near enough for the series of the sphere, whose digits are those of its largest value
        expected = getattr(here, space)(dim).log_heat_kernel(*map(torch.from_numpy, (z, y, times)))
        value = getattr(twin, space)(dim).log_heat_kernel(jnp.asarray(z), jnp.asarray(y), times)
        close(value, expected)


def test_a_quarter_of_the_equator() -> None:
    """In the stereographic chart it is the unit circle: even angles, length pi / 2 and energy pi^2 / 8."""
    ends = np.array([[[1.0, 0.0], [0.0, -1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    ours = here.Sphere(2).geodesic(*torch.from_numpy(ends), num_knots=2, num_segments=4)
    theirs = twin.Sphere(2).geodesic(*jnp.asarray(ends), num_knots=2, num_segments=4)

    def circle(share: float) -> np.ndarray:
        angle = np.array([0.0, -np.pi / 2]) + share * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], -1)

    for curve in (ours, theirs):
        close(curve.points, np.stack([circle(k / 4) for k in range(5)]))
        close(curve(1 / 3), circle(1 / 3))
        close(curve.length, np.pi / 2)
        close(curve.energy, np.pi**2 / 8)
        assert curve.converged.tolist() == [True, True]
