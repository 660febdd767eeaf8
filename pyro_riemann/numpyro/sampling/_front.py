"""The samplers: each by itself, and one call that chooses by how well a proposal fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array

from pyro_riemann._formulas.unit_laws import CellLaw, efficiency
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean
from pyro_riemann._formulas.unit_samplers import Weighed, proposals_needed, resampled, spread
from pyro_riemann._formulas.unit_tempering import NUM_MOVES, TemperedState, temper
from pyro_riemann.numpyro._checks import check_key, check_one_of
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._law import draw_unit
from pyro_riemann.numpyro.sampling._result import SamplingResult, Unchecked, result
from pyro_riemann.numpyro.sampling._runtime import RUNTIME
from pyro_riemann.numpyro.sampling._target import Target, check_count, log_density, slopes, target_of

_CHAINS = 8


def sample_uniform(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    method: str = "auto",
    *,
    key: Array,
    verbose: bool = False,
    **settings: Any,
) -> SamplingResult:
    r"""Draws of the Riemannian uniform, density proportional to :math:`\sqrt{\det G}` on a box of the chart.

    ================== =========================================== =====================================================
    ``method``         how                                         ``"auto"`` takes it
    ================== =========================================== =====================================================
    ``"table"``        rejection from a step function, d <= 2      if d <= 2 and a table resolves the metric
    ``"importance"``   :func:`importance_resampling`               if at least 5 % of the proposals are effective
    ``"tempered"``     :func:`tempered_smc`                        otherwise
    ================== =========================================== =====================================================

    Args:
        metric: the metric, its arrays known: samplers are called outside of ``jit``, and compile what they do.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number. If both corners are missing, :func:`default_box`: the
            centroids of a kernel metric and four standard deviations of its bumps around them.
        high: upper corner.
        method: which sampler.
        key: of all random numbers.
        verbose: print the result's summary, with the reason for the choice.
        **settings: of the sampler chosen, by name.

    Returns:
        Draws and diagnostics; ``str(result)`` says what was chosen and why.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if a tempered sequence does not arrive.

    Source: Chadebec & Allassonniere (2022), section 4.4.

    Example:
        >>> centroids = jax.random.normal(jax.random.key(0), (20, 8))
        >>> metric = KernelMetric(centroids, jnp.full((20, 8), 100.0), bandwidth=1.0)
        >>> result = sample_uniform(metric, 1000, key=jax.random.key(1))
        >>> result.draws.shape, result.method, bool(result.r_hat.max() < 1.02)
        ((1000, 8), 'importance', True)
    """
    check_one_of("method", method, ("auto", "table", *_SAMPLERS))
    check_count("num_samples", num_samples)
    target = target_of(metric, low, high)
    chosen = _choose(target) if method == "auto" else method
    if chosen == "table":
        if settings:
            raise TypeError(f'method "table" takes no settings, got {", ".join(settings)}.')
        found = _from_table(target, num_samples, check_key(key))
    else:
        found = _SAMPLERS[chosen](metric, num_samples, target.low, target.high, key=key, **settings)
    if verbose:
        print(found)
    return found


def importance_resampling(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_populations: int = 8,
    num_proposals: int | None = None,
    num_moves: int = 0,
    key: Array,
) -> SamplingResult:
    """Draws of the fitted mixture proposal, resampled by their importance weights.

    Independent populations are resampled systematically, each for itself. Copies of one proposal stay next to each
    other, so that the bulk ESS of ``chains`` counts them as what they are.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_populations: number of independent populations.
        num_proposals: draws of the proposal, all populations together; by default 2 n / efficiency.
        num_moves: Hamiltonian moves of every draw at the end; they spread copies of one proposal.
        key: of all random numbers.

    Returns:
        The draws; ``log_volume`` is the importance estimate.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if no draw of the proposal lies in the box.

    Source: Rubin (1988), *Using the SIR algorithm to simulate posterior distributions*; Douc, Cappe & Moulines (2005),
    *Comparison of resampling schemes for particle filtering*.

    Example:
        >>> centroids = jax.random.normal(jax.random.key(0), (5, 3))
        >>> metric = KernelMetric(centroids, jnp.full((5, 3), 4.0), bandwidth=1.0)
        >>> importance_resampling(metric, 400, key=jax.random.key(1)).draws.shape
        (400, 3)
    """
    check_count("num_samples", num_samples)
    check_count("num_populations", num_populations)
    check_count("num_moves", num_moves, 0)
    target = target_of(metric, low, high)
    fitted, length = target.proposal(), -(-num_samples // num_populations)
    if num_proposals is None:
        each = proposals_needed(length, fitted.efficiency)
    else:
        each = -(-check_count("num_proposals", num_proposals, num_populations) // num_populations)
    shape = num_populations, each, length
    box, proposal = (metric, target.low, target.high), target.on_device(fitted.mixture)
    drawn, extra = _resampled(*box, proposal, check_key(key), shape, num_moves)
    if not bool((drawn.log_weight > -float("inf")).any(1).all()):
        raise RuntimeError(
            f"No draw of the proposal lies in the box in one of {num_populations} populations of {each}: raise "
            "`num_proposals`, or widen the box."
        )
    weights = drawn.log_weight.ravel()
    value, error = (float(part) for part in log_mean(RUNTIME, weights))
    rates = float(effective_share(RUNTIME, weights)), float(drawn.acceptance)
    reason, volume = f"{fitted.reason}; {len(weights)} proposals", Unchecked(target, (value, error), fitted, True)
    return result(target, "importance", reason, drawn.chains, num_samples, rates, volume, len(weights) + int(extra))


@partial(jax.jit, static_argnames=("shape", "num_moves"))
def _resampled(
    metric: RiemannianMetric,
    low: Array,
    high: Array,
    proposal: UnitMixture,
    key: Array,
    shape: tuple[int, int, int],
    num_moves: int,
) -> tuple[Weighed, int]:
    drawn = resampled(RUNTIME, partial(log_density, metric, low, high), proposal, shape, key)
    return spread(RUNTIME, partial(slopes, metric, low, high), drawn, proposal.scale(RUNTIME), num_moves, key)


def tempered_smc(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_islands: int = 8,
    num_particles: int | None = None,
    num_moves: int = NUM_MOVES,
    key: Array,
) -> SamplingResult:
    r"""Populations led from the fitted proposal q to the uniform law p along :math:`q^{1-b} p^b`, b rising to 1.

    For metrics that no mixture fits. Each rise of b is as large as 70 % of the particles allow; populations are
    resampled systematically and moved on by Hamiltonian Monte Carlo in the box.

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number; :func:`default_box` if both are missing.
        high: upper corner.
        num_islands: independent populations, whose spread is the error of the volume.
        num_particles: particles in each; by default as many as n needs, and at least 256.
        num_moves: Hamiltonian moves at each temperature.
        key: of all random numbers.

    Returns:
        The last populations, thinned to n; ``chains`` holds the islands.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if 200 temperatures do not suffice.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.

    Example:
        >>> centroids = jax.random.normal(jax.random.key(0), (5, 3))
        >>> metric = KernelMetric(centroids, jnp.full((5, 3), 4.0), bandwidth=1.0)
        >>> result = tempered_smc(metric, 400, key=jax.random.key(1))
        >>> result.draws.shape, bool(result.log_volume.standard_error < 0.1)
        ((400, 3), True)
    """
    check_count("num_samples", num_samples)
    check_count("num_islands", num_islands, 2)
    check_count("num_moves", num_moves)
    target = target_of(metric, low, high)
    fitted, length = target.proposal(), -(-num_samples // num_islands)
    if num_particles is None:
        num_particles = max(256, length)
    elif check_count("num_particles", num_particles) < length:
        raise ValueError(
            f"`num_particles` is {num_particles} on {num_islands} islands, too few for {num_samples} draws: at least "
            f"{length} are needed."
        )
    box, proposal = (metric, target.low, target.high), target.on_device(fitted.mixture)
    end = _tempered(*box, proposal, check_key(key), num_islands, num_particles, num_moves)
    if end.temperature < 1:
        raise RuntimeError(
            f"The tempered sequence reached only {float(end.temperature):.2e} of the way from the proposal to the "
            "uniform law in 200 stages: `metric` varies too fast in the box. Use a smaller box or a smoother metric."
        )
    value, error = log_mean(RUNTIME, end.log_mass)
    volume = Unchecked(target, (float(value), float(error)), fitted, False)
    rates, reason = (float(efficiency(end, error)), float(end.acceptance)), f"{fitted.reason}; {int(end.stage)} "
    evaluations = int(end.evaluations)
    return result(target, "tempered", reason + "temperatures", end.particles, num_samples, rates, volume, evaluations)


@partial(jax.jit, static_argnames=("islands", "particles", "num_moves"))
def _tempered(
    metric: RiemannianMetric,
    low: Array,
    high: Array,
    proposal: UnitMixture,
    key: Array,
    islands: int,
    particles: int,
    num_moves: int,
) -> TemperedState:
    return temper(RUNTIME, partial(slopes, metric, low, high), proposal, islands, particles, key, num_moves)


_SAMPLERS: dict[str, Callable[..., SamplingResult]] = {"importance": importance_resampling, "tempered": tempered_smc}


def _choose(target: Target) -> str:
    if target.table() is not None:
        return "table"
    return "importance" if target.proposal().fits else "tempered"


def _from_table(target: Target, num_samples: int, key: Array) -> SamplingResult:
    if target.metric.dim > 2:
        raise ValueError(f'method "table" needs d <= 2, the metric has dimension {target.metric.dim}.')
    setup = target.table()
    if setup is None or not isinstance(setup.law, CellLaw):
        raise ValueError('method "table" does not resolve this metric: it varies within the smallest cells.')
    law, length = setup.law, -(-num_samples // _CHAINS)
    unit = draw_unit(law, target.metric, target.low, target.high, key, _CHAINS * length)
    rate = float(law.efficiency)
    reason = f"dimension {target.metric.dim}: rejection from a table of cells, {rate:.2g} accepted"
    volume, chains = partial(Estimate, *law.rule[:2]), unit.reshape(_CHAINS, length, -1)
    return result(target, "table", reason, chains, num_samples, (rate, 1.0), volume, round(len(unit) / rate))
