"""Bridge sampling: the volume from draws of the target and draws of a proposal together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._formulas.unit_mixture import weigh
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import Target

_ITERATIONS = 1000


def bridge_log_volume(
    target: Target, draws: Tensor, effective: float, generator: torch.Generator
) -> tuple[float, float]:
    r"""Log of :math:`\int_{box} \sqrt{\det G}\,dz` by the optimal bridge between target and fitted proposal.

    Meng & Wong (1996), *Simulating ratios of normalizing constants via a simple identity*; the error is that of
    Fruhwirth-Schnatter (2004), with the draws counted as ``effective`` many. It takes the draws to have the
    right law.

    Args:
        target: the law.
        draws: of the target, in the unit box, ``(n, d)``.
        effective: their effective number.
        generator: of the draws of the proposal.
    """
    with torch.no_grad():
        proposal = target.on_device(target.proposal().mixture)
        others = proposal.place(RUNTIME, RUNTIME.uniform(generator, (len(draws), draws.shape[1] + 1), draws))
        of_target, of_proposal = (weigh(RUNTIME, target.value, proposal, z) for z in (draws, others))
        share = math.log(effective / (effective + len(draws))), math.log(len(draws) / (effective + len(draws)))

        def terms(log_volume: Tensor) -> tuple[Tensor, Tensor]:
            """Logs of p / (s_1 p + s_2 q) at draws of q and of q / (s_1 p + s_2 q) at draws of p, p normalised."""
            at_proposal, at_target = of_proposal - log_volume, of_target - log_volume
            one = torch.full_like(at_proposal, share[1])
            return (
                at_proposal - torch.logaddexp(at_proposal + share[0], one),
                -torch.logaddexp(at_target + share[0], one),
            )

        def mean(log_terms: Tensor) -> Tensor:
            return log_terms.logsumexp(0) - math.log(len(log_terms))

        log_volume = mean(of_proposal)
        if not bool(torch.isfinite(log_volume)):
            log_volume = of_target.median()
        for _ in range(_ITERATIONS):
            first, second = terms(log_volume)
            step = mean(first) - mean(second)
            log_volume = log_volume + step
            if not abs(float(step)) > 1e-10:
                break
        first, second = terms(log_volume)
        variance = (first - mean(first)).exp().var() / len(draws) + (second - mean(second)).exp().var() / effective
    return float(log_volume), float(variance.sqrt())
