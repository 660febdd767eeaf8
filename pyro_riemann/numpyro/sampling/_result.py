"""What every sampler returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.novelty import as_matrix
from pyro_riemann._formulas.unit_samplers import Drawn
from pyro_riemann._result import Result, gathered
from pyro_riemann.numpyro._checks import check_array
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.metrics import KernelMetric
from pyro_riemann.numpyro.sampling._target import Target

_ROWS = 1000  # codes decoded at once


@dataclass(frozen=True, eq=False)
class SamplingResult(Result[Array]):
    """Draws of a Riemannian uniform, and how far to trust them.

    :func:`pyro_riemann.numpyro.summary` and :func:`pyro_riemann.numpyro.to_arviz` take it as it is.

    Attributes:
        method: ``"table"``, ``"importance"`` or ``"tempered"``.
        reason: why this method, with the figures that decided, in words.
        draws: ``(n, d)``.
        chains: what R-hat and bulk ESS are computed from, ``(chains, length, d)``: independent populations.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        efficiency: effective draws for each proposal (``"table"``, ``"importance"``) or particle (``"tempered"``).
        acceptance: acceptance rate of the Hamiltonian moves; 1 where nothing is refused.
        volume: the log volume of the box, and what it takes to find its error; see :attr:`log_volume`.
        floor_share: share of the draws where the metric is only what keeps it from being singular, the floor of a
            kernel metric or the jitter of a pullback; None for others.
        evaluations: points at which the volume element or its gradient was evaluated for the draws, and to tune the
            Hamiltonian moves; what it took to set the proposal up is not counted.
        code_distances: for a :class:`~pyro_riemann.numpyro.KernelMetric`, how far the draws lie from the centroids, how
            far these lie from each other, and the effective number of centroids; the sampler warns of draws that are
            far. None for others.

    Example:
        >>> from pyro_riemann.numpyro.sampling import sample_uniform
        >>> result = sample_uniform(EuclideanMetric(1), 400, low=0.0, high=2.0, key=jax.random.key(0))
        >>> result.method, round(result.efficiency, 2), round(float(jnp.exp(result.log_volume.value)), 4)
        ('table', 0.98, 2.0)
        >>> summary(result).passed(max_r_hat=1.05, min_ess=100)
        True
        >>> result.novelty(result.draws, jnp.linspace(0.0, 2.0, 50)[:, None]).ratio  # of copies
        0.0
    """

    @cached_property
    def log_volume(self) -> Estimate:
        """Log Riemannian volume of the box and its standard error, both scalars.

        The error is found when this is first asked for, by a second route to the volume that no draw depends on and
        that costs more than the draws do.
        """
        value, error = jnp.asarray(self.volume.numbers(), self.low.dtype)
        return Estimate(value, error)

    @property
    def r_hat(self) -> Array:
        """R-hat of each coordinate, ``(d)``."""
        return jnp.asarray(self.table["r_hat"].to_numpy())

    @property
    def ess_bulk(self) -> Array:
        """Bulk effective sample size of ``chains``, each coordinate, ``(d)``."""
        return jnp.asarray(self.table["ess_bulk"].to_numpy())

    @staticmethod
    def _checked(name: str, value: object) -> Array:
        return check_array(name, value)

    @staticmethod
    def _rows(codes: Array, decode: Callable[[Array], Array] | None) -> np.ndarray:
        return rows_of(codes, decode)


def result(target: Target, drawn: Drawn, num_samples: int) -> SamplingResult:
    """The result of a sampler; warns where most draws lie in the void."""
    return SamplingResult(**gathered(target, drawn, num_samples, KernelMetric, np.asarray))


def rows_of(codes: Array, decode: Callable[[Array], Array] | None) -> np.ndarray:
    """What is compared of codes, as a matrix on the host."""
    pieces = [codes[start : start + _ROWS] for start in range(0, len(codes), _ROWS)]
    return np.concatenate([as_matrix(piece if decode is None else decode(piece)) for piece in pieces])
