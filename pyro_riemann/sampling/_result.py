"""What every sampler returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._checks import check_tensor
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import Array
from pyro_riemann._formulas.novelty import CodeDistances, Novelty, as_matrix, code_distances, novelty
from pyro_riemann._formulas.unit_samplers import Drawn, interleaved
from pyro_riemann._formulas.unit_setup import floor_warnings
from pyro_riemann._result import Result
from pyro_riemann.metrics import KernelMetric, RiemannianMetric
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
        evaluations: points at which the volume element or its gradient was evaluated for the draws; what it took to set
            the proposal up is not counted.
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

    def novelty(
        self, train: Tensor, held_out: Tensor, decode: Callable[[Tensor], Tensor] | None = None, neighbors: int = 5
    ) -> Novelty:
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

        Example:
            >>> from pyro_riemann.sampling import sample_uniform
            >>> codes = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
            >>> metric = KernelMetric.from_posterior(codes[:200], torch.full((200, 2), 0.01), 50, regularization=1e-6)
            >>> sample_uniform(metric, 300, seed=0).novelty(codes[:200], codes[200:]).ratio < 0.3  # copies
            True
        """
        parts = (self.draws, check_tensor("train", train), check_tensor("held_out", held_out))
        draws, known, unseen = (rows_of(part, decode) for part in parts)
        return novelty(draws, known, unseen, neighbors)


def result(target: Target, drawn: Drawn, num_samples: int) -> SamplingResult:
    """The result of a sampler; warns where most draws lie in the void."""
    chains = target.points(drawn.chains)
    draws = interleaved(chains, num_samples)
    flat = target.on_floor(draws)
    share = None if flat is None else float(flat.double().mean())
    known = _code_distances(target.metric, draws)
    warned = floor_warnings("This sample", share)
    if known is not None and not warned:
        warned = known.warning()
    for warning in warned:
        warnings.warn(warning, UserWarning, stacklevel=4)
    volume = replace(drawn.volume, unchanged=partial(target.probe().meets, target.metric))
    return SamplingResult(
        drawn.method,
        drawn.reason,
        draws,
        chains,
        target.low,
        target.high,
        drawn.efficiency,
        drawn.acceptance,
        volume,
        share,
        drawn.evaluations,
        known,
    )


def _code_distances(metric: RiemannianMetric, draws: Tensor) -> CodeDistances | None:
    """Of a kernel metric."""
    if not isinstance(metric, KernelMetric):
        return None
    parts = (draws, metric.centroids, metric.precisions)
    return code_distances(*(part.detach().cpu().numpy() for part in parts))


def rows_of(codes: Tensor, decode: Callable[[Tensor], Tensor] | None) -> Array:
    """What is compared of codes, as a matrix on the host."""
    with torch.no_grad():
        pieces = [piece if decode is None else decode(piece) for piece in codes.split(_ROWS)]
    return np.concatenate([as_matrix(piece.detach().cpu()) for piece in pieces])
