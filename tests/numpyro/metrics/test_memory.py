"""Many points in pieces give what all points at once give; what is refused at one point is refused among many."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import KernelMetric, PullbackMetric, RiemannianMetric, brownian_motion
from pyro_riemann.numpyro._memory import in_pieces
from pyro_riemann.numpyro.geodesics import GeodesicSolver

KEY, DIM = jax.random.key(0), 3
Z, V, U = jax.random.normal(KEY, (3, 7, 9, DIM))
FIRST, LAST = jax.random.normal(KEY, (DIM, 20)) / 2, jax.random.normal(KEY, (20, 10)) / 4
Work = Callable[[RiemannianMetric, Array], Array]


def decoder() -> PullbackMetric:
    metric = PullbackMetric(lambda z: jnp.tanh(z @ FIRST) @ LAST, DIM, jitter=1e-3)
    metric.solver = GeodesicSolver(2, 4, max_iterations=4, max_polish=0, on_failure="ignore")
    return metric


def kernel() -> KernelMetric:
    return KernelMetric(jax.random.normal(KEY, (40, DIM)), jnp.full((40, DIM), 2.0), 2.0, 0.1)


POINTWISE: dict[str, Work] = {
    "metric": lambda m, z: m.metric(z),
    "logdet": lambda m, z: m.logdet(z),
    "inner, by name": lambda m, z: m.inner(z, v=V, u=U),
    "drift": lambda m, z: m.drift(z),
    "walk": lambda m, z: brownian_motion(m, z, 1e-3, noise=0.3 * jnp.stack([V, U])),
}


def compared(make: Callable[[], RiemannianMetric], work: Work) -> None:
    found = []
    for memory in (2**30, 40 * 4 * make().footprint(0)):
        metric = make()
        metric.max_memory = memory
        found.append((work(metric, Z), jax.grad(lambda z, m=metric: jnp.sin(work(m, z)).sum())(Z)))
    for whole, parts in zip(*found, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=2e-4, atol=2e-4 * float(jnp.abs(whole).max()))


@pytest.mark.parametrize("make", [decoder, kernel])
@pytest.mark.parametrize("name", POINTWISE)
def test_pieces_give_what_all_points_give(make: Callable[[], RiemannianMetric], name: str) -> None:
    compared(make, POINTWISE[name])


def test_distances_in_pieces() -> None:
    compared(decoder, lambda m, z: m.squared_dist(z, V))


def test_what_is_refused_at_one_point_is_refused_among_many() -> None:
    class Bowl(RiemannianMetric):
        dim = 2

        def metric(self, z: Array) -> Array:
            return jnp.eye(2) * (1 - z[..., :1, None])

    metric, z = Bowl(), jnp.zeros((50, 2))
    metric.max_memory = 10 * 4 * metric.footprint(0)
    assert metric.logdet(z).shape == (50,)
    with pytest.raises(ValueError, match="not positive definite"):
        metric.logdet(z.at[33].set(2.0))


def test_a_footprint_holds_all_layers() -> None:
    metric = decoder()
    assert metric.footprint(0) >= (20 + 10) * (DIM + 1)
    assert metric.footprint(-1) < metric.footprint(0) < metric.footprint(1)


def test_pieces_that_do_not_fill_up() -> None:
    values = jnp.arange(23.0)
    found = in_pieces(lambda rows: (values[rows] ** 2, values[rows, None] * jnp.ones(2)), 23, 5)
    np.testing.assert_allclose(found[0], values**2)
    assert found[1].shape == (23, 2)
