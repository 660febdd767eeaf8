"""Settings of the geodesic solver for a purpose."""

from __future__ import annotations

from typing import TypedDict


class Rough(TypedDict):
    """Settings of a solver that is meant to be rough."""

    num_knots: int
    num_segments: int
    max_iterations: int
    max_polish: int
    tolerance: float
    constant_hessian: bool
    on_failure: str


def for_training(dim: int) -> Rough:
    """Two dimensions have walls and need iterations; with more, one preconditioned step from the straight line does.

    Args:
        dim: dimension of the metric.
    """
    few = dim <= 3
    return {
        "num_knots": 6 if few else 1,
        "num_segments": 18 if few else 6,
        "max_iterations": 6 if few else 1,
        "max_polish": 0,
        "tolerance": 1e-3,
        "constant_hessian": not few,
        "on_failure": "ignore",
    }
