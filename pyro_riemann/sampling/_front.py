"""The front door: one call, the sampler chosen by how well a proposal fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_riemann._checks import check_one_of
from pyro_riemann._formulas.unit_samplers import check_count, choose, from_table
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._hmc import hmc
from pyro_riemann.sampling._mixture import importance_resampling, independence_metropolis, tempered_smc
from pyro_riemann.sampling._result import SamplingResult, result
from pyro_riemann.sampling._target import target_of

_SAMPLERS: dict[str, Callable[..., SamplingResult]] = {
    "metropolis": independence_metropolis,
    "importance": importance_resampling,
    "tempered": tempered_smc,
    "hmc": hmc,
}


@full_precision
def sample_uniform(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    method: str = "auto",
    seed: int | None = None,
    *,
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
    ``"metropolis"``   :func:`independence_metropolis`             never: it needs more proposals for as many draws
    ``"hmc"``          :func:`hmc`                                 never: it does not mix
    ================== =========================================== =====================================================

    Args:
        metric: the metric.
        num_samples: number of draws n.
        low: lower corner of the box, ``(d)`` or a number. If both corners are missing, :func:`default_box`: the
            centroids of a kernel metric and four standard deviations of its bumps around them.
        high: upper corner.
        method: which sampler.
        seed: of all random numbers; by default drawn from the global generator.
        verbose: print the result's summary, with the reason for the choice.
        **settings: of the sampler chosen, by name.

    Returns:
        Draws and diagnostics; ``str(result)`` says what was chosen and why.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if a sampler does not arrive: a tempered sequence, or the rejection from a table.

    Source: Chadebec & Allassonniere (2022), section 4.4.

    Example:
        >>> metric = KernelMetric(torch.randn(20, 8), torch.full((20, 8), 100.0), bandwidth=1.0)
        >>> result = sample_uniform(metric, 1000, seed=0)
        >>> result.draws.shape, result.method, bool(result.r_hat.max() < 1.02)
        (torch.Size([1000, 8]), 'importance', True)
    """
    check_one_of("method", method, ("auto", "table", *_SAMPLERS))
    check_count("num_samples", num_samples)
    target, generator = target_of(metric, low, high, seed)
    chosen = choose(target) if method == "auto" else method
    if chosen == "table":
        if settings:
            raise TypeError(f'method "table" takes no settings, got {", ".join(settings)}.')
        found = result(target, from_table(target, num_samples, generator), num_samples)
    else:
        seed = generator.initial_seed()
        found = _SAMPLERS[chosen](metric, num_samples, target.low, target.high, seed=seed, **settings)
    if verbose:
        print(found)
    return found
