"""The uniform law of a constant metric on a box: that of Lebesgue measure."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann.distributions._box import SamplerReport, VolumeRule
from pyro_riemann.metrics import ConstantMetric


class FlatLaw:
    """Closed form; its two nodes have the mean and the variances of the law.

    Args:
        metric: the constant metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
    """

    doubt = ""

    def __init__(self, metric: ConstantMetric, low: Tensor, high: Tensor) -> None:
        self._low, self._width = low, high - low
        log_volume = 0.5 * metric.logdet(low) + self._width.log().sum()
        nodes = (low + high) / 2 + low.new_tensor([[-1.0], [1.0]]) * self._width / 12**0.5
        self.rule = VolumeRule(log_volume, torch.zeros_like(log_volume), nodes, torch.full_like(nodes[:, 0], 0.5))
        self.report = SamplerReport("exact", 1.0, 1.0, 1, "a constant metric")

    def draw(self, count: int) -> Tensor:
        return self._low + self._width * torch.rand(count, len(self._low), device=self._low.device).to(self._low)
