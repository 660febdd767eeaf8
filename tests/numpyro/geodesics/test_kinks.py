"""Geodesics across the kinks of an immersion, in JAX: against surfaces that unfold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from pyro_riemann.numpyro import PullbackMetric
from tests.folds import Folds


def test_curves_across_folds_have_the_length_of_lines_in_the_plane() -> None:
    folds = Folds(0.3)

    def surface(z: jax.Array) -> jax.Array:
        turned = z @ folds.turn
        return jnp.append(turned, jax.nn.relu(turned[0] - folds.places) @ folds.jumps)

    metric, (z, y) = PullbackMetric(jax.vmap(surface), 2, jitter=0.0), map(jnp.asarray, folds.ends)
    curves = metric.geodesic(z, y)
    assert bool(curves.converged.all())
    np.testing.assert_allclose(curves.length, folds.dist(), rtol=1e-3)
    np.testing.assert_allclose(jnp.sqrt(2 * curves.energy), folds.dist(), rtol=1e-3)
