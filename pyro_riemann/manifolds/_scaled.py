"""Any metric times a constant."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_positive
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.rewritten import Scaled
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric


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

    def _scale(self, like: Tensor) -> Tensor:
        return self.factor.to(like)

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        return None if law is None else law._replace(curvature=law.curvature / float(self.factor))

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self.factor.to(base.length)
        return Geodesic(base.points, factor.sqrt() * base.length, factor * base.energy, base.converged, base)
