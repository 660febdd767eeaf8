"""Pyro's own generic distribution checks, run on our distributions.

The checks are not ours: they are imported from a checkout of Pyro (github.com/pyro-ppl/pyro) that the
environment variable ``PYRO_SOURCE`` names, and fed through its ``Fixture`` class::

    PYRO_SOURCE=/path/to/pyro python -m pytest -m upstream tests/upstream
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from pyro_riemann import (
    EuclideanMetric,
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)

pytestmark = pytest.mark.upstream

# Pyro's names; what is left out has no meaning for a continuous law without closed forms (cdf, scipy, enumeration)
CHECKS = [
    "test_support_shape",
    "test_infer_shapes",
    "test_batch_log_prob_shape",
    "test_score_errors_event_dim_mismatch",
    "test_score_errors_non_broadcastable_data_shape",
    "test_support_is_not_discrete",
    "test_mean",
    "test_variance",
]
EXPANSIONS: list[tuple[str, tuple[Any, ...]]] = [
    *[("test_expand_by", (shape, kind)) for shape in [(), (2,), (2, 3)] for kind in (torch.Size, tuple, list)],
    *[
        ("test_expand_new_dim", (shape, kind, default))
        for shape in [(), (2,), (2, 3)]
        for kind in (torch.Size, tuple, list)
        for default in (False, True)
    ],
    *[("test_expand_existing_dim", (kind, default)) for kind in (torch.Size, tuple, list) for default in (False, True)],
    *[
        ("test_subsequent_expands_ok", (shapes, default))
        for shapes in ([(2, 1), (2, 3)], [(2, 1, 1), (2, 1, 3), (2, 5, 3)])
        for default in (False, True)
    ],
    *[
        ("test_expand_error", (*shapes, default))
        for shapes in (((2, 1), (4, 3)), ((2, 4), (2, 2, 1)), ((1, 2, 1), (2, 1)))
        for default in (False, True)
    ],
]


@lru_cache(maxsize=1)
def upstream() -> tuple[types.ModuleType, types.ModuleType, types.ModuleType]:
    """The modules ``test_distributions``, ``dist_fixture`` and ``test_pickle`` of the checkout.

    Our own tests are a package ``tests`` too, so that Pyro's goes by that name only while it is imported.
    """
    source = os.environ.get("PYRO_SOURCE")
    if not source or not (Path(source) / "tests/distributions/test_distributions.py").is_file():
        pytest.fail(
            f"PYRO_SOURCE must name a checkout of github.com/pyro-ppl/pyro, got {source!r}: "
            "`git clone https://github.com/pyro-ppl/pyro` and set it to that folder.",
            pytrace=False,
        )
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "tests"}
    dtype = torch.get_default_dtype()
    package = types.ModuleType("tests")  # its own __init__ sets up logging, which the checks do not need
    package.__path__ = [str(Path(source) / "tests")]
    sys.modules["tests"] = package
    try:
        checks = importlib.import_module("tests.distributions.test_distributions")
        fixture = importlib.import_module("tests.distributions.dist_fixture")
        pickling = importlib.import_module("tests.distributions.test_pickle")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]
        sys.modules.update(ours)
        torch.set_default_dtype(dtype)
    return checks, fixture, pickling


def kernel() -> KernelMetric:
    return KernelMetric(torch.tensor([[0.0, 0.0], [0.6, 0.3]]).double(), torch.full((2, 2), 4.0).double(), 1.5, 0.5)


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "flat": lambda: EuclideanMetric(2).double(),
    "sphere": lambda: Sphere(2),
    "kernel": kernel,
}
LAWS = {
    "heat kernel": (RiemannianHeatKernel, "time"),
    "wrapped normal": (RiemannianWrappedNormal, "time"),
    "normal": (RiemannianNormal, "scale"),
    "uniform": (RiemannianUniform, ""),
}


@pytest.fixture(params=[(law, metric) for law in LAWS for metric in METRICS], ids=" on the ".join)
def fixture(request: pytest.FixtureRequest) -> Any:
    return pyro_fixture(*request.param)


@pytest.fixture(params=[(law, metric) for law in LAWS for metric in ("flat", "sphere")], ids=" on the ".join)
def closed_fixture(request: pytest.FixtureRequest) -> Any:
    """Expansion does not depend on the metric: those whose distances cost nothing will do."""
    return pyro_fixture(*request.param)


def pyro_fixture(name: str, metric_name: str) -> Any:
    """Pyro's Fixture for one of our laws: a batch of (1, 2), and a batch of two."""
    law, spread = LAWS[name]
    metric = METRICS[metric_name]()
    centre = torch.tensor([[0.1, -0.2], [0.3, 0.2]]).double()
    if law is RiemannianUniform:
        single = {"metric": metric, "low": centre - 0.5, "high": centre + 0.5}
        double = {"metric": metric, "low": centre[None] - 0.5, "high": centre[None] + 0.5}
    else:
        single = {"loc": centre, spread: torch.tensor([0.1, 0.2]).double(), "metric": metric}
        double = {"loc": centre[None], spread: torch.tensor([[0.1, 0.2]]).double(), "metric": metric}
    # Pyro takes the last example for its checks of batches, whose first axis may not be 1
    examples = [{**double, "test_data": centre[None]}, {**single, "test_data": centre}]
    return upstream()[1].Fixture(pyro_dist=law, examples=examples)


@pytest.fixture(autouse=True)
def as_pyro_tests() -> Iterator[None]:
    """Validation and default dtype of Pyro's own test run, for the length of a test."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with pyro.validation_enabled(True):
        yield
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("check", CHECKS)
def test_generic_check(check: str, fixture: Any) -> None:
    getattr(upstream()[0], check)(fixture)


@pytest.mark.parametrize("check, arguments", EXPANSIONS)
def test_expansion(check: str, arguments: tuple[Any, ...], closed_fixture: Any) -> None:
    getattr(upstream()[0], check)(closed_fixture, *arguments)


@pytest.mark.parametrize("name", LAWS)
def test_pickle(name: str) -> None:
    law = LAWS[name][0]
    bounds = [torch.full((2,), -1.0), torch.full((2,), 1.0)]
    arguments = [Sphere(2), *bounds] if law is RiemannianUniform else [bounds[0] / 5, torch.tensor(0.1), Sphere(2)]
    pickling = upstream()[2]
    pickling.ARGS[law] = arguments
    pickling.test_pickle(law)
