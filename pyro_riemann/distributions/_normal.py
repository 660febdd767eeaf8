"""The normal law that maximises entropy on a manifold."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.distributions._base import RiemannianDistribution, broadcast_loc
from pyro_riemann.distributions._tangent import TangentRule, default_num_nodes, tangent_vectors, within_cut_locus
from pyro_riemann.metrics import RiemannianMetric


class RiemannianNormal(RiemannianDistribution):
    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.positive}
    has_rsample = False
    _settings = ("num_nodes",)

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        metric: RiemannianMetric,
        *,
        num_nodes: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_loc(loc, "scale", scale, metric)
        self.num_nodes = default_num_nodes(metric.dim) if num_nodes is None else num_nodes
        super().__init__(metric, self.loc, validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z, loc = torch.broadcast_tensors(value, self.loc)
        squared = self.metric.squared_dist(loc, z)
        return -0.5 * squared / self.scale**2 - self.log_normalizer().value + 0.5 * self.metric.logdet(value)

    def log_normalizer(self) -> Estimate:
        rule = TangentRule(self.metric.dim, self.num_nodes, self.loc)
        logs = [self._log_weight(nodes) for nodes in rule.nodes]
        flat = 0.5 * self.metric.dim * (2 * math.pi * self.scale**2).log()
        value, error = rule.log_expectation(logs)
        return Estimate(flat + value, error)

    def _log_weight(self, nodes: Tensor) -> Tensor:
        """log 1/V at the exponentials of scaled ``nodes (n, d)``, -inf beyond the cut locus; ``(n, *batch)``."""
        white = nodes.reshape(-1, *(1,) * len(self.batch_shape), self.metric.dim).expand(-1, *self.loc.shape)
        v = tangent_vectors(self.metric, self.loc, self.scale**2, white)
        loc = self.loc.expand_as(v)
        z, log_v = self.metric.expmap_log_van_vleck(loc, v)
        minimal = within_cut_locus(self.metric, loc, z, self.scale * white.norm(dim=-1))
        return torch.where(minimal, -log_v, torch.full_like(log_v, -math.inf))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        with torch.no_grad():
            white = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
            v = tangent_vectors(self.metric, self.loc, self.scale**2, white)
            return self.metric.expmap(self.loc.expand_as(v), v)
