"""Any points on numeric metrics: distances, curves and their maps are finite, or a word; and distances are distances.

With a coarse spline: its error is that of the tolerances, and a case costs seconds, not minutes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from pyro_riemann import RiemannianMetric
from pyro_riemann.geodesics import GeodesicSolver
from tests.fuzz.contract import F64, PHASES, Case, answer, cases, with_gradients

NAMES = ("RiemannianMetric", "KernelMetric", "PullbackMetric", "GridMetric", "ConformalMetric", "WarpedMetric")
COARSE = GeodesicSolver(num_knots=4, num_segments=16, init="line", max_iterations=20)
ERROR = 2e-2  # of the spline, relative
some = cases(NAMES, largest=1, shapes=((2,),))
few = settings(max_examples=2, deadline=None, derandomize=True, database=None, phases=PHASES)


def points(case: Case) -> tuple[RiemannianMetric, Tensor, Tensor, Tensor]:
    metric, z, y, step = case.points()
    metric.solver = COARSE
    return metric, z, y, step


def check_contract(case: Case) -> None:
    """Numbers with gradients; of one point twice the distance is 0."""
    metric, z, y, step = points(case)
    found = answer(lambda: with_gradients(metric.dist, z, y))
    if found is not None:
        assert found[0].dtype == case.dtype
        assert bool((found[0] >= 0).all())
        if case.step is None:
            assert not any(bool(part.any()) for part in found)
    answer(lambda: metric.logmap(z, y))
    answer(lambda: with_gradients(metric.expmap, z, step))


def check_distance(case: Case) -> None:
    """Symmetry, the triangle inequality and the exponential of the logarithm, where the solver says nothing."""
    metric, z, y, _ = points(case)
    middle = z + 0.4 * (y - z) + 0.3 * (y - z).flip(-1)

    def length(first: Tensor, second: Tensor) -> Any:
        return answer(lambda: metric.dist(first, second), sure=True)

    there, back, first, last = length(z, y), length(y, z), length(z, middle), length(middle, y)
    if there is None:
        return
    if back is not None:
        torch.testing.assert_close(there[0], back[0], rtol=ERROR, atol=1e-12)
    if first is not None and last is not None:
        assert bool((there[0] <= (1 + ERROR) * (first[0] + last[0])).all())
    velocity = answer(lambda: metric.logmap(z, y), sure=True)
    end = None if velocity is None else answer(lambda: metric.expmap(z, velocity[0]), sure=True)
    gap = None if end is None else length(end[0], y)
    if gap is not None:
        assert bool((gap[0] <= ERROR * there[0]).all())


def near(case: Case) -> Case:
    """The same within the data, in float64, with points that differ by more than rounding."""
    return case._replace(dtype=F64, scale=min(case.scale, 0), step=max(-4, min(0, case.step or 0)))


@few
@given(some)
def test_numeric_geodesics(case: Case) -> None:
    check_contract(case)
    check_distance(near(case))


@pytest.mark.slow
@settings(few, max_examples=30)
@given(cases(NAMES, largest=8))
def test_numeric_geodesics_at_length(case: Case) -> None:
    check_contract(case)
    check_distance(near(case))
