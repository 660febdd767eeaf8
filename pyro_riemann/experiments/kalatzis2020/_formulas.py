"""The authors' formulas, on the same trained model: what each of them does to the table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.vae import VAE, HeatKernelPrior

SEGMENTS = 30
"""Chords of the curves in the authors' code."""


class StraightLineMetric(RiemannianMetric):
    r"""A metric whose "distances" are those of straight lines in the chart, as in the authors' code.

    Six steps of gradient descent leave their curves where they start, on the line; and their squared
    distance is the sum :math:`\sum_i |f_{i+1} - f_i|^2` of squared chords without the factor S of the energy, which is
    the squared length over S.

    Args:
        metric: the metric proper, a pullback.
        divisor: what the squared length is divided by: 1, or :data:`SEGMENTS`.
    """

    def __init__(self, metric: RiemannianMetric, divisor: float = 1.0) -> None:
        super().__init__()
        self.dim, self.solver = metric.dim, metric.solver
        self.base, self.divisor = metric, divisor

    def metric(self, z: Tensor) -> Tensor:
        return self.base.metric(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.base.logdet(z)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        """Energy of the line by the midpoint rule, twice, over the divisor."""
        z, y = torch.broadcast_tensors(z, y)
        times = (torch.arange(SEGMENTS, dtype=z.dtype, device=z.device) + 0.5) / SEGMENTS
        speed = (y - z).expand(SEGMENTS, *z.shape)
        points = z + times.reshape(-1, *(1,) * z.dim()) * (y - z)
        return self.base.inner(points, speed, speed).mean(0) / self.divisor


@torch.no_grad()
def kl_by_formula(vae: VAE, data: Tensor, seed: int, rows: int = 200) -> dict[str, float]:
    """KL term of the R-VAE, nats an image, by one-draw Monte Carlo: step by step from ours to the authors'.

    Posterior and prior are heat kernels around the same centres with the same times in all four; the
    draws are the same too.
    """
    prior = vae.prior
    assert isinstance(prior, HeatKernelPrior)
    line, thirtieth = StraightLineMetric(vae.metric), StraightLineMetric(vae.metric, float(SEGMENTS))
    steps: dict[str, tuple[RiemannianMetric, str]] = {
        "geodesics, density in dz": (vae.metric, "none"),
        "geodesics, eq. 3.3": (vae.metric, "kalatzis2020"),
        "straight lines, eq. 3.3": (line, "kalatzis2020"),
        f"straight lines over {SEGMENTS}, eq. 3.3": (thirtieth, "kalatzis2020"),
    }
    totals = dict.fromkeys(steps, 0.0)
    with seeded(seed, data.device):
        for part in data.split(rows):
            posterior: Any = vae.posterior(part)
            z = posterior.sample()
            for name, (metric, correction) in steps.items():
                law = RiemannianHeatKernel(posterior.loc, posterior.time, metric, correction=correction)
                reference = RiemannianHeatKernel(prior.loc, prior.time, metric, correction=correction)
                totals[name] += float((law.log_prob(z) - reference.log_prob(z)).double().sum())
    return {name: value / len(data) for name, value in totals.items()}
