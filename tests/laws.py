"""Every law of the package, built from a centre, a variance and a metric: for tests of what holds for any law."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.distributions import Distribution
from torch import Tensor

from pyro_riemann import (
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    VampPrior,
)

Law = Callable[[Tensor, Tensor, RiemannianMetric], Distribution]
LOW, HIGH = torch.tensor([-0.9, -1.1], dtype=torch.float64), torch.tensor([1.2, 0.8], dtype=torch.float64)

# By the name of the class; `tests/test_laws.py` fails on a class of `distributions.__all__` that is not here.
LAWS: dict[str, Law] = {
    "RiemannianHeatKernel": lambda loc, time, metric: RiemannianHeatKernel(loc, time, metric, normalize=True),
    "RiemannianWrappedNormal": lambda loc, time, metric: RiemannianWrappedNormal(loc, time, metric),
    "RiemannianNormal": lambda loc, time, metric: RiemannianNormal(loc, time.sqrt(), metric),
    "RiemannianUniform": lambda loc, time, metric: RiemannianUniform(metric, LOW, HIGH),
    "VampPrior": lambda loc, time, metric: VampPrior(
        RiemannianWrappedNormal(torch.stack([loc, loc + 0.2]), time.expand(2), metric)
    ),
}
ON_THE_CHART = ("RiemannianHeatKernel", "RiemannianWrappedNormal", "RiemannianNormal", "VampPrior")
"""Those that are spread over all of the chart, about a centre."""


class HalfVolume(RiemannianNormal):
    """Wrong: half of the volume element is forgotten."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 0.25 * self.metric.logdet(value)


class FlatConstant(RiemannianNormal):
    """Wrong: the constant is that of a Gaussian."""

    def log_prob(self, value: Tensor) -> Tensor:
        dim = self.metric.dim
        flat = 0.5 * dim * torch.log(2 * torch.pi * self.scale**2)
        return super().log_prob(value) + self.log_normalizer().value - flat


class TangentDraws(RiemannianNormal):
    """Wrong: draws are those of the tangent Gaussian, whose density is another one."""

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return RiemannianWrappedNormal(self.loc, self.scale**2, self.metric).sample(torch.Size(sample_shape))


WRONG: dict[str, Law] = {
    kind.__name__: lambda loc, time, metric, kind=kind: kind(loc, time.sqrt(), metric)  # type: ignore[misc]
    for kind in (HalfVolume, FlatConstant, TangentDraws)
}
"""What a table of laws must refuse."""
