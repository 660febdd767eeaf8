"""Fixtures of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch
from pyro.distributions.util import is_validation_enabled

from pyro_riemann import _work
from tests.zero_tangents import infer_quickly

SLOW, LONG = (frozenset(Path(__file__).with_name(name).read_text().splitlines()) for name in ("slow.txt", "long.txt"))
QUICKER = "--xla_cpu_use_fusion_emitters=false"


def is_known(flag: str) -> bool:
    """Whether the installed XLA has a flag: it ends the process at one that it does not know."""
    program = [sys.executable, "-c", "import jax.numpy; jax.numpy.zeros(1)"]
    return subprocess.run(program, env={**os.environ, "XLA_FLAGS": flag}, capture_output=True).returncode == 0


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one thread, as the workers are the parallelism; be quick where no test looks.

    Tests of the twin compile much and compute little: without most of its optimisations, and with its older emitter of
    loops, XLA takes a third of the time for the same programs. JAX reads both when it is imported. Benchmarks are run
    with what users have; so is everything where JAX_DISABLE_MOST_OPTIMIZATIONS is 0. For torch: ``zero_tangents``.
    """
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)  # the rest is inherited
    elif config.option.markexpr != "benchmark":
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        if "XLA_FLAGS" not in os.environ and is_known(QUICKER):
            os.environ["XLA_FLAGS"] = QUICKER
    if config.option.markexpr != "benchmark":
        infer_quickly()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the two lists name.

    What cases of ``slow.txt`` test, another case of the same test does in every run. The tests, files and folders of
    ``long.txt`` take most of the time of all, and are run before a change lands.
    """
    groups = tuple(entry for entry in LONG if "::" not in entry)
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.nodeid in LONG or item.nodeid.startswith(groups):
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Same seed, validation and empty parameter store for every test, whatever ran before, and nothing left behind."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    pyro.enable_validation(True)  # torch.compile turns that of torch off
    dtype = torch.get_default_dtype()
    yield
    pyro.clear_param_store()
    assert torch.get_default_dtype() == dtype, "a test left another default dtype behind"
    assert not torch.compiler.is_compiling(), "a test left torch compiling: no routine checks what it gives"
    assert is_validation_enabled(), "a test left validation off"
    assert _work.THREAD.task is None, "a test left a routine in work: no later one checks what it gives"
