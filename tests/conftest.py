"""Fixtures of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch

QUICKER = "--xla_cpu_use_fusion_emitters=false"


def is_known(flag: str) -> bool:
    """Whether the installed XLA has a flag: it ends the process at one that it does not know."""
    program = [sys.executable, "-c", "import jax.numpy; jax.numpy.zeros(1)"]
    return subprocess.run(program, env={**os.environ, "XLA_FLAGS": flag}, capture_output=True).returncode == 0


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one thread, as the workers are the parallelism, and XLA its quicker emitter.

    Tests of the twin compile much and compute little; XLA's older emitter of loops makes the same programs in less than
    half of the time. JAX reads the flag when it makes its first array.
    """
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)
    elif "XLA_FLAGS" not in os.environ and is_known(QUICKER):  # the workers inherit it
        os.environ["XLA_FLAGS"] = QUICKER


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Same seed and empty parameter store for every test, whatever ran before."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    dtype = torch.get_default_dtype()
    yield
    pyro.clear_param_store()
    assert torch.get_default_dtype() == dtype, "a test left another default dtype behind"
