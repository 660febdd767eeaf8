"""Integrals of radial densities by sums over a plane chart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._formulas.chart_draws import Verdict
from pyro_riemann._formulas.chart_sum import Chart, Vector, box_of_rays, summed
from pyro_riemann._memo import remember
from pyro_riemann.metrics import RiemannianMetric


def chart_of(metric: RiemannianMetric, like: Tensor) -> Chart:
    """The metric at points of the dtype and device of ``like``."""
    return Chart(metric, lambda z: torch.from_numpy(z).to(like), to_host)


def to_host(values: Tensor) -> Vector:
    """Values in doubles of NumPy."""
    return np.asarray(values.detach().double().cpu())


@torch.no_grad()
def summed_mass(metric: RiemannianMetric, loc: Tensor, variance: Tensor, points: Tensor, weights: Tensor) -> Verdict:
    r"""Log of :math:`(2 \pi t)^{-1} \int e^{-\ell^2(\mu, z) / 2t}\,dM` over a plane.

    Args:
        metric: any metric of dimension 2.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
        points: nodes of rays from the centre, ``(n, d)``, which say how large a box must be.
        weights: their shares of the mass, ``(n,)``.
    """

    def compute() -> tuple[Verdict, Tensor]:
        chart = chart_of(metric, loc)
        box = box_of_rays(chart, to_host(points), to_host(weights))
        return summed(chart, to_host(loc), float(variance), *box), points[weights > 0]

    return remember(metric, "chart", (), (loc, variance), compute)
