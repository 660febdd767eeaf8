"""The same of the twin, by the conversion of metrics: any points, finite numbers or a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings

from pyro_riemann.numpyro import to_numpyro
from tests.fuzz.contract import F32, F64, PHASES, Case, answer, cases
from tests.precision import enable_x64

few = settings(max_examples=1, deadline=None, derandomize=True, database=None, phases=PHASES)
SHAPES = ((2,),)  # a new shape compiles anew


@pytest.fixture(scope="module", autouse=True)
def double_precision() -> Iterator[None]:
    """float64 for this module; float32 by its points."""
    with enable_x64(True):
        yield
    jax.clear_caches()


def as_arrays(case: Case) -> tuple[Any, ...]:
    """The twin of a metric, and the points."""
    metric, *points = case.points()
    return to_numpyro(metric), *(jnp.asarray(point.numpy()) for point in points)


def check(case: Case) -> None:
    metric, z, y, v = as_arrays(case)
    for name in ("metric", "logdet", "drift"):
        answer(lambda name=name: getattr(metric, name)(z))  # type: ignore[misc]
    found = answer(lambda: metric.dist(z, y))
    if found is not None:
        slopes = jax.grad(lambda a, b: metric.dist(a, b).sum(), (0, 1))(z, y)
        assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)
        # both faces, wherever both answer
        theirs = answer(lambda: case.points()[0].dist(*case.points()[1:3]))
        if theirs is not None and case.dtype == F64:
            np.testing.assert_allclose(found[0], theirs[0], rtol=1e-6, atol=1e-7)
    answer(lambda: metric.expmap(z, v))
    answer(lambda: metric.logmap(z, y))
    answer(lambda: metric.norm(z, v))


@few
@given(cases(("HalfSpace",), shapes=SHAPES))
@example(Case("HalfSpace", F32, 2, 2))
@example(Case("HalfSpace", F64, 8, None))
@example(Case("SPD", F32, 1, 1))
def test_closed_forms(case: Case) -> None:
    check(case)
