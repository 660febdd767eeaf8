"""Benchmark (i): CPU seconds of the first NUTS of a process in NumPyro, import aside, compilation and set-up included.

With a folder for JAX's persistent cache the second process finds what the first has compiled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys, time
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from pyro_riemann.numpyro import KernelMetric, RiemannianHeatKernel, RiemannianUniform, compilation_cache

law, folder = sys.argv[1:]
if folder:
    compilation_cache(folder)
key = jax.random.key(0)
metric = KernelMetric(jax.random.normal(key, (100, 2)), jnp.full((100, 2), 25.0), 1.5, 0.1)
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(seconds) if event.endswith("backend_compile_duration") else None
)
start = time.process_time()

def model():
    if law == "normal":
        prior = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    elif law == "uniform":
        prior = RiemannianUniform(metric, -4.0, 4.0)
    else:
        prior = RiemannianHeatKernel(jnp.zeros(2), 0.5, metric)
    z = numpyro.sample("z", prior)
    numpyro.sample("x", dist.Normal(z.sum(), 1.0), obs=0.5)

chains = MCMC(NUTS(model), num_warmup=50, num_samples=50, progress_bar=False)
chains.run(key)
jax.block_until_ready(chains.get_samples())
print(json.dumps({"seconds": time.process_time() - start, "programs": len(compiled), "in_compiler": sum(compiled)}))
"""


def first(law: str, folder: str = "") -> dict[str, Any]:
    """What the first NUTS over a law costs a new process."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYRO_RIEMANN_PROGRESS": "off"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, law, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run() -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for law in ("normal", "uniform", "heat kernel"):
            for cache in ("", "first with a cache", "second with a cache"):
                found = first(law, folder if cache else "")
                fixed = {"benchmark": "first_nuts", "case": law, "method": cache or "no cache"}
                rows.append({**fixed, "floor_seconds": None, "ratio_to_floor": None, **found})
    return rows


@pytest.mark.benchmark
def test_the_first_nuts_costs_little_more_than_that_of_a_normal() -> None:
    rows = {(row["case"], row["method"]): row["seconds"] for row in run()}
    for law in ("uniform", "heat kernel"):
        assert rows[law, "no cache"] < 1.5 * rows["normal", "no cache"]
        assert rows[law, "second with a cache"] < rows[law, "no cache"]
