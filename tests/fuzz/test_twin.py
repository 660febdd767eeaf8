"""The same of the twin, by the conversion of metrics: any points, finite numbers or a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_riemann.numpyro import (
    RiemannianHeatKernel,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    to_numpyro,
)
from tests.fuzz.contract import F32, F64, PHASES, Case, answer, cases
from tests.fuzz.test_laws import QUICK, Draw, draws, finite_or_nowhere
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


LAWS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "heat kernel": lambda loc, time, metric: RiemannianHeatKernel(loc, time, metric, normalize=True),
    "wrapped normal": RiemannianWrappedNormal,
    "normal": lambda loc, time, metric: RiemannianNormal(loc, jnp.sqrt(time), metric),
    "uniform": lambda loc, time, metric: RiemannianUniform(metric, loc - jnp.sqrt(time), loc + jnp.sqrt(time)),
}


def check_law(one: Draw) -> None:
    """Density with gradients in all arguments, and draws."""
    place, centre = Case(one.metric, one.dtype).place()
    metric, loc = to_numpyro(place), jnp.asarray(centre.numpy())
    time = jnp.asarray(10.0**one.time, loc.dtype)
    step = np.random.default_rng(one.seed).normal(size=loc.shape).astype(loc.dtype)
    value = loc if one.far is None else loc + jnp.asarray(10.0**one.far, loc.dtype) * step

    def density(x: Any, t: Any, z: Any) -> Any:
        return LAWS[one.law](x, t, metric).log_prob(z)

    bounds = finite_or_nowhere if one.law == "uniform" else np.isfinite
    found = answer(lambda: density(loc, time, value), bounds, sure=True)
    if found is not None:
        assert found[0].dtype == loc.dtype
        if np.isfinite(found[0]):
            slopes = jax.grad(density, (0, 1, 2))(loc, time, value)
            assert all(bool(jnp.isfinite(slope).all()) for slope in slopes), (found, slopes)
    drawn = answer(lambda: LAWS[one.law](loc, time, metric).sample(jax.random.key(one.seed), (3,)))
    assert drawn is None or drawn[0].shape == (3, metric.dim)


def twins(metrics: tuple[str, ...], smallest: int = -8, largest: int = 8) -> st.SearchStrategy[Draw]:
    """Laws of the twin on some metrics."""
    return draws(metrics, smallest, largest).map(lambda one: one._replace(law=sorted(LAWS)[one.seed % len(LAWS)]))


@settings(few, max_examples=3)
@given(twins(("HalfSpace",)))
def test_laws(one: Draw) -> None:
    check_law(one)


@pytest.mark.slow
@settings(few, max_examples=60)
@given(twins(QUICK))
def test_laws_at_length(one: Draw) -> None:
    check_law(one)


@few
@given(cases(("HalfSpace",), shapes=SHAPES))
@example(Case("HalfSpace", F32, 2, 2))
@example(Case("HalfSpace", F64, 8, None))
@example(Case("SPD", F32, 1, 1))
def test_closed_forms(case: Case) -> None:
    check(case)
