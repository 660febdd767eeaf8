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


def instances(routine: str | None = None, most: int | None = None) -> Iterable[Instance]:
    return (one for one in calibration.instances(most) if routine in (None, one.routine))


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


def test_every_routine_is_planned() -> None:
    assert {one.routine for one in instances(most=1)} == set(ROUTINES)
    assert sum(count for *_, count in calibration.PLAN) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("routine", ROUTINES)
def test_stated_errors_are_the_errors(routine: str) -> None:
    found = scores(instances(routine))
    assert 0.5 <= math.sqrt(np.square(found).mean()) <= 1.5
