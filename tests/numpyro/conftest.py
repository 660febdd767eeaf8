"""Fixtures for the tests of the NumPyro twin."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

from tests.precision import enable_x64


@pytest.fixture(scope="module", autouse=True)
def double_precision() -> Iterator[None]:
    """float64 for one test module, its module-wide fixtures included; a test of float32 casts its inputs.

    The module's compiled programs go with it: some thousands of them in one process exhaust the number of memory maps
    that Linux allows, and the next compilation aborts.
    """
    with enable_x64(True):
        yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """XLA's optimisations, for a module that computes longer than it compiles."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
