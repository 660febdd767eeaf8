"""Mixtures of normals of both twins, fitted to the same points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import pyro_riemann as here
from pyro_riemann import mixtures as ours
from pyro_riemann.numpyro import mixtures as theirs
from pyro_riemann.numpyro import to_numpyro

CENTRES = ([0.5, 0.0], [-0.5, 0.1], [0.0, 0.6])
CONSTANT = here.ConstantMetric(torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64))
CASES = [
    (here.Hyperbolic(2), "wrapped"),
    (here.Hyperbolic(2), "riemannian"),
    (here.Sphere(2), "riemannian"),
    (CONSTANT, "wrapped"),
]


def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([centre + 0.15 * rng.standard_normal((30, 2)) for centre in CENTRES])


@pytest.mark.parametrize(("metric", "family"), CASES, ids=str)
def test_the_same_points_give_the_same_mixture(metric: here.RiemannianMetric, family: str) -> None:
    x = points()
    # both begin with the best clusters of several starts; what follows has no chance in it
    expected = ours.fit_normals(torch.tensor(x), metric, 3, family=family, num_steps=8, tolerance=0)
    found = theirs.fit_normals(
        jnp.asarray(x), to_numpyro(metric), 3, jax.random.key(0), family=family, num_steps=8, tolerance=0
    )
    steps = min(len(found.log_likelihood), len(expected.log_likelihood))  # rounding may end one of them earlier
    np.testing.assert_allclose(found.log_likelihood[:steps], expected.log_likelihood[:steps], rtol=1e-7)
    assert found.log_likelihood[-1] > found.log_likelihood[0]
    order, other = (np.argsort(np.asarray(law.components.loc)[:, 0]) for law in (found.mixture, expected.mixture))
    names = ["loc", "scale_tril" if family == "wrapped" else "scale"]
    for name in names:
        mine, his = getattr(found.mixture.components, name), getattr(expected.mixture.components, name)
        np.testing.assert_allclose(np.asarray(mine)[order], his.numpy()[other], rtol=1e-5, atol=1e-7)
    z = x[::7] + 0.05
    np.testing.assert_allclose(
        found.mixture.log_prob(jnp.asarray(z)), expected.mixture.log_prob(torch.tensor(z)), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.mixture.responsibilities(jnp.asarray(z))[:, order],
        expected.mixture.responsibilities(torch.tensor(z))[:, other],
        atol=1e-6,
    )


def test_a_fitted_mixture_is_moved_across() -> None:
    x = points()
    law = ours.fit_normals(torch.tensor(x), here.Hyperbolic(2), 2, num_steps=2).mixture
    twin = to_numpyro(law)
    assert isinstance(twin, theirs.RiemannianMixture)
    np.testing.assert_allclose(twin.log_prob(jnp.asarray(x)), law.log_prob(torch.tensor(x)), rtol=1e-9)
