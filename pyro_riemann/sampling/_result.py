"""What every sampler returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._checks import check_tensor
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import Array
from pyro_riemann._formulas.novelty import as_matrix
from pyro_riemann._formulas.unit_samplers import Drawn
from pyro_riemann._result import Result, gathered
from pyro_riemann.metrics import KernelMetric
from pyro_riemann.sampling._target import Target

_ROWS = 1000  # codes decoded at once


@dataclass(frozen=True, eq=False)
class SamplingResult(Result[Tensor]):
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
        volume: the log volume of the box, and what it takes to find its error; see :attr:`log_volume`.
        floor_share: share of the draws where the metric is only what keeps it from being singular, the floor of a
            kernel metric or the jitter of a pullback; None for others.
        evaluations: points at which the volume element or its gradient was evaluated for the draws, and to tune the
            Hamiltonian moves; what it took to set the proposal up is not counted.
        code_distances: for a :class:`~pyro_riemann.KernelMetric`, how far the draws lie from the centroids, how far
            these lie from each other, and the effective number of centroids; the sampler warns of draws that are
            far. None for others.

    Example:
        >>> from pyro_riemann.sampling import sample_uniform
        >>> result = sample_uniform(EuclideanMetric(1), 400, low=0.0, high=2.0, seed=0)
        >>> result.method, round(result.efficiency, 2), round(float(result.log_volume.value.exp()), 4)
        ('table', 0.98, 2.0)
        >>> summary(result).passed(max_r_hat=1.05, min_ess=100)
        True
        >>> result.novelty(result.draws, torch.linspace(0.0, 2.0, 50)[:, None]).ratio  # of copies
        0.0
    """

    @cached_property
    def log_volume(self) -> Estimate:
        """Log Riemannian volume of the box and its standard error, both scalars.

        The error is found when this is first asked for, by a second route to the volume that no draw depends on and
        that costs more than the draws do.

        Raises:
            RuntimeError: if the metric has changed since the draws were made and nobody has asked before.
        """
        value, error = self.low.new_tensor(self.volume.numbers())
        return Estimate(value, error)

    @property
    def r_hat(self) -> Tensor:
        """R-hat of each coordinate, ``(d)``."""
        return torch.from_numpy(self.table["r_hat"].to_numpy(copy=True))

    @property
    def ess_bulk(self) -> Tensor:
        """Bulk effective sample size of ``chains``, each coordinate, ``(d)``."""
        return torch.from_numpy(self.table["ess_bulk"].to_numpy(copy=True))

    @staticmethod
    def _checked(name: str, value: object) -> Tensor:
        return check_tensor(name, value)

    @staticmethod
    def _rows(codes: Tensor, decode: Callable[[Tensor], Tensor] | None) -> Array:
        return rows_of(codes, decode)


def result(target: Target, drawn: Drawn, num_samples: int) -> SamplingResult:
    """The result of a sampler; warns where most draws lie in the void."""
    fields = gathered(target, drawn, num_samples, KernelMetric, lambda array: array.detach().cpu().numpy())
    fields["volume"] = replace(drawn.volume, unchanged=partial(target.probe().meets, target.metric))
    return SamplingResult(**fields)


def rows_of(codes: Tensor, decode: Callable[[Tensor], Tensor] | None) -> Array:
    """What is compared of codes, as a matrix on the host."""
    with torch.no_grad():
        pieces = [piece if decode is None else decode(piece) for piece in codes.split(_ROWS)]
    return np.concatenate([as_matrix(piece.detach().cpu()) for piece in pieces])
