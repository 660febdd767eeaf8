"""Symmetric positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from pyro_riemann._checks import check_dtype, check_point, holds
from pyro_riemann._formulas import densities
from pyro_riemann._formulas import positive_definite as formulas
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.manifolds import _heat_kernel
from pyro_riemann.metrics import RiemannianMetric


class SPD(RiemannianMetric):
    r"""Symmetric positive definite n x n matrices, :math:`|\dot P|^2 = \mathrm{tr}(P^{-1} \dot P P^{-1} \dot P)`.

    The affine-invariant metric, which is also the Fisher-Rao metric of normal laws with covariance P, times 2. It is
    that of a symmetric space without positive curvature: two points have one geodesic, and congruence
    :math:`P \mapsto C P C^\top` and inversion are isometries. The scalar curvature is ``-n (n - 1) (n + 2) / 8``.

    The chart is all of :math:`\mathbb{R}^d`, d = n (n + 1) / 2: with :math:`P = L L^\top`, the entries of the Cholesky
    factor L below the diagonal, row by row, followed by the logarithms of those on it. 0 is the identity matrix.

    The heat kernel is known for n = 1, a line, and n = 2, the product of a line and the hyperbolic plane of
    curvature -1/2.

    Args:
        size: number n of rows.

    Raises:
        ValueError: if ``size`` is less than 1.

    Source: Pennec, Fillard & Ayache (2006), *A Riemannian framework for tensor computing*; Moakher (2005), *A
    differential geometric approach to the geometric mean of symmetric positive-definite matrices*; Lin (2019),
    *Riemannian geometry of symmetric positive definite matrices via Cholesky decomposition*, for the chart.

    Example:
        >>> spd = SPD(2)
        >>> z = spd.from_matrix(torch.eye(2))
        >>> y = spd.from_matrix(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
        >>> round(spd.dist(z, y).item(), 4)  # sqrt 2 log 2
        0.9803
        >>> spd.to_matrix(spd.expmap(z, 0.5 * spd.logmap(z, y))).round(decimals=4)
        tensor([[1.4142, 0.0000],
                [0.0000, 0.7071]])
    """

    is_symmetric = True
    is_uniquely_geodesic: bool | None = True

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self.size, self.dim = size, size * (size + 1) // 2

    def extra_repr(self) -> str:
        return f"size={self.size}"

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-2:]) != (self.size, self.size):
            return ""
        return " If these are matrices, `SPD.from_matrix` has their coordinates."

    def to_matrix(self, z: Tensor) -> Tensor:
        """The matrices ``(*batch, n, n)`` of points ``z``."""
        lower = formulas.factor(torch, self._check("z", z), self.size)
        return lower @ lower.mT

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The points ``(*batch, d)`` of matrices ``(*batch, n, n)``.

        Raises:
            TypeError: if ``matrix`` is not a floating tensor.
            ValueError: if it does not have this shape, or is not symmetric and positive definite.
        """
        check_dtype("matrix", matrix)
        if tuple(matrix.shape[-2:]) != (self.size, self.size):
            raise ValueError(f"`matrix` must have shape (*batch, {self.size}, {self.size}), got {tuple(matrix.shape)}.")
        gap, level = (matrix - matrix.mT).detach().abs(), matrix.detach().abs().amax((-2, -1), keepdim=True)
        if not holds(gap <= 1e3 * torch.finfo(matrix.dtype).eps * level):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        lower, info = torch.linalg.cholesky_ex(matrix)
        if not holds(info == 0):
            raise ValueError(
                f"`matrix` is not positive definite at {int((info != 0).sum())} of {info.numel()} entries."
            )
        return formulas.coordinates(torch, lower, self.size)

    def _check(self, name: str, z: Tensor) -> Tensor:
        return check_point(name, z, self.dim, self)

    def _pair(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.broadcast_tensors(self._check("z", z), check_point("v", v, self.dim))
        return first, second

    def _log_gram(self, z: Tensor, y: Tensor) -> Tensor:
        z, y = torch.broadcast_tensors(self._check("z", z), self._check("y", y))
        lower = formulas.relative(torch, z, y, self.size)
        return formulas.log_gram(torch, torch.linalg.matrix_exp, torch.Tensor.detach, lower)

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: Tensor) -> Tensor:
        basis = torch.eye(self.dim, dtype=z.dtype, device=z.device)
        where = self._check("z", z).unsqueeze(-2).expand(*z.shape[:-1], self.dim, self.dim)
        a = formulas.frame(torch, where, basis.expand_as(where), self.size)
        return formulas.inner(torch, a.unsqueeze(-3), a.unsqueeze(-4))

    def logdet(self, z: Tensor) -> Tensor:
        return formulas.logdet(torch, self._check("z", z), self.size)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        first, second = (formulas.frame(torch, *self._pair(z, x), self.size) for x in (u, v))
        return formulas.inner(torch, first, second)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return formulas.christoffel(torch, *self._pair(z, v), self.size)

    def drift(self, z: Tensor) -> Tensor:
        return formulas.drift(torch, self._check("z", z), self.size)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        n = self.size
        return torch.full_like(self._check("z", z)[..., 0], -n * (n - 1) * (n + 2) / 8)

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0) if self.size == 1 else None

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        return torch.full_like(self._check("z", z)[..., 0], torch.inf)

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return formulas.expmap(torch, torch.linalg.matrix_exp, *self._pair(z, v), self.size)

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        a = formulas.frame(torch, *self._pair(z, v), self.size)
        return self.expmap(z, v), formulas.log_van_vleck(torch, a + a.mT)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        half = formulas.lower_half(torch, self._log_gram(z, y))
        return formulas.vector(torch, z, half, self.size)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self._log_gram(z, y).square().sum((-2, -1))

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        return formulas.log_van_vleck(torch, self._log_gram(z, y))

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        symmetric = self._log_gram(z, y)
        squared, log_van_vleck = symmetric.square().sum((-2, -1)), formulas.log_van_vleck(torch, symmetric)
        return densities.single_geodesic(torch, self.dim, time, squared, log_van_vleck)

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        return self._log_carried_normal(z, y, factor)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Log transition density of Brownian motion with respect to dM, exact for n <= 2; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: for n > 2, where no closed form is known.
            ValueError: as :meth:`pyro_riemann.Hyperbolic.log_heat_kernel`.
        """
        if self.size > 2:
            return super().log_heat_kernel(z, y, time)
        wide = torch.broadcast_tensors(self._check("z", z).double(), self._check("y", y).double())
        duration = _heat_kernel.as_time(time, wide[0])
        if self.size == 1:
            along, rest = 2 * (wide[1] - wide[0])[..., 0], torch.zeros_like(wide[0][..., 0])
        else:
            along, s = formulas.split_of_two(torch, formulas.relative(torch, wide[0], wide[1], self.size))
            rest = _heat_kernel.hyperbolic(s, duration / 2, 2) - math.log(2)  # curvature -1/2
        value = rest - 0.5 * (along.square() / duration + (2 * math.pi * duration).log())
        return value.to(torch.result_type(z, y))
