"""Cases of the twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._models import PAIRS, Calls, mnist_vae, pairs


def jax_distances() -> Calls:
    import jax
    import jax.numpy as jnp

    from pyro_riemann import PullbackMetric
    from pyro_riemann import numpyro as twin

    vae, codes = mnist_vae()
    metric = PullbackMetric(vae.decoder.requires_grad_(False), 2)
    moved = twin.to_numpyro(metric)
    z, y = (jnp.asarray(part.numpy()) for part in pairs(codes, PAIRS))

    def total(start: Any, end: Any) -> Any:
        squared = moved.squared_dist(start, end)
        return squared.sum(), squared

    program: list[Any] = []

    def compiling() -> None:
        jax.clear_caches()
        program[:] = [jax.jit(jax.value_and_grad(total, has_aux=True)).lower(z, y).compile()]

    def eagerly() -> Any:
        return jax.block_until_ready(jax.value_and_grad(total, has_aux=True)(z, y))

    def anew() -> Any:
        jax.clear_caches()
        return eagerly()

    return {
        "compile": compiling,
        "compiled": lambda: jax.block_until_ready(program[0](z, y)),
        "without jit, first call": anew,
        "without jit": eagerly,
    }


def jax_first_calls() -> Calls:
    """First calls of the twin: compilation and all."""
    import jax
    import jax.numpy as jnp

    from pyro_riemann import numpyro as twin
    from pyro_riemann.numpyro.manifolds import Hyperbolic, Sphere

    class Waves(twin.RiemannianMetric):
        dim = 2
        pytree_data_fields = ()

        def metric(self, z: Any) -> Any:
            x, y = z[..., 0], z[..., 1]
            off = 0.12 * jnp.sin(x + y)
            rows = [1.3 + 0.4 * jnp.sin(x) * jnp.cos(y), off, off, 1.1 + 0.4 * jnp.cos(x - 0.5)]
            return jnp.stack(rows, -1).reshape(*z.shape[:-1], 2, 2)

    loc = jnp.zeros(2)
    key = jax.random.PRNGKey(0)
    waves = Waves()
    points = jax.random.normal(key, (2, 16, 2))
    kernel = twin.KernelMetric(jax.random.normal(key, (50, 3)), jnp.full((50, 3), 25.0), 2.0, 0.01)
    works: Calls = {
        "own metric, dist": lambda: waves.dist(*points),
        "own metric, normal, log_normalizer": lambda: twin.RiemannianNormal(loc, 0.5, waves).log_normalizer(),
        "own metric, normal, sample": lambda: twin.RiemannianNormal(loc, 0.5, waves).sample(key, (10,)),
        "own metric, normal, log_prob": lambda: twin.RiemannianNormal(loc, 0.5, waves).log_prob(points[0]),
        "own metric, heat kernel, log_normalizer": lambda: twin.RiemannianHeatKernel(loc, 0.3, waves).log_normalizer(),
        "own metric, wrapped normal, log_prob": lambda: twin.RiemannianWrappedNormal(loc, 0.3, waves).log_prob(
            points[0]
        ),
        "own metric, Brownian motion, 16 steps": lambda: twin.brownian_motion(waves, points[0], 0.1, 16, key=key),
        "kernel metric, uniform, log_volume": lambda: twin.RiemannianUniform(kernel, -3.0, 3.0).log_volume(),
        "kernel metric, uniform, sample": lambda: twin.RiemannianUniform(kernel, -3.0, 3.0).sample(key, (10,)),
        "S^2, normal, log_normalizer": lambda: twin.RiemannianNormal(loc, 0.5, Sphere(2)).log_normalizer(),
        "H^3, normal, sample": lambda: twin.RiemannianNormal(jnp.zeros(3), 0.5, Hyperbolic(3)).sample(key, (10,)),
    }

    def first(work: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            jax.clear_caches()
            return jax.block_until_ready(work())

        return call

    return {name: first(work) for name, work in works.items()}
