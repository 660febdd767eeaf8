"""Sums over the chart of a metric of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import RiemannianMetric
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import chart_sum
from pyro_riemann.distributions._over_chart import chart_of, to_host


def log_chart_integral(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, box: tuple[Tensor, Tensor] | None = None
) -> Estimate:
    """Log mass of a radial law about ``loc`` ``(d,)``, relative to flat space, with its error; scalars."""
    corners = None if box is None else (to_host(box[0]), to_host(box[1]))
    found = chart_sum.log_chart_integral(chart_of(metric, loc), to_host(loc), float(variance), corners)
    return Estimate(*(torch.tensor(part, dtype=loc.dtype) for part in (found.value, found.error)))
