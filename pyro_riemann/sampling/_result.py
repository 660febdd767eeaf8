"""What every sampler returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.diagnostics import Summary, summary
from pyro_riemann.distributions._box import CHUNK
from pyro_riemann.distributions._box_fit import Fitted
from pyro_riemann.distributions._uniform import WARN_FLOOR, floor_warning
from pyro_riemann.metrics import RiemannianMetric


class Unchecked(NamedTuple):
    """A log volume whose error is yet to be compared with another route."""

    own: Estimate
    fitted: Fitted
    weighed: bool

    def checked(self) -> Estimate:
        """The log volume with the larger of its own error and the difference from another route."""
        return self.fitted.checked(self.own, self.weighed)[0]


@dataclass(frozen=True, eq=False)
class SamplingResult:
    """Draws of a Riemannian uniform, and how far to trust them.

    :func:`pyro_riemann.summary` and :func:`pyro_riemann.to_arviz` take it as it is.

    Attributes:
        method: ``"table"``, ``"metropolis"``, ``"importance"``, ``"tempered"`` or ``"hmc"``.
        reason: why this method, with the figures that decided, in words.
        draws: ``(n, d)``.
        chains: what R-hat and bulk ESS are computed from, ``(chains, length, d)``: the chains of a Markov chain method,
            the independent populations of the others.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        efficiency: effective draws for each proposal (``"table"``, ``"metropolis"``, ``"importance"``), particle
            (``"tempered"``) or state of a chain (``"hmc"``).
        acceptance: acceptance rate of the proposals or of the Hamiltonian moves; 1 where nothing is refused.
        volume: log volume of the box, or what it takes to find its error; see :attr:`log_volume`.
        floor_share: share of the draws where the metric is only what keeps it from being singular, the floor of a
            kernel metric or the jitter of a pullback; None for others.
        evaluations: points at which the volume element or its gradient was evaluated for the draws; what it took to set
            the proposal up is not counted.

    Example:
        >>> from pyro_riemann.sampling import sample_uniform
        >>> result = sample_uniform(EuclideanMetric(1), 400, low=0.0, high=2.0, seed=0)
        >>> result.method, round(result.efficiency, 2), round(float(result.log_volume.value.exp()), 4)
        ('table', 0.98, 2.0)
        >>> summary(result).passed(max_r_hat=1.05, min_ess=100)
        True
    """

    method: str
    reason: str
    draws: Tensor
    chains: Tensor
    low: Tensor
    high: Tensor
    efficiency: float
    acceptance: float
    volume: Estimate | Unchecked
    floor_share: float | None
    evaluations: int

    @cached_property
    def log_volume(self) -> Estimate:
        """Log Riemannian volume of the box and its standard error, both scalars.

        The error is found when this is first asked for, by a second route to the volume that no draw depends on and
        that costs more than the draws do.

        Raises:
            RuntimeError: if the metric has changed since the draws were made and nobody has asked before.
        """
        return self.volume.checked() if isinstance(self.volume, Unchecked) else self.volume

    @cached_property
    def table(self) -> Summary:
        """Moments, R-hat (rank-normalised, split) and effective sizes of every coordinate.

        Raises:
            TypeError, ValueError, ImportError: as :func:`pyro_riemann.summary`.
        """
        return judged(self.chains)

    @property
    def r_hat(self) -> Tensor:
        """R-hat of each coordinate, ``(d)``."""
        return torch.from_numpy(self.table["r_hat"].to_numpy(copy=True))

    @property
    def ess_bulk(self) -> Tensor:
        """Bulk effective sample size of ``chains``, each coordinate, ``(d)``."""
        return torch.from_numpy(self.table["ess_bulk"].to_numpy(copy=True))

    def __str__(self) -> str:
        volume = self.log_volume
        parts = [
            f"{len(self.draws)} draws by {self.method} ({self.reason})",
            f"efficiency {self.efficiency:.2g}, acceptance {self.acceptance:.2g}, {self.evaluations} evaluations",
            f"largest R-hat {float(self.r_hat.max()):.3f}, smallest bulk ESS {float(self.ess_bulk.min()):.0f}",
            f"log volume {float(volume.value):.4f} +- {float(volume.standard_error):.4f}",
        ]
        if self.floor_share is not None:
            parts.append(f"{self.floor_share:.1%} of the draws on the metric's floor")
        return "\n".join(parts)


def judged(chains: Tensor) -> Summary:
    """The table of chains ``(chains, length, d)``, which may well be more than they are long."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More chains", category=UserWarning)
        return summary(chains)


def floor_share(metric: RiemannianMetric, draws: Tensor) -> float | None:
    """Share of ``draws (n, d)`` where a metric is only its floor; warns above one half."""
    with torch.no_grad():
        flat = [metric.on_floor(piece) for piece in draws.split(CHUNK)]
    known = [piece for piece in flat if piece is not None]
    if not known:
        return None
    share = float(torch.cat(known).double().mean())
    if share > WARN_FLOOR:
        warnings.warn(floor_warning("This sample", share), UserWarning, stacklevel=3)
    return share
