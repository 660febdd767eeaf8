"""Masses in the plane where rays do not settle, by sums over the chart."""

from __future__ import annotations

import math
import re
import warnings

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro.distributions import RiemannianNormal
from pyro_riemann.numpyro.distributions._chart_draws import drawn_mass
from pyro_riemann.numpyro.metrics import RiemannianMetric


class Walls(RiemannianMetric):
    """Hills and valleys of the volume in the plane."""

    dim = 2
    pytree_data_fields = ("height",)

    def __init__(self, height: float) -> None:
        self.height = jnp.asarray(height)

    def metric(self, z: Array) -> Array:
        factor = jnp.exp(self.height * jnp.sin(2 * z[..., 0]) * jnp.sin(2 * z[..., 1]))
        return factor[..., None, None] * jnp.eye(2)


def test_mass_behind_walls_in_the_plane() -> None:
    """Rays alone are 0.13 off; weighed draws, which share nothing with them or with a sum, say what is right."""
    loc, variance, metric = jnp.asarray([0.3, -0.2]), jnp.asarray(2.0), Walls(1.8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value, error = RiemannianNormal(loc, jnp.sqrt(variance), metric).log_normalizer()
    assert not any("normalising constant" in str(each.message) for each in said)
    draws = drawn_mass(metric, loc, variance)
    assert error < 0.01
    assert draws.error < 0.05
    assert abs(value - math.log(4 * math.pi) - draws.value) < 2 * draws.error + error


def test_draws_on_fewer_rays_than_have_the_mass_say_so() -> None:
    """Of 16 directions none is among those that have most of it; the draws themselves see these."""
    law = RiemannianNormal(jnp.asarray([0.3, -0.2]), 2.0**0.5, Walls(1.8), num_directions=16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        law.sample(jax.random.key(0), (100,))
    shares = [float(found[1]) for each in said if (found := re.match(r"([\d.]+)% of the mass", str(each.message)))]
    assert len(shares) == 1
    assert 5 < shares[0] < 60
