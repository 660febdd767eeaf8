"""Settings of the geodesic solver, and those for a purpose."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypedDict, TypeVar

from pyro_riemann._formulas import check_one_of

M = TypeVar("M", bound=Any)  # metrics
A = TypeVar("A")  # arrays

_LARGEST = 512  # unknowns of a curve in the finest attempt, if that is not the first


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
        "num_segments": 18 if few else 4,
        "max_iterations": 6 if few else 1,
        "max_polish": 0,
        "tolerance": 1e-3,
        "constant_hessian": not few,
        "on_failure": "ignore",
    }


def factors(unknowns: int) -> list[int]:
    """How much finer the further attempts are, for curves with so many unknowns."""
    return [factor for factor in (2, 4, 8) if factor == 2 or factor * unknowns <= _LARGEST]


@dataclasses.dataclass(frozen=True)
class SolverSettings(Generic[M, A]):
    """Fields of the solver of either face, which says what they mean, and what it does with them."""

    num_knots: int = 8
    num_segments: int = 32
    max_iterations: int = 50
    max_polish: int = 20
    tolerance: float = 1e-12
    richardson: bool = True
    init: str = "line"
    constant_hessian: bool = False
    graph_resolution: int = 96
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        check_one_of("init", self.init, ("line", "graph"))
        check_one_of("on_failure", self.on_failure, ("warn", "raise", "ignore"))
        if self.num_knots < 1 or self.num_segments < 2 * self.num_knots or self.num_segments % 2:
            raise ValueError(
                "`num_knots` must be at least 1 and `num_segments` even and at least twice that, got "
                f"{self.num_knots} and {self.num_segments}."
            )
        if self.max_iterations < 0 or self.max_polish < 0 or not self.tolerance > 0:
            raise ValueError("`max_iterations` and `max_polish` must be non-negative and `tolerance` positive.")

    def energy(self, metric: M, guide: A | None = None) -> Any:
        """The discrete energy that is minimised.

        Args:
            metric: any metric.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        return metric.energy(self, guide)

    def solve(self, metric: M, z: A, y: A) -> Any:
        """Shortest curves from ``z`` to ``y``, batches broadcast.

        Args:
            metric: any metric.
            z: starts, ``(*batch, d)``.
            y: ends, ``(*batch, d)``.

        Raises:
            TypeError: if a point is not a floating array.
            ValueError: if points have the wrong shape, are not finite, or do not broadcast.
        """
        raise NotImplementedError

    def logmap(self, metric: M, z: A, y: A) -> Any:
        """Initial velocity ``(*batch, d)``, from the momentum ``-d(l^2 / 2) / dz`` of the discrete energy.

        Args:
            metric: any metric.
            z: starts, ``(*batch, d)``.
            y: ends, ``(*batch, d)``.

        Raises:
            TypeError, ValueError: as :meth:`solve`.
        """
        raise NotImplementedError
