"""One routine at one size, in a process of its own: ``python -m tests.benchmarks._memory_cases FACE CASE COUNT``.

Prints the CPU seconds of the call, and the peak of resident memory before and after it, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

DIM, HIDDEN, OUTPUTS, CENTROIDS = 10, 64, 784, 60_000
Work = Callable[[], Any]


def on_torch(case: str, count: int) -> Work:
    """The call on the face for torch."""
    import torch
    from torch import nn

    from pyro_riemann import KernelMetric, PullbackMetric, RiemannianUniform, brownian_motion
    from pyro_riemann.geodesics import training_solver

    torch.set_num_threads(1)
    torch.manual_seed(0)
    name, _, dim = case.partition(", d = ")
    if name.startswith("kernel"):
        size = int(dim)
        scales = (0.05 + 0.1 * torch.rand(CENTROIDS, size)) ** -2
        kernel = KernelMetric(torch.randn(CENTROIDS, size), scales, size**0.5, 1e-3)
        z, y = torch.randn(2, count, size)
        works: dict[str, Work] = {
            "kernel metric": lambda: kernel.metric(z),
            "kernel squared_dist": lambda: kernel.squared_dist(z, y),
            "kernel uniform draws": lambda: RiemannianUniform(kernel, -5.0, 5.0).sample((count,)),
        }
        return torch.no_grad()(works[name])
    network = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, OUTPUTS))
    metric = PullbackMetric(network.forward, DIM)  # by forward mode, as any decoder
    z, y = 0.5 * torch.randn(2, count, DIM)

    def walked() -> None:
        start = z.clone().requires_grad_()
        end = brownian_motion(metric, start, 0.1, num_steps=4)
        end.square().sum().backward()

    def rough() -> Any:
        metric.solver = training_solver(DIM)
        return torch.no_grad()(metric.squared_dist)(z, y)

    return {
        "metric": lambda: torch.no_grad()(metric.metric)(z),
        "logdet": lambda: torch.no_grad()(metric.logdet)(z),
        "logdet, with gradient": lambda: metric.logdet(z.clone().requires_grad_()).sum().backward(),
        "squared_dist, training solver": rough,
        "squared_dist": lambda: torch.no_grad()(metric.squared_dist)(z, y),
        "Brownian motion, 4 steps, with gradient": walked,
    }[case]


def on_jax(case: str, count: int) -> Work:
    """The call on the face for JAX."""
    import jax
    import jax.numpy as jnp

    from pyro_riemann.numpyro import KernelMetric, PullbackMetric, RiemannianUniform, brownian_motion
    from pyro_riemann.numpyro.geodesics import training_solver

    key = jax.random.key(0)
    name, _, dim = case.partition(", d = ")
    if name.startswith("kernel"):
        size = int(dim)
        centroids = jax.random.normal(key, (CENTROIDS, size))
        scales = (0.05 + 0.1 * jax.random.uniform(key, centroids.shape)) ** -2
        kernel = KernelMetric(centroids, scales, size**0.5, 1e-3)
        z, y = jax.random.normal(key, (2, count, size))
        return {
            "kernel metric": lambda: kernel.metric(z),
            "kernel squared_dist": lambda: kernel.squared_dist(z, y),
            "kernel uniform draws": lambda: RiemannianUniform(kernel, -5.0, 5.0).sample(key, (count,)),
        }[name]
    first = jax.random.normal(key, (DIM, HIDDEN)) / DIM**0.5
    last = jax.random.normal(key, (HIDDEN, OUTPUTS)) / HIDDEN**0.5
    metric = PullbackMetric(lambda z: jnp.tanh(z @ first) @ last, DIM)
    z, y = 0.5 * jax.random.normal(key, (2, count, DIM))

    def walked(start: Any) -> Any:
        return jnp.square(brownian_motion(metric, start, 0.1, num_steps=4, key=key)).sum()

    def rough() -> Any:
        metric.solver = training_solver(DIM)
        return metric.squared_dist(z, y)

    return {
        "metric": lambda: metric.metric(z),
        "logdet": lambda: metric.logdet(z),
        "logdet, with gradient": lambda: jax.grad(lambda z: metric.logdet(z).sum())(z),
        "squared_dist, training solver": rough,
        "squared_dist": lambda: metric.squared_dist(z, y),
        "Brownian motion, 4 steps, with gradient": lambda: jax.grad(walked)(z),
    }[case]


def peak() -> int:
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure what the command line names."""
    face, case, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    work = (on_torch if face == "torch" else on_jax)(case, count)
    before, start = peak(), time.process_time()
    result = work()
    if face == "jax":
        import jax

        jax.block_until_ready(result)
    print(json.dumps({"seconds": time.process_time() - start, "before_mib": before, "peak_mib": peak()}))


if __name__ == "__main__":
    main()
