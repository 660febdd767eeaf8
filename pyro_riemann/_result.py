"""What every sampler returns, whatever its arrays are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pyro_riemann._arviz import Summary, judge
from pyro_riemann._formulas import Array
from pyro_riemann._formulas.novelty import CodeDistances, Novelty, code_distances, novelty
from pyro_riemann._formulas.unit_samplers import Drawn, Volume, interleaved
from pyro_riemann._formulas.unit_setup import floor_warnings
from pyro_riemann._warn import warn

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

    def novelty(self, train: A, held_out: A, decode: Callable[[A], A] | None = None, neighbors: int = 5) -> Novelty:
        """Whether the draws are copies of training data, and which share of held-out data they cover.

        Compare like with like: codes with codes, images of codes with images of codes. Held-out codes that are draws of
        their posteriors, not their means, give the noise that draws have, too.

        Args:
            train: codes of the training data, ``(N, d)``.
            held_out: codes of held-out data, ``(m, d)``.
            decode: maps codes to what is compared, ``(n, ...)``, an image or features of one; default: codes as they
                are. It gets 1,000 at a time.
            neighbors: a held-out item is covered by draws nearer than its neighbour of this rank among held-out items.

        Raises:
            TypeError, ValueError: if these are no finite arrays of one width, or held-out items are training items.

        Source: Meehan, Chaudhuri & Dasgupta (2020), *A non-parametric test to detect data-copying in generative
        models*; coverage: Naeem et al. (2020), *Reliable fidelity and diversity metrics for generative models*,
        section 3.
        """
        parts = (self.draws, self._checked("train", train), self._checked("held_out", held_out))
        draws, known, unseen = (self._rows(part, decode) for part in parts)
        return novelty(draws, known, unseen, neighbors)

    @staticmethod
    def _checked(name: str, value: Any) -> A:
        """The value; raise unless it is an array of real numbers."""
        raise NotImplementedError

    @staticmethod
    def _rows(codes: Any, decode: Callable[[Any], Any] | None) -> Array:
        """What is compared of codes, as a matrix on the host."""
        raise NotImplementedError

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


def gathered(
    target: Any, drawn: Drawn, num_samples: int, kernel_metric: type[Any], numbers: Callable[[Any], Array]
) -> dict[str, Any]:
    """The fields of the result of a sampler; warns where most draws lie in the void.

    Args:
        target: the law that was sampled.
        drawn: what the sampler has done.
        num_samples: how many draws are asked for.
        kernel_metric: the class of kernel metrics.
        numbers: copies an array to the host.
    """
    chains = target.points(drawn.chains)
    draws = interleaved(chains, num_samples)
    flat = target.on_floor(draws)
    share = None if flat is None else float(numbers(flat).mean())
    known = None
    if isinstance(metric := target.metric, kernel_metric):
        known = code_distances(*map(numbers, (draws, metric.centroids, metric.precisions)))
    warned = floor_warnings("This sample", share)
    if known is not None and not warned:
        warned = known.warning()
    for warning in warned:
        warn(warning)
    return {
        **drawn._asdict(),
        "chains": chains,
        "draws": draws,
        "low": target.low,
        "high": target.high,
        "floor_share": share,
        "code_distances": known,
    }
