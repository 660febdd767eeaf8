"""The device of these tests: CUDA, the processor to check the tests, or one that is pretended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.devices import pretended_device

PRETENDED = os.environ.get("PYRO_RIEMANN_TEST_DEVICE") == pretended_device.NAME
if PRETENDED:  # before a module of tests names it
    pretended_device.register()


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    """What the pretended device needs while a test runs."""
    with pretended_device.pretended() if PRETENDED else nullcontext():
        yield
