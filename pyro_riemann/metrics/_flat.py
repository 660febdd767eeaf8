"""Flat metrics: the gate through which every density must pass."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from pyro_riemann._checks import check_dtype, check_finite
from pyro_riemann._formulas import densities
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics._base import RiemannianMetric


class ConstantMetric(RiemannianMetric):
    """The same metric tensor at every point; geodesics are straight lines.

    Args:
        matrix: symmetric positive definite ``(d, d)``.

    Raises:
        TypeError: if ``matrix`` is not of float32 or float64.
        ValueError: if ``matrix`` is not square, symmetric, finite and positive definite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> metric = ConstantMetric(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        >>> metric.dist(torch.zeros(2), torch.tensor([1.0, 0.0])).item()
        2.0
    """

    matrix: Tensor
    is_symmetric = True
    is_uniquely_geodesic: bool | None = True

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`matrix` must have shape (d, d), got {tuple(matrix.shape)}.")
        check_finite("matrix", check_dtype("matrix", matrix))
        if not torch.allclose(matrix, matrix.mT):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        if torch.linalg.cholesky_ex(matrix).info.item() != 0:
            raise ValueError("`matrix` must be positive definite.")
        self.dim = matrix.shape[0]
        self.register_buffer("matrix", matrix)

    def metric(self, z: Tensor) -> Tensor:
        return self.matrix.to(z).expand(*z.shape, self.dim)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.metric(z), z.new_zeros(*z.shape, self.dim, self.dim)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(z + v)

    def drift(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z[..., 0])

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0)

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        return torch.full_like(z[..., 0], torch.inf)

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return z + v

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y = z + v
        return y, torch.zeros_like(y[..., 0])

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return y - z

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.inner(z, y - z, y - z)

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like((z + y)[..., 0])

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        if type(self).squared_dist is not ConstantMetric.squared_dist:
            return None  # a subclass that identifies points, of which there are more geodesics than one
        return densities.single_geodesic(torch, self.dim, time, self.squared_dist(z, y), self.log_van_vleck(z, y))

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        if type(self).squared_dist is not ConstantMetric.squared_dist:
            return None
        return self._log_carried_normal(z, y, factor)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)


class EuclideanMetric(ConstantMetric):
    """The identity metric on R^d.

    Args:
        dim: dimension d, at least 1.

    Raises:
        ValueError: if ``dim`` is less than 1.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> EuclideanMetric(2).dist(torch.zeros(2), torch.tensor([3.0, 4.0])).item()
        5.0
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        super().__init__(torch.eye(dim))
