"""What every sampler returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.unit_fit import UnitFit
from pyro_riemann._formulas.unit_samplers import interleaved
from pyro_riemann._formulas.unit_setup import floor_warnings
from pyro_riemann._result import Result
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.sampling._target import Target


@dataclass(frozen=True)
class Unchecked:
    """A log volume whose error is yet to be compared with another route.

    Attributes:
        target: the law.
        own: the log volume and its own error.
        fitted: the proposal, which knows another route.
        weighed: whether the volume is a mean of importance weights.
    """

    target: Target
    own: tuple[float, float]
    fitted: UnitFit
    weighed: bool

    def __call__(self) -> Estimate:
        """The log volume with the larger of its own error and the difference from another route."""
        land, dtype = self.target.land, self.target.low.dtype
        error, _ = self.fitted.checked(land.slopes, *self.own, self.weighed)
        smallest = 4 * land.epsilon * max(1.0, abs(self.own[0]))
        return Estimate(jnp.asarray(self.own[0], dtype), jnp.asarray(max(error, smallest), dtype))


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
        volume: finds the log volume of the box and its error; see :attr:`log_volume`.
        floor_share: share of the draws where the metric is only what keeps it from being singular, the floor of a
            kernel metric or the jitter of a pullback; None for others.
        evaluations: points at which the volume element or its gradient was evaluated for the draws; what it took to set
            the proposal up is not counted.

    Example:
        >>> from pyro_riemann.numpyro.sampling import sample_uniform
        >>> result = sample_uniform(EuclideanMetric(1), 400, low=0.0, high=2.0, key=jax.random.key(0))
        >>> result.method, round(result.efficiency, 2), round(float(jnp.exp(result.log_volume.value)), 4)
        ('table', 0.98, 2.0)
        >>> summary(result).passed(max_r_hat=1.05, min_ess=100)
        True
    """

    volume: Callable[[], Estimate]

    @cached_property
    def log_volume(self) -> Estimate:
        """Log Riemannian volume of the box and its standard error, both scalars.

        The error is found when this is first asked for, by a second route to the volume that no draw depends on and
        that costs more than the draws do.
        """
        found: Estimate = self.volume()
        return found

    @property
    def r_hat(self) -> Array:
        """R-hat of each coordinate, ``(d)``."""
        return jnp.asarray(self.table["r_hat"].to_numpy())

    @property
    def ess_bulk(self) -> Array:
        """Bulk effective sample size of ``chains``, each coordinate, ``(d)``."""
        return jnp.asarray(self.table["ess_bulk"].to_numpy())

    def volume_and_error(self) -> tuple[float, float]:
        """:attr:`log_volume` in numbers."""
        return float(self.log_volume.value), float(self.log_volume.standard_error)


def result(
    target: Target,
    method: str,
    reason: str,
    unit: Array,
    num_samples: int,
    rates: tuple[float, float],
    volume: Callable[[], Estimate],
    evaluations: int,
) -> SamplingResult:
    """The result of a sampler; warns where most draws lie in the void.

    Args:
        target: the law.
        method: of drawing.
        reason: why.
        unit: chains in the unit box, ``(chains, length, d)``.
        num_samples: number of draws.
        rates: efficiency and acceptance.
        volume: finds the log volume.
        evaluations: of the density.
    """
    chains = target.points(unit)
    draws = interleaved(chains[:, :: chains.shape[1] // -(-num_samples // len(chains))], num_samples)
    flat = target.metric.on_floor(draws)
    share = None if flat is None else float(flat.mean())
    for warning in floor_warnings("This sample", share):
        warnings.warn(warning, UserWarning, stacklevel=4)
    low, high = target.low, target.high
    return SamplingResult(method, reason, draws, chains, low, high, *rates, volume, share, evaluations)
