"""Any points, any metric: finite numbers with finite gradients, or a word; and distances are distances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_riemann import WarpedMetric
from pyro_riemann.manifolds import SPD, HalfSpace
from tests.fuzz.contract import CLOSED, F32, F64, NUMERIC, PHASES, Case, answer, cases, with_gradients
from tests.metrics_zoo import bend_space, straighten

AT_A_POINT = ("metric", "logdet", "cholesky", "drift", "scalar_curvature")
SINGULAR = tuple(f"singular {power}" for power in range(2, 9))
few = settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=PHASES)


def check_point(case: Case) -> None:
    """What is asked at a point, with vectors there."""
    metric, z, _, v = case.points()
    for name in AT_A_POINT:
        answer(lambda name=name: with_gradients(getattr(metric, name), z))  # type: ignore[misc]
    answer(lambda: with_gradients(metric.norm, z, v))
    answer(lambda: metric.christoffel(z, v))


def check_maps(case: Case) -> None:
    """What joins two points."""
    metric, z, y, v = case.points()
    found = answer(lambda: with_gradients(metric.dist, z, y))
    if found is not None:
        assert found[0].dtype == case.dtype
        assert found[0].shape == case.shape
        assert bool((found[0] >= 0).all())
    answer(lambda: with_gradients(metric.squared_dist, z, y))
    answer(lambda: metric.log_van_vleck(z, y))
    answer(lambda: with_gradients(metric.expmap, z, v))
    answer(lambda: metric.expmap_log_van_vleck(z, v))
    velocity = answer(lambda: metric.logmap(z, y))
    same = answer(lambda: with_gradients(metric.dist, z, z.clone()))
    if same is not None:
        assert not any(bool(part.any()) for part in same)
    # far out vectors of the chart are ill-conditioned; of points that are near each other few digits are left
    step = 0 if case.step is None else case.step
    known = max(case.scale, step) <= 0 and 10.0**-step < 1e-5 / torch.finfo(case.dtype).eps
    if velocity is not None and found is not None and known and not case.name.startswith("singular"):
        length = answer(lambda: metric.norm(z, velocity[0]))
        if length is not None:
            error = 3e-3 if case.dtype == F32 or case.name in NUMERIC else 1e-6
            torch.testing.assert_close(length[0], found[0], rtol=error, atol=1e-30)


@few
@given(cases(CLOSED))
@example(Case("HalfSpace", F32, 2, 2))  # was a distance of 0 and a NaN for a gradient
@example(Case("HalfSpace", F64, 8, None))
@example(Case("HalfSpace", F32, 2, -2))
@example(Case("SPD", F32, 1, 1))  # the same
@example(Case("SPD", F64, 8, 0))  # was an error of LAPACK
@example(Case("SPD", F64, 4, 4))
@example(Case("Hyperbolic", F32, 1, 0))
def test_closed_forms(case: Case) -> None:
    check_point(case)
    check_maps(case)


@settings(few, max_examples=15)
@given(cases(NUMERIC))
def test_numeric_metrics_at_a_point(case: Case) -> None:
    check_point(case)


@settings(few, max_examples=12)
@given(cases(SINGULAR, largest=2, shapes=((2,),)))
@example(Case("singular 8", F32))
@example(Case("singular 7", F64))
def test_nearly_singular_metrics_at_a_point(case: Case) -> None:
    check_point(case)


# ---------------------------------------------------------------- what distances are


def check_distance(case: Case) -> None:
    """Symmetry, the triangle inequality, and the exponential of the logarithm."""
    metric, z, y, _ = case.points()
    middle = (z + y).roll(1, -1) / 2 if case.seed % 2 else z + 0.7 * (y - z)
    there, back = answer(lambda: metric.dist(z, y)), answer(lambda: metric.dist(y, z))
    first, last = answer(lambda: metric.dist(z, middle)), answer(lambda: metric.dist(middle, y))
    error = 1e-3 if case.name in NUMERIC else 1e-7
    if there is not None and back is not None:
        torch.testing.assert_close(there[0], back[0], rtol=error, atol=1e-10)
        if first is not None and last is not None:
            around = first[0] + last[0]
            assert bool((there[0] <= (1 + error) * around + 1e-10).all())
    velocity = answer(lambda: metric.logmap(z, y))
    end = None if velocity is None else answer(lambda: metric.expmap(z, velocity[0]))
    gap = None if end is None else answer(lambda: metric.dist(end[0], y))
    if gap is not None and there is not None:
        assert bool((gap[0] <= 1e-2 * there[0].clamp(min=1e-6)).all())


def check_invariance(case: Case) -> None:
    """The same distance in other coordinates."""
    metric, z, y, _ = case.points()
    other = WarpedMetric(metric, (bend_space, straighten))
    expected = answer(lambda: metric.dist(z, y))
    found = answer(lambda: other.dist(straighten(z), straighten(y)))
    if expected is not None and found is not None:
        torch.testing.assert_close(found[0], expected[0], rtol=1e-3 if case.name in NUMERIC else 1e-6, atol=1e-7)


PAIRS, SEEDS = st.just((2,)), st.integers(0, 99)
doubles = st.builds(Case, st.sampled_from(CLOSED), st.just(F64), st.integers(-8, 0), st.integers(-4, 0), PAIRS, SEEDS)
planes = st.builds(
    Case,
    st.sampled_from(("Sphere", "Hyperboloid", "HalfSpace", "FlatTorus", "ConstantMetric")),
    st.just(F64),
    st.integers(-8, 0),
    st.integers(-4, 0),
    PAIRS,
    SEEDS,
)


@few
@given(doubles)
def test_distances_of_closed_forms(case: Case) -> None:
    check_distance(case)


@few
@given(planes)
def test_distances_do_not_depend_on_the_chart(case: Case) -> None:
    check_invariance(case)


@given(st.floats(-800, 800), st.floats(-800, 800), st.floats(-8, 8), st.sampled_from((F32, F64)))
@settings(few, max_examples=100)
def test_half_space_is_right_beyond_the_range_of_exponentials(
    h: float, k: float, power: float, dtype: torch.dtype
) -> None:
    """Against cosh l = |dx|^2 e^{-h-k} / 2 + cosh(h - k), by logarithms of NumPy's longest floats."""
    z, y = torch.tensor([0.0, h], dtype=dtype), torch.tensor([10.0**power, k], dtype=dtype)
    h, k, x = float(z[1]), float(y[1]), float(y[0])
    logs = (2 * math.log(x) - h - k, abs(h - k), -abs(h - k))
    top = max(logs)
    log_twice_cosh = top + math.log(sum(math.exp(one - top) for one in logs))
    expected = log_twice_cosh if log_twice_cosh > 40 else math.acosh(max(1.0, math.exp(log_twice_cosh) / 2))
    found = HalfSpace(2).to(dtype).dist(z, y)
    torch.testing.assert_close(
        float(found), expected, rtol=1e-5 if dtype == F32 else 1e-9, atol=2e-3 if dtype == F32 else 1e-7
    )


def test_matrices_too_far_apart_are_refused() -> None:
    """Their singular values are rounding: a wrong distance was given in silence."""
    near, far = torch.zeros(3, dtype=F64), torch.tensor([1e12, 20.0, -20.0], dtype=F64)
    with pytest.raises(ValueError, match="`z`, `y`"):
        SPD(2).dist(near, far)
    straight = torch.tensor([0.0, 5.0, -5.0], dtype=F64)  # of which nothing is lost
    torch.testing.assert_close(SPD(2).dist(near, straight), torch.tensor(10 * 2**0.5, dtype=F64))
