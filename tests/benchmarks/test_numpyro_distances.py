"""100 squared distances with gradient on K20's MNIST decoder: compiled JAX against our torch version.

The same 100 pairs of test codes, the same solver settings (straight-line starts), float32, one thread. The JAX program
is compiled for the shape before it is timed; *compile seconds* tells how long that takes.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric
from pyro_riemann import numpyro as twin
from tests.benchmarks._decoder import mnist_vae
from tests.benchmarks._measure import cpu_seconds

PAIRS = 100


def run(repeats: int = 3) -> list[dict[str, Any]]:
    vae, codes = mnist_vae()
    metric = PullbackMetric(vae.decoder.requires_grad_(False), 2)
    moved = twin.to_numpyro(metric)
    chosen = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))[: 2 * PAIRS]]
    z, y = chosen.reshape(2, PAIRS, 2)
    left, right = jnp.asarray(z.numpy()), jnp.asarray(y.numpy())

    def in_torch() -> tuple[Tensor, Tensor]:
        start = z.clone().requires_grad_()
        squared = metric.squared_dist(start, y)
        return squared.detach(), torch.autograd.grad(squared.sum(), start)[0]

    def total(start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = moved.squared_dist(start, end)
        return squared.sum(), squared

    begun = time.process_time()
    program = jax.jit(jax.value_and_grad(total, has_aux=True)).lower(left, right).compile()
    compiling = time.process_time() - begun
    seconds = {"torch": float("inf"), "JAX, compiled": float("inf")}
    for _ in range(repeats):  # interleaved
        seconds["torch"] = min(seconds["torch"], cpu_seconds(in_torch, 1))
        work = cpu_seconds(lambda: jax.block_until_ready(program(left, right)), 1)
        seconds["JAX, compiled"] = min(seconds["JAX, compiled"], work)
    (_, ours), _ = program(left, right)
    difference = np.abs(np.sqrt(np.asarray(ours)) / in_torch()[0].sqrt().numpy() - 1)
    return [
        {
            "benchmark": "100 squared distances with gradient, JAX against torch",
            "case": "MNIST, d = 2, with precision network",
            "method": method,
            "seconds": value,
            "floor_seconds": None,
            "ratio_to_floor": None,
            "compile_seconds": compiling if method.startswith("JAX") else None,
            "ratio_over_torch": seconds["torch"] / value,
            "median_difference": float(np.median(difference)),
            "share_over_1_percent_apart": float((difference > 0.01).mean()),
        }
        for method, value in seconds.items()
    ]


@pytest.mark.benchmark
def test_compiled_distances_agree_and_are_not_slower() -> None:
    torch.set_num_threads(1)
    rows = {row["method"]: row for row in run()}
    assert rows["JAX, compiled"]["median_difference"] < 1e-3
    assert rows["JAX, compiled"]["ratio_over_torch"] > 1
