"""One step of Brownian motion in a chart."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import holds
from pyro_riemann._formulas import walk_steps
from pyro_riemann.geodesics import expmap
from pyro_riemann.manifolds import ProductMetric
from pyro_riemann.metrics import PullbackMetric, RiemannianMetric


def overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and all that it is made of, has a method of its own."""
    if isinstance(metric, ProductMetric):
        return all(overrides(factor, name) for factor in metric.factors)
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or overrides(base, name))


class _Walk(walk_steps.Walk):
    xp, product, pullback = torch, ProductMetric, PullbackMetric
    overrides, expmap = staticmethod(overrides), staticmethod(expmap)

    def factor(self, tensor: Tensor, z: Tensor) -> Tensor:
        factor, info = torch.linalg.cholesky_ex(tensor)
        if not holds(info == 0):
            where = z[info != 0][0].tolist()
            raise ValueError(
                f"The pullback metric is not positive definite at {int((info != 0).sum())} of {info.numel()} points, "
                f"for instance z = {where}. Where this is far away, a path has run off: raise `num_steps` or lower "
                "`time`. Otherwise raise `jitter` of the PullbackMetric, or use float64."
            )
        return factor

    def lower(self, factor: Tensor, vector: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor, vector.unsqueeze(-1), upper=False).squeeze(-1)

    def upper(self, factor: Tensor, vector: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor.mT, vector.unsqueeze(-1), upper=True).squeeze(-1)


step = _Walk().step
