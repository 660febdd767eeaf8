"""A tangent Gaussian carried to the manifold by the exponential map."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann.distributions._base import RiemannianDistribution, broadcast_loc
from pyro_riemann.metrics import RiemannianMetric


class RiemannianWrappedNormal(RiemannianDistribution):
    arg_constraints = {"loc": constraints.real_vector, "time": constraints.positive}
    has_rsample = True

    def __init__(
        self, loc: Tensor, time: Tensor | float, metric: RiemannianMetric, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        super().__init__(metric, self.loc, validate_args)

    def _tangent_sample(self, sample_shape: torch.Size) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        factor = self.metric.cholesky(self.loc)
        v = torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
        return self.time.sqrt().unsqueeze(-1) * v

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        v = self._tangent_sample(torch.Size(sample_shape))
        return self.metric.expmap(self.loc.expand_as(v), v)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z, loc = torch.broadcast_tensors(value, self.loc)
        squared = self.metric.squared_dist(loc, z)
        log_prob = -0.5 * self.metric.dim * (2 * math.pi * self.time).log() - 0.5 * squared / self.time
        return log_prob + self.metric.log_van_vleck(loc, z) + 0.5 * self.metric.logdet(value)
