"""``python -m tests.benchmarks.beyond``: what 10 million pairs or 10,000 chains cost at the rates of this machine.

Rates are of processor seconds, of one thread, each measured on a part that one process would have of the whole; JAX's
programs are compiled before. The table multiplies, and says nothing of machines that wait for each other: none of
these jobs sends a message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import torch
from numpyro.infer import MCMC, NUTS

from pyro_riemann import GridMetric, KernelMetric, PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann import numpyro as twin
from pyro_riemann.vae import make_vae
from tests.benchmarks._measure import cpu_seconds

PAIRS, CHAINS, CORES = 10_000_000, 10_000, 100
WARMUP, DRAWS, AT_ONCE = 300, 700, 64


def metrics() -> Iterator[tuple[str, RiemannianMetric, int]]:
    """Each with the number of pairs that is measured."""
    torch.manual_seed(0)
    codes = torch.randn(200, 2)
    yield "sphere, closed form", Sphere(2), 200_000
    yield "kernel metric, 200 centroids, d = 2", KernelMetric(codes, torch.full((200, 2), 8.0), 1.0), 500
    decoder = make_vae(784, 2, "normal", "normal", hidden=(300, 300), num_centers=350, seed=0).decoder
    mean = PullbackMetric(decoder.mean.requires_grad_(False), 2)
    yield "decoder 2-300-300-784, float32", mean, 200
    yield "the same, a table of 100 x 100 nodes", GridMetric(mean, -4.0, 4.0, 100), 500


def pair_rates() -> Iterator[tuple[str, int, float]]:
    """Name, pairs measured, and pairs a second."""
    for name, metric, count in metrics():
        z, y = torch.randn(2, count, 2, generator=torch.Generator().manual_seed(1)).clamp(-2.5, 2.5)
        with torch.no_grad():
            seconds = cpu_seconds(lambda metric=metric, z=z, y=y: metric.dist(z, y), repeats=2)  # type: ignore[misc]
        yield f"distances in torch: {name}", count, count / seconds
    metric = twin.KernelMetric(jax.random.normal(jax.random.key(0), (200, 2)), jnp.full((200, 2), 8.0), 1.0)
    z, y = jax.random.normal(jax.random.key(1), (2, 500, 2)).clip(-2.5, 2.5)
    seconds = cpu_seconds(lambda: jax.jit(metric.dist)(z, y).block_until_ready(), repeats=2)
    yield "distances in JAX: kernel metric, 200 centroids, d = 2", 500, 500 / seconds


def chain_rates() -> Iterator[tuple[str, int, float]]:
    """Name, chains measured, and chains a second, of 300 steps of warm-up and 700 draws."""
    kernel = twin.KernelMetric(jax.random.normal(jax.random.key(0), (200, 2)), jnp.full((200, 2), 8.0), 1.0)
    laws: dict[str, Callable[[], Any]] = {
        "wrapped normal on the sphere": lambda: twin.RiemannianWrappedNormal(jnp.zeros(2), 0.1, twin.Sphere(2)),
        "uniform of a kernel metric, 200 centroids, d = 2": lambda: twin.RiemannianUniform(kernel, -3.0, 3.0),
    }
    for name, law in laws.items():
        mcmc = MCMC(
            NUTS(lambda law=law: numpyro.sample("z", law())),
            num_warmup=WARMUP,
            num_samples=DRAWS,
            num_chains=AT_ONCE,
            chain_method="vectorized",
            progress_bar=False,
        )

        def run(mcmc: MCMC = mcmc) -> None:
            mcmc.run(jax.random.key(0))
            jax.block_until_ready(mcmc.get_samples())

        yield f"chains of NUTS: {name}", AT_ONCE, AT_ONCE / cpu_seconds(run, repeats=2)


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, to two digits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 100 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    torch.set_num_threads(1)
    started = time.strftime("%Y-%m-%d")
    print(f"| work | measured on | a processor second | 10 million pairs, 10,000 chains: one core | {CORES} cores |")
    print("| --- | --- | --- | --- | --- |")
    for total, rates in ((PAIRS, pair_rates()), (CHAINS, chain_rates())):
        for name, count, rate in rates:
            cells = (name, f"{count:,}", f"{rate:,.3g}", duration(total / rate), duration(total / rate / CORES))
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nMeasured on {started}, torch {torch.__version__.split('+')[0]}, jax {jax.__version__}, one thread.")


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    main()
