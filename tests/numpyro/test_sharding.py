"""Arguments over two devices, made of one processor: the same values, and results over both."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

HEAD = """
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from pyro_riemann.numpyro import *

    over = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
    def share(x):
        return jax.device_put(x, over)
    def check(name, function, *arguments):
        alone, shared = function(*arguments), function(*map(share, arguments))
        # rows on both devices, and on neither all of them
        parts = {shard.device: shard.data.shape[0] for shard in shared.addressable_shards}
        assert parts == dict.fromkeys(jax.devices(), len(alone) // 2), (name, shared.sharding)
        np.testing.assert_allclose(shared, alone, rtol=1e-9, atol=1e-11, err_msg=name)
"""
PROGRAMS = {
    "distances": """
        z, y = jax.random.normal(jax.random.key(0), (2, 6, 2)) / 3
        kernel = KernelMetric(y[:4], jnp.full((4, 2), 5.0), 1.0, 0.1)
        for metric in (Sphere(2), kernel):
            check(f"{type(metric).__name__}.dist", metric.dist, z, y)
    """,
    "kernel sums": """
        z = jax.random.normal(jax.random.key(0), (10, 2)) / 3
        centroids = jax.random.normal(jax.random.key(1), (40, 2)) / 3
        def kernel(centroids):
            return KernelMetric(centroids, jnp.full((40, 2), 5.0), 0.4, 0.1)
        check("metric", kernel(centroids).metric, z)
        check("logdet", kernel(centroids).logdet, z)
        # the sum itself in two halves, over the centroids
        halves = jax.jit(lambda c: kernel(c).metric(z))(share(centroids))
        np.testing.assert_allclose(halves, kernel(centroids).metric(z), rtol=1e-12)
    """,
    "laws": """
        z, y = jax.random.normal(jax.random.key(0), (2, 6, 2)) / 5
        check("log_prob", lambda z, y: RiemannianWrappedNormal(z, 0.05, Sphere(2)).log_prob(y), z, y)
        check("draws", lambda z: RiemannianWrappedNormal(z, 0.05, Sphere(2)).sample(jax.random.key(2)), z)
        check("walks", lambda z: brownian_motion(Sphere(2), z, 0.1, 4, key=jax.random.key(3)), z)
    """,
    "normals": """
        z, y = jax.random.normal(jax.random.key(0), (2, 6, 2)) / 5
        check("log_prob", lambda z, y: RiemannianNormal(z, 0.3, Sphere(2)).log_prob(y), z, y)
        check("draws", lambda z: RiemannianNormal(z, 0.3, Sphere(2)).sample(jax.random.key(2)), z)
        check("mean", lambda z: RiemannianNormal(z, 0.3, Sphere(2)).mean, z)
        scales = 0.1 + jnp.abs(z[:, 0])
        check("constant", lambda s: RiemannianNormal(jnp.zeros(2), s, FlatTorus(2)).log_normalizer().value, scales)
        assert not RiemannianNormal(z, 0.3, Sphere(2)).log_prob(y).committed  # nothing is tied to a device unasked
    """,
    "chains": """
        import numpyro
        from numpyro.infer import MCMC, NUTS

        def model():
            numpyro.sample("z", RiemannianWrappedNormal(jnp.zeros(2), 0.1, Sphere(2)))

        def chains(method):
            mcmc = MCMC(NUTS(model), num_warmup=20, num_samples=20, num_chains=4, chain_method=method,
                        progress_bar=False)
            mcmc.run(jax.random.split(jax.random.PRNGKey(0), 4))
            return mcmc.get_samples(group_by_chain=True)["z"]

        two = chains(lambda chain: jax.jit(jax.vmap(chain), in_shardings=over, out_shardings=over))
        assert {shard.data.shape[0] for shard in two.addressable_shards} == {2}
        np.testing.assert_allclose(two, chains("vectorized"), rtol=1e-6, atol=1e-8)
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_two_devices_give_the_values_of_one(name: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = textwrap.dedent(HEAD) + textwrap.dedent(PROGRAMS[name])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
