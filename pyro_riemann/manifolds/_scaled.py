"""Any metric times a constant."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_positive
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.metrics import RiemannianMetric


class ScaledMetric(RiemannianMetric):
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

    @property
    def solver(self) -> GeodesicSolver:
        """Settings of the boundary-value solver: those of ``base``, where the solving is done."""
        return self.base.solver

    @solver.setter
    def solver(self, value: GeodesicSolver) -> None:
        self.base.solver = value

    def _log_volume(self, like: Tensor) -> Tensor:
        """What the logarithm of the volume element gains."""
        return 0.5 * self.dim * self.factor.to(like).log()

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: Tensor) -> Tensor:
        return self.factor.to(z) * self.base.metric(z)

    def cholesky(self, z: Tensor) -> Tensor:
        return self.factor.to(z).sqrt() * self.base.cholesky(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.base.logdet(z) + 2 * self._log_volume(z)

    def logdet_gradient(self, z: Tensor) -> Tensor:
        return self.base.logdet_gradient(z)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.factor.to(z) * self.base.inner(z, u, v)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        metric, slope = self.base.metric_jacobian(z)
        return self.factor.to(z) * metric, self.factor.to(z) * slope

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        metric, slope, along = self.base.metric_derivatives(z, v)
        return self.factor.to(z) * metric, self.factor.to(z) * slope, self.factor.to(z) * along

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        return self.factor.to(z) * self.base.speed_hessian(z, v)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return self.base.christoffel(z, v)

    def drift(self, z: Tensor) -> Tensor:
        return self.base.drift(z) / self.factor.to(z)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        return self.base.scalar_curvature(z) / self.factor.to(z)

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        return None if law is None else law._replace(curvature=law.curvature / float(self.factor))

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether ``base`` is symmetric."""
        return self.base.is_symmetric

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether ``base`` is."""
        return self.base.is_uniquely_geodesic

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        radius = self.base.injectivity_radius(z)
        return None if radius is None else self.factor.to(z).sqrt() * radius

    def ambient_hint(self, shape: torch.Size) -> str:
        return self.base.ambient_hint(shape)

    @property
    def landmarks(self) -> Tensor | None:  # type: ignore[override]  # others hold it
        """The landmarks of ``base``, ``(k, d)``."""
        return self.base.landmarks

    def peaks(self) -> Peaks | None:
        return self.base.peaks()

    def on_floor(self, z: Tensor) -> Tensor | None:
        return self.base.on_floor(z)

    def covers(self, z: Tensor) -> Tensor | None:
        return self.base.covers(z)

    def coverage(self, codes: Tensor) -> Tensor | float | None:
        return self.base.coverage(codes)

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return self.base.expmap(z, v)

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.expmap_log_van_vleck(z, v)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return self.base.logmap(z, y)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.factor.to(z) * self.base.squared_dist(z, y)

    def dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.factor.to(z).sqrt() * self.base.dist(z, y)

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        return self.base.log_van_vleck(z, y)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self.factor.to(base.length)
        return Geodesic(base.points, factor.sqrt() * base.length, factor * base.energy, base.converged, base)

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        value = self.base.log_folded_density(z, y, time / self.factor.to(z))
        return None if value is None else value - self._log_volume(z)

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        value = self.base.log_folded_normal(z, y, factor)
        return None if value is None else value - self._log_volume(z)

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Log heat kernel of ``base`` at time t / c, ``(*batch)``, as a density with respect to dM of this metric.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance t of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if the heat kernel of ``base`` has no closed form.
        """
        return self.base.log_heat_kernel(z, y, time / self.factor.to(z)) - self._log_volume(z)
