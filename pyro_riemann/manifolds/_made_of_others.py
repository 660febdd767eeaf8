"""Products of metrics, and any metric times a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_point, check_positive
from pyro_riemann._formulas.product import Product
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.rewritten import Scaled
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


class ScaledMetric(Scaled[Tensor], RiemannianMetric):
    r"""The metric of ``base`` times a positive number, :math:`G(z) = c\, G_{base}(z)`.

    Lengths grow by :math:`\sqrt c`, curvatures fall by c, geodesics stay what they are; Brownian motion up to time t is
    that of ``base`` up to t / c. Everything goes to ``base``, and what is a closed form there is one here.

    Args:
        base: any metric.
        factor: c, a positive number or tensor of shape ``()``. A parameter is learned with the metric: the curvature of
            a sphere, for instance.

    Raises:
        TypeError: if ``base`` is no metric.
        ValueError: if ``factor`` is not one positive and finite number.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3; Skopek, Ganea & Becigneul (2020),
    *Mixed-curvature variational autoencoders*, for spaces whose curvature is learned.

    Example:
        >>> metric = ScaledMetric(Sphere(2), 4.0)  # the sphere of radius 2
        >>> round(metric.dist(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item(), 4)  # a quarter turn
        3.1416
    """

    base: RiemannianMetric
    factor: Tensor

    def __init__(self, base: RiemannianMetric, factor: float | Tensor) -> None:
        super().__init__()
        if not isinstance(base, RiemannianMetric):
            raise TypeError(f"`base` must be a RiemannianMetric, got {type(base).__name__}.")
        self.dim, self.base = base.dim, base
        if not isinstance(factor, Tensor):
            factor = torch.tensor(factor, dtype=torch.float64, device="cpu")  # float64 whatever the default
        if factor.dim() != 0:
            raise ValueError(f"`factor` must be one number, got shape {tuple(factor.shape)}.")
        check_positive("factor", factor)
        if isinstance(factor, nn.Parameter):
            self.factor = factor
        else:
            self.register_buffer("factor", factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor.item():g}"

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        return None if law is None else law._replace(curvature=law.curvature / float(self.factor))

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self._scale(base.length)
        return Geodesic(base.points, factor.sqrt() * base.length, factor * base.energy, base.converged, base)
