"""Masses by weighed draws in JAX against spaces of constant curvature, and where they take the place of rays."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from pyro_riemann._formulas import chart_draws, ray_rule
from pyro_riemann.numpyro import PullbackMetric, RiemannianHeatKernel, RiemannianNormal
from pyro_riemann.numpyro.distributions import _judged_mass, _normal_sampler
from pyro_riemann.numpyro.distributions._over_chart import weighed_draws
from pyro_riemann.numpyro.manifolds import Hyperboloid, Sphere


class Unknown(Hyperboloid):
    """Hyperbolic space whose distances are known and whose volume is not."""

    def radial_law(self) -> None:
        """Nothing is known of the volume."""


class UnknownSphere(Sphere):
    """A sphere whose distances are known and whose volume is not."""

    def radial_law(self) -> None:
        """Nothing is known of the volume."""


@pytest.mark.parametrize("kinds", ((Hyperboloid, Unknown), (Sphere, UnknownSphere)))
def test_masses_of_spaces_of_constant_curvature(kinds: tuple[type[Sphere], type[Sphere]]) -> None:
    loc, time = jnp.full(4, 0.1), jnp.asarray(0.6)
    exact = float(RiemannianHeatKernel(loc, time, kinds[0](4)).log_normalizer().value)
    metric = kinds[1](4)
    found = weighed_draws(metric, loc, time)
    assert abs(found.value - exact) < 4 * found.error
    assert found.error < 0.1
    assert weighed_draws(metric, loc, time) is found


def test_draws_stand_in_for_few_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a program whose arguments they are not; where something is traced, rays have the value."""
    monkeypatch.setattr(chart_draws, "DIRECTIONS_BOUND", math.inf)
    loc, metric = jnp.asarray([[0.3, -0.2, 0.1]]), Unknown(3)
    exact = RiemannianHeatKernel(loc, 0.6, Hyperboloid(3)).log_normalizer().value
    value, error = RiemannianHeatKernel(loc, 0.6, metric).log_normalizer()
    assert 0.005 < float(error[0]) < 0.05
    assert abs(float(value[0] - exact[0])) < 4 * float(error[0])
    inside = jax.jit(lambda: RiemannianHeatKernel(loc, 0.6, metric).log_normalizer().value)()
    np.testing.assert_allclose(inside, value, rtol=1e-6)
    fixed = RiemannianHeatKernel(loc, 0.6, metric, num_directions=16).log_normalizer().value
    assert float(abs(fixed - value)[0]) > 1e-6
    traced = jax.jit(lambda t: RiemannianHeatKernel(loc, t, metric).log_normalizer().value)(0.6)
    np.testing.assert_allclose(traced, exact, atol=0.05)


def test_draws_by_points_have_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances from the centre, and the first coordinate, as those of exact radii in the space itself."""
    monkeypatch.setattr(chart_draws, "DIRECTIONS_BOUND", math.inf)
    loc = jnp.asarray([0.3, -0.2, 0.1])
    laws = [RiemannianNormal(loc, 0.8, kind(3)) for kind in (Hyperboloid, Unknown)]
    monkeypatch.setattr(_normal_sampler, "by_rays", None)  # none is to be followed
    exact, found = (law.sample(jax.random.key(k), (4000,)) for k, law in enumerate(laws))
    for of in (lambda z: Hyperboloid(3).dist(loc, z), lambda z: z[:, 0]):
        assert scipy.stats.ks_2samp(of(exact), of(found)).pvalue > 1e-3


def test_where_rays_are_dear_none_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat space through a curved chart, whose mass is 1."""

    def refuse(*_: object) -> None:
        raise AssertionError("no rays are to be followed here")

    monkeypatch.setattr(ray_rule, "_BUDGET", 0.0)
    monkeypatch.setattr(_judged_mass, "judged_rays", refuse)
    weight = jnp.asarray(0.3)

    def bent(weight: jax.Array, z: jax.Array) -> jax.Array:
        return z + weight * jnp.stack([jnp.sin(z[..., 1]), jnp.sin(z[..., 2]), jnp.cos(z[..., 0])], -1)

    metric = PullbackMetric(jax.tree_util.Partial(bent, weight), 3, jitter=0.0)
    loc, time = jnp.asarray([[0.3, -0.2, 0.1], [1.0, 0.5, 0.0]]), jnp.asarray([0.5, 0.2])
    value, error = RiemannianHeatKernel(loc, time, metric).log_normalizer()
    assert (jnp.abs(value) < 4 * error).all()
    assert (error < 0.06).all()
