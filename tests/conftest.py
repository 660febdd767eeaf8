"""Fixtures of all tests."""

from __future__ import annotations

import importlib.util
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch


def knows(flag: str) -> bool:
    """Whether the installed XLA has a flag: it ends the process at one that it does not know."""
    spec = importlib.util.find_spec("jaxlib")
    for library in Path(str(spec and spec.origin)).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(flag.encode()) >= 0
    return False


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one thread, as the workers are the parallelism, and XLA its quicker emitter.

    Tests of the twin compile much and compute little; XLA's older emitter of loops makes the same programs in less than
    half of the time. JAX reads the flag when it makes its first array.
    """
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)
    if knows("xla_cpu_use_fusion_emitters"):
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Same seed and empty parameter store for every test, whatever ran before."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    dtype = torch.get_default_dtype()
    yield
    pyro.clear_param_store()
    assert torch.get_default_dtype() == dtype, "a test left another default dtype behind"
