"""Masses in the plane where rays do not settle, by sums over the chart."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro.distributions import RiemannianNormal
from pyro_riemann.numpyro.distributions._over_chart import weighed_draws
from pyro_riemann.numpyro.distributions._rejection import _reject
from pyro_riemann.numpyro.metrics import RiemannianMetric


class Walls(RiemannianMetric):
    """Hills and valleys of the volume in the plane, beside straight lines."""

    pytree_data_fields = ("height",)

    def __init__(self, height: float, dim: int = 2) -> None:
        self.height, self.dim = jnp.asarray(height), dim

    def metric(self, z: Array) -> Array:
        factor = jnp.exp(self.height * jnp.sin(2 * z[..., 0]) * jnp.sin(2 * z[..., 1]))
        diagonal = jnp.stack([factor, factor, *[jnp.ones_like(factor)] * (self.dim - 2)], -1)
        return diagonal[..., None] * jnp.eye(self.dim)


def test_mass_behind_walls_in_the_plane() -> None:
    """Rays alone are 0.13 off; weighed draws, which share nothing with them or with a sum, say what is right."""
    loc, variance, metric = jnp.asarray([0.3, -0.2]), jnp.asarray(2.0), Walls(1.8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value, error = RiemannianNormal(loc, jnp.sqrt(variance), metric).log_normalizer()
    assert not any("normalising constant" in str(each.message) for each in said)
    draws = weighed_draws(metric, loc, variance)
    assert error < 0.01
    assert draws.error < 0.05
    assert abs(value - math.log(4 * math.pi) - draws.value) < 2 * draws.error + error


def test_draws_and_moments_behind_walls_in_the_plane() -> None:
    """Against the points of a mixture that is weighed by distances of its own; in a program, too, whose key is traced.

    Of 16 directions none is among those that have most of the mass: draws do without them.
    """
    loc, metric = jnp.asarray([0.3, -0.2]), Walls(1.8)
    law = RiemannianNormal(loc, 2.0**0.5, metric)
    draws = weighed_draws(metric, loc, jnp.asarray(2.0))
    mean = draws.weights @ draws.points
    variance = draws.weights @ (draws.points - mean) ** 2
    np.testing.assert_allclose(law.mean, mean, atol=0.3)
    np.testing.assert_allclose(law.variance, variance, rtol=0.15)
    sample = jax.jit(lambda key: law.sample(key, (4000,)))
    z = np.asarray(sample(jax.random.key(0)))
    np.testing.assert_allclose(z.mean(0), law.mean, atol=0.11)
    np.testing.assert_allclose(z.var(0), law.variance, rtol=0.08)
    assert law.sampling_report.method == "cells"
    few = RiemannianNormal(loc, 2.0**0.5, metric, num_directions=16)
    with pytest.warns(UserWarning, match="normalising constant"):
        again = few.sample(jax.random.key(0), (4000,))
    np.testing.assert_allclose(again, z, atol=1e-4)


def test_draws_behind_walls_above_two_dimensions() -> None:
    """The third axis is flat: that of a normal law, beside draws of the plane's."""
    loc = jnp.asarray([0.3, -0.2, 0.1])
    plane = RiemannianNormal(loc[:2], 2.0**0.5, Walls(1.8))
    away = np.asarray(RiemannianNormal(loc, 2.0**0.5, Walls(1.8, 3)).sample(jax.random.key(1), (200,)) - loc)
    assert abs(away[:, 2].mean()) < 4 * (2.0 / 200) ** 0.5
    assert abs((away[:, 2] ** 2).mean() - 2.0) < 4 * (8.0 / 200) ** 0.5
    squared = float((plane.variance + (plane.mean - loc[:2]) ** 2).sum())
    assert abs((away[:, :2] ** 2).sum(-1).mean() - squared) < 4 * squared * (2 / 200) ** 0.5


def test_what_is_heavier_than_the_bound_raises_it() -> None:
    """Two laws on the line with one rare heavy end each, of which those seen before know nothing."""
    heavy = jnp.asarray([0.9, 0.99])

    def propose(key: Array) -> tuple[Array, Array]:
        z = jax.random.uniform(key, (4000, 2, 1))
        return z, jnp.log(jnp.where(z[..., 0] > heavy, 9.0, 0.5))

    z, _, effective = _reject(propose, jnp.full((32, 2), jnp.log(0.5)), (4000, 2, 1), jax.random.key(0))
    assert (effective > 8).all()
    for row, end in enumerate(heavy.tolist()):
        share = 9 * (1 - end) / (9 * (1 - end) + 0.5 * end)
        assert abs((z[:, row] > end).mean() - share) < 4 * (share * (1 - share) / 4000) ** 0.5
