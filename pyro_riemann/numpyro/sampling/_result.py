"""What every sampler returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.unit_samplers import Drawn, interleaved
from pyro_riemann._formulas.unit_setup import floor_warnings
from pyro_riemann._result import Result
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.sampling._target import Target


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


def result(target: Target, drawn: Drawn, num_samples: int) -> SamplingResult:
    """The result of a sampler; warns where most draws lie in the void."""
    chains = target.points(drawn.chains)
    draws = interleaved(chains, num_samples)
    flat = target.on_floor(draws)
    share = None if flat is None else float(flat.mean())
    for warning in floor_warnings("This sample", share):
        warnings.warn(warning, UserWarning, stacklevel=4)
    return SamplingResult(
        drawn.method,
        drawn.reason,
        draws,
        chains,
        target.low,
        target.high,
        drawn.efficiency,
        drawn.acceptance,
        drawn.volume,
        share,
        drawn.evaluations,
    )
