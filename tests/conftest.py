"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one thread: the workers are the parallelism."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Same seed and empty parameter store for every test, whatever ran before."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    dtype = torch.get_default_dtype()
    yield
    pyro.clear_param_store()
    assert torch.get_default_dtype() == dtype, "a test left another default dtype behind"
