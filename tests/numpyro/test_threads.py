"""Compiled programs end on a machine of two cores, with XLA's own settings."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax.numpy as jnp
from pyro_riemann.numpyro import PullbackMetric, RiemannianNormal

metric = PullbackMetric(lambda z: 2 * jnp.sin(z) + z, 8)
print(float(RiemannianNormal(jnp.zeros(8), 0.5, metric).log_normalizer().value))
"""


@pytest.mark.slow
def test_batched_factors_do_not_wait_for_each_other() -> None:
    """As they do for ever in jaxlib 0.10, whose LAPACK calls wait for threads of the pool that they run in."""
    command = [sys.executable, "-c", PROGRAM]
    if sys.platform == "linux":
        command = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:2])), *command]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert float(run.stdout) == pytest.approx(
        4 * math.log(math.tau * 0.25), abs=0.05
    )  # nearly all mass is before the fold
