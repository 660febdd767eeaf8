"""Tempered sequential Monte Carlo as a sampler of its own."""

from __future__ import annotations

from typing import Any

from pyro_riemann._formulas.unit_samplers import check_count, tempered
from pyro_riemann._formulas.unit_tempering import NUM_MOVES
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._result import SamplingResult, result
from pyro_riemann.sampling._target import target_of


@full_precision
def tempered_smc(
    metric: RiemannianMetric,
    num_samples: int,
    low: Any = None,
    high: Any = None,
    *,
    num_islands: int = 8,
    num_particles: int | None = None,
    num_moves: int = NUM_MOVES,
    seed: int | None = None,
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
        seed: of all random numbers; by default drawn from the global generator.

    Returns:
        The last populations, thinned to n; ``chains`` holds the islands.

    Raises:
        TypeError, ValueError: naming the argument at fault.
        RuntimeError: if 200 temperatures do not suffice.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.

    Example:
        >>> metric = KernelMetric(torch.randn(5, 3), torch.full((5, 3), 4.0), bandwidth=1.0)
        >>> result = tempered_smc(metric, 400, seed=0)
        >>> result.draws.shape, bool(result.log_volume.standard_error < 0.1)
        (torch.Size([400, 3]), True)
    """
    check_count("num_samples", num_samples)
    target, generator = target_of(metric, low, high, seed)
    drawn = tempered(target, num_samples, num_islands, num_particles, num_moves, generator)
    return result(target, drawn, num_samples)
