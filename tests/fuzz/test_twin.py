"""The same of the twin, by the conversion of metrics and laws: any points and times, finite numbers or a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings

from pyro_riemann.numpyro import RiemannianHeatKernel, RiemannianNormal, RiemannianWrappedNormal, to_numpyro
from tests.fuzz.contract import CLOSED, F32, F64, PHASES, Case, answer, cases
from tests.fuzz.test_laws import Draw, draws
from tests.precision import enable_x64

few = settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=PHASES)
many = settings(max_examples=200, deadline=None, derandomize=True, database=None, phases=PHASES)
SHAPES = ((2,),)  # a new shape compiles anew
LAWS: dict[str, Callable[..., Any]] = {
    "RiemannianHeatKernel": RiemannianHeatKernel,
    "RiemannianWrappedNormal": RiemannianWrappedNormal,
    "RiemannianNormal": lambda loc, time, metric: RiemannianNormal(loc, jnp.sqrt(time), metric),
    "covariance": lambda loc, time, metric: RiemannianWrappedNormal(
        loc, None, metric, scale_tril=jnp.sqrt(time) * jnp.eye(metric.dim, dtype=loc.dtype)
    ),
}


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


def with_gradients(function: Callable[..., Any], *points: Any) -> tuple[Any, ...]:
    """A value and its derivatives by the points."""
    return function(*points), *jax.grad(lambda *at: function(*at).sum(), tuple(range(len(points))))(*points)


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


def check_law(one: Draw) -> None:
    metric, loc, _, step = as_arrays(Case(one.metric, one.dtype, 0, one.far, (), one.seed))
    time = jnp.asarray(10.0**one.time, loc.dtype)
    law, value = LAWS[one.law], loc + step
    found = answer(lambda: law(loc, time, metric).log_prob(value))
    if found is not None:
        slopes = jax.grad(lambda x, t, z: law(x, t, metric).log_prob(z).sum(), (0, 1, 2))(loc, time, value)
        assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)
    answer(lambda: law(loc, time, metric).sample(jax.random.key(one.seed), (3,)))


@few
@given(cases(("HalfSpace",), shapes=SHAPES))
@example(Case("HalfSpace", F32, 2, 2))
@example(Case("HalfSpace", F64, 8, None))
@example(Case("SPD", F32, 1, 1))
def test_closed_forms(case: Case) -> None:
    check(case)


@pytest.mark.slow
@many
@given(cases((*CLOSED, "KernelMetric"), shapes=SHAPES))
def test_closed_forms_at_length(case: Case) -> None:
    check(case)


@example(Draw("covariance", "HalfSpace", 0, 2, F32))
@example(Draw("RiemannianHeatKernel", "HalfSpace", 0, 8, F64))
@settings(few, max_examples=1)
@given(draws(("HalfSpace",)).filter(lambda one: one.law in LAWS))
def test_laws(one: Draw) -> None:
    check_law(one)


@pytest.mark.slow
@settings(many, max_examples=100)
@given(draws(CLOSED).filter(lambda one: one.law in LAWS))
def test_laws_at_length(one: Draw) -> None:
    check_law(one)
