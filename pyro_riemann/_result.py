"""What every sampler returns, whatever its arrays are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pyro_riemann._arviz import Summary, judge
from pyro_riemann._formulas.novelty import CodeDistances
from pyro_riemann._formulas.unit_samplers import Volume

A = TypeVar("A")


@dataclass(frozen=True, eq=False)
class Result(Generic[A]):
    """Draws on a box and how far to trust them; the faces say what they are of."""

    method: str
    reason: str
    draws: A
    chains: A
    low: A
    high: A
    efficiency: float
    acceptance: float
    volume: Volume
    floor_share: float | None
    evaluations: int
    code_distances: CodeDistances | None = None

    @cached_property
    def table(self) -> Summary:
        """Moments, R-hat (rank-normalised, split) and effective sizes of every coordinate.

        Raises:
            TypeError, ValueError, ImportError: as :func:`pyro_riemann.summary`.
        """
        return judged(self.chains)

    def __str__(self) -> str:
        value, error = self.volume.numbers()
        parts = [
            f"{len(self.draws)} draws by {self.method} ({self.reason})",  # type: ignore[arg-type]  # an array
            f"efficiency {self.efficiency:.2g}, acceptance {self.acceptance:.2g}, {self.evaluations} evaluations",
            f"largest R-hat {self.table['r_hat'].max():.3f}, smallest bulk ESS {self.table['ess_bulk'].min():.0f}",
            f"log volume {value:.4f} +- {error:.4f}",
        ]
        if self.floor_share is not None:
            parts.append(f"{self.floor_share:.1%} of the draws on the metric's floor")
        if self.code_distances is not None:
            parts.append(str(self.code_distances))
        return "\n".join(parts)


def judged(chains: Any) -> Summary:
    """The table of chains ``(chains, length, d)``, which may well be more than they are long."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More chains|Found chain dimension", category=UserWarning)
        return judge(chains, None)
