"""The samplers: each by itself, and one call that chooses by how well a proposal fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array

from pyro_riemann._formulas.unit_samplers import check_count, choose, from_table, importance, tempered
from pyro_riemann._formulas.unit_tempering import NUM_MOVES
from pyro_riemann.numpyro._checks import check_key, check_one_of
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._door import target_of
from pyro_riemann.numpyro.sampling._result import SamplingResult, result


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
    chosen = choose(target) if method == "auto" else method
    if chosen == "table":
        if settings:
            raise TypeError(f'method "table" takes no settings, got {", ".join(settings)}.')
        found = result(target, from_table(target, num_samples, check_key(key)), num_samples)
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
    target = target_of(metric, low, high)
    drawn = importance(target, num_samples, num_populations, num_proposals, num_moves, check_key(key))
    return result(target, drawn, num_samples)


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
    target = target_of(metric, low, high)
    drawn = tempered(target, num_samples, num_islands, num_particles, num_moves, check_key(key))
    return result(target, drawn, num_samples)


_SAMPLERS: dict[str, Callable[..., SamplingResult]] = {"importance": importance_resampling, "tempered": tempered_smc}
