"""Stated errors are the errors: (estimate - exact) / error over random instances of all that returns an Estimate.

The spread is the root mean square about 0, which is where a right estimate is: an error that is always there, and
always half of what is stated, has no standard deviation about its mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from tests import calibration
from tests.calibration import Instance

ROUND_OFF = 1e-9  # relative to the value: an error below it is one of arithmetic, and holds as a bound
WARNED = 0.15  # share of the instances that may warn instead


def scores(chosen: Iterable[Instance]) -> np.ndarray:
    """Errors in units of the stated ones, of those that neither warned nor are exact; warnings are counted."""
    found, warned, count = [], 0, 0
    for instance in chosen:
        count += 1
        value, error, said = calibration.measured(instance)
        scale = max(1.0, abs(instance.exact))
        if said:
            warned += 1
        elif error <= ROUND_OFF * scale:
            assert abs(value - instance.exact) <= error + ROUND_OFF * scale, instance.name
        else:
            found.append((value - instance.exact) / error)
            assert abs(found[-1]) <= 5, f"{instance.routine} on {instance.name}: {value}, exactly {instance.exact}"
    assert warned <= math.ceil(WARNED * count)
    return np.array(found)


ROUTINES = (
    "normal",
    "heat kernel",
    "vamp prior",
    "chart integral",
    "folded mass",
    "monte_carlo_kl",
    "uniform",
    "sample_uniform",
)


def spread(found: np.ndarray) -> float:
    return math.sqrt(np.square(found).mean())


def test_two_hundred_instances_of_every_routine() -> None:
    assert sum(count for *_, count in calibration.PLAN) >= 200
    kinds = {make: (dim, kind) for make, dim, kind, _ in calibration.PLAN}
    assert {calibration.instance(make, *case, 0).routine for make, case in kinds.items()} == set(ROUTINES)


def test_stated_errors_of_a_few_of_each_kind() -> None:
    found = scores(calibration.instance(*case, 0) for case in calibration.QUICK)
    assert 0.5 <= spread(found) <= 1.5


@pytest.mark.slow
@pytest.mark.parametrize("routine", ROUTINES)
def test_stated_errors_are_the_errors(routine: str) -> None:
    found = scores(one for one in calibration.instances() if one.routine == routine)
    assert 0.5 <= spread(found) <= 1.5
