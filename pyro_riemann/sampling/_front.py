"""The front door: one call, the sampler chosen by how well a proposal fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from pyro_riemann._checks import check_one_of
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.unit_laws import CellLaw
from pyro_riemann._formulas.unit_samplers import interleaved
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._hmc import hmc
from pyro_riemann.sampling._law import accepted
from pyro_riemann.sampling._mixture import importance_resampling, independence_metropolis
from pyro_riemann.sampling._result import SamplingResult, result
from pyro_riemann.sampling._target import Target, check_count, target_of
from pyro_riemann.sampling._tempered import tempered_smc

_SAMPLERS: dict[str, Callable[..., SamplingResult]] = {
    "metropolis": independence_metropolis,
    "importance": importance_resampling,
    "tempered": tempered_smc,
    "hmc": hmc,
}
_CHAINS = 8


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
    chosen = _choose(target) if method == "auto" else method
    if chosen == "table":
        if settings:
            raise TypeError(f'method "table" takes no settings, got {", ".join(settings)}.')
        found = _from_table(target, num_samples, generator)
    else:
        seed = generator.initial_seed()
        found = _SAMPLERS[chosen](metric, num_samples, target.low, target.high, seed=seed, **settings)
    if verbose:
        print(found)
    return found


def _choose(target: Target) -> str:
    if target.table() is not None:
        return "table"
    return "importance" if target.proposal().fits else "tempered"


def _from_table(target: Target, num_samples: int, generator: torch.Generator) -> SamplingResult:
    if target.metric.dim > 2:
        raise ValueError(f'method "table" needs d <= 2, the metric has dimension {target.metric.dim}.')
    setup = target.table()
    if setup is None or not isinstance(setup.law, CellLaw):
        raise ValueError('method "table" does not resolve this metric: it varies within the smallest cells.')
    law, length = setup.law, -(-num_samples // _CHAINS)
    with torch.no_grad():
        unit = accepted(target, law, _CHAINS * length, generator)
    chains = target.points(unit).view(_CHAINS, length, -1)
    efficiency = float(law.efficiency)
    reason = f"dimension {target.metric.dim}: rejection from a table of cells, {efficiency:.2g} accepted"
    volume = partial(Estimate, law.rule.log_volume.to(target.low), law.rule.standard_error.to(target.low))
    draws, evaluations = interleaved(chains, num_samples), round(len(unit) / efficiency)
    return result(target, "table", reason, chains, draws, (efficiency, 1.0), volume, evaluations)
