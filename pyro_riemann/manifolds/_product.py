"""Products of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_point
from pyro_riemann._formulas.product import Product
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric


class ProductMetric(Product[Tensor], RiemannianMetric):
    r"""The product of Riemannian manifolds: :math:`G(z) = \mathrm{diag}(G_1(z_1), \dots, G_m(z_m))`.

    The chart is the factors' charts side by side, :math:`z = (z_1, \dots, z_m)`. Squared distances, curvatures and
    log densities are sums over the factors, and geodesics run in each of them at constant speed, so that what is a
    closed form in all factors is one here. Normalising constants and draws come from those of the factors.

    Args:
        metrics: the factors, at least one. The same metric may come twice.

    Raises:
        TypeError: if one of them is no metric.
        ValueError: if there is none.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 2; Gu, Sala, Gunel & Re (2019), *Learning
    mixed-curvature representations in product spaces*.

    Example:
        >>> metric = ProductMetric([Sphere(2), EuclideanMetric(1)])
        >>> z, y = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
        >>> round(metric.squared_dist(z, y).item(), 4)  # (pi / 2)^2 + 4
        6.4674
        >>> [part.shape[-1] for part in metric.split(z)]
        [2, 1]
    """

    def __init__(self, metrics: Sequence[RiemannianMetric]) -> None:
        super().__init__()
        metrics = list(metrics)
        for metric in metrics:
            if not isinstance(metric, RiemannianMetric):
                raise TypeError(f"`metrics` must be RiemannianMetrics, got {type(metric).__name__}.")
        if not metrics:
            raise ValueError("`metrics` must hold at least one metric.")
        self.metrics = nn.ModuleList(metrics)
        self.dim = sum(metric.dim for metric in metrics)

    @property
    def factors(self) -> tuple[RiemannianMetric, ...]:
        """The factors."""
        return tuple(metric for metric in self.metrics if isinstance(metric, RiemannianMetric))

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """Points or vectors as those of the factors: of dimension k, ``(*batch, k)``.

        Args:
            z: points or vectors, ``(*batch, d)``.
        """
        return check_point("z", z, self.dim, self).split([metric.dim for metric in self.factors], dim=-1)

    def _pad(self, block: Tensor, before: int, after: int) -> Tensor:
        return nn.functional.pad(block, (before, after))

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        curves = [metric.geodesic(x, a, init=init, **settings) for metric, x, a in self._parts(z, y)]

        def curve(times: Tensor) -> Tensor:
            return torch.cat([part(times) for part in curves], dim=-1)

        energy = torch.stack([part.energy for part in curves]).sum(0)
        length = torch.stack([part.length for part in curves]).norm(dim=0)
        converged = torch.stack([part.converged for part in curves]).all(0)
        count = max(len(part.points) for part in curves)
        times = torch.linspace(0, 1, count, dtype=z.dtype, device=z.device)
        return Geodesic(curve(times), length, energy, converged, curve)
