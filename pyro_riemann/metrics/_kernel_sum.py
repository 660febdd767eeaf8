"""A sum of kernels as a metric: its values and derivatives, by products of tables."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from pyro_riemann._checks import check_point
from pyro_riemann._formulas import kernel
from pyro_riemann._formulas.peaks import Peaks, kernel_peaks
from pyro_riemann._memory import is_recorded, slices
from pyro_riemann.metrics._base import RiemannianMetric

_CACHED, _FEWEST = 2**19, 1024  # numbers of a table over points and kernels, and kernels, that are in work at a time


class KernelSum(RiemannianMetric):
    """What :class:`KernelMetric` computes from its numbers, whatever they come from."""

    centroids: Tensor
    precisions: Tensor
    bandwidth: Tensor
    regularization: Tensor
    is_diagonal: bool

    @property
    def landmarks(self) -> Tensor:  # type: ignore[override]  # others hold it
        """Points that every search for a path should know of: the centroids, ``(k, d)``."""
        return self.centroids

    @property
    def bump_scale(self) -> float:
        r"""Standard deviation of an isolated bump of the volume in those of the posterior, :math:`\rho / \sqrt d`."""
        return float(self.bandwidth.detach()) / math.sqrt(self.dim)

    @torch.no_grad()
    def peaks(self) -> Peaks:
        return kernel_peaks(torch, self.centroids, self.precisions, self.bandwidth)

    def footprint(self, order: int) -> int:
        """Numbers held at one point: tables over the centroids, in double precision.

        Args:
            order: of the derivatives of G.
        """
        return kernel.footprint(6, len(self.centroids), self.dim, self.is_diagonal, order)

    # ---------------------------------------------------------------- values

    def _wide(self, z: Tensor, part: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points, a part of the centroids and precisions, and the exponent's factor, all in double precision."""
        check_point("z", z, self.dim)
        wide = z.dtype if z.device.type == "mps" else torch.float64  # that device has no doubles
        centroids, precisions = self.centroids[part].to(wide), self.precisions[part].to(wide)
        return z.to(wide), centroids, precisions, -(self.bandwidth.to(wide) ** -2)

    def _weights(self, z: Tensor, centroids: Tensor, precisions: Tensor, factor: Tensor) -> Tensor:
        """Kernel weights ``exp(-|z - c_i|^2 / rho^2)``, ``(*batch, k)``, by one matrix product."""
        if self.is_diagonal:
            shifted, square = centroids * precisions, z.square()
        else:
            shifted = torch.einsum("kij,kj->ki", precisions, centroids)
            square, precisions = (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2), precisions.flatten(-2)
        # the constant is a column of the product: one table over points and centroids, not three
        columns = torch.cat([precisions, -2 * shifted, (shifted * centroids).sum(-1, keepdim=True)], dim=-1)
        features = torch.cat([square, z, torch.ones_like(z[..., :1])], dim=-1)
        table = features @ (factor * columns).mT
        # below exp(-700) comes underflow, whose arithmetic is ten times as slow
        if torch.is_grad_enabled() or is_recorded():
            return table.clamp(min=-700.0).exp()
        return table.clamp_(min=-700.0).exp_()  # in place: fresh memory takes longer than arithmetic

    def kernel_weights(self, z: Tensor) -> Tensor:
        r"""Kernel weights :math:`\exp(-|z - c_i|^2_{P_i} / \rho^2)` of the centroids, ``(*batch, k)``."""
        return self._weights(*self._wide(z)).to(z.dtype)

    def _sum(self, z: Tensor) -> Tensor:
        """All kernels at ``z``, ``(*batch, d)``, or ``(*batch, d^2)`` for full precisions, in double precision.

        On a processor, where no gradient is asked for, as many at a time as keep their tables in its cache.
        """
        count = len(self.centroids)
        whole = torch.is_grad_enabled() or is_recorded() or z.device.type != "cpu"
        block = count if whole else max(_FEWEST, _CACHED * self.dim // max(z.numel(), 1))

        def one(start: int) -> Tensor:
            wide, centroids, precisions, factor = self._wide(z, slice(start, start + block))
            return self._weights(wide, centroids, precisions, factor) @ precisions.flatten(1)

        return functools.reduce(torch.add, map(one, range(0, count, block)))

    def diagonal(self, z: Tensor) -> Tensor:
        """Diagonal of G(z), ``(*batch, d)``: all of G if the precisions are diagonal."""
        if not self.is_diagonal:
            return self.metric(z).diagonal(dim1=-2, dim2=-1)
        return self._sum(z).to(z.dtype) + self.regularization.to(z.dtype)

    def metric(self, z: Tensor) -> Tensor:
        if self.is_diagonal:
            return torch.diag_embed(self.diagonal(z))
        total = self._sum(z).to(z.dtype).unflatten(-1, (self.dim, self.dim))
        return total + self.regularization.to(z.dtype) * torch.eye(self.dim, dtype=z.dtype, device=z.device)

    def cholesky(self, z: Tensor) -> Tensor:
        return torch.diag_embed(self.diagonal(z).sqrt()) if self.is_diagonal else super().cholesky(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.diagonal(z).log().sum(-1) if self.is_diagonal else super().logdet(z)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * self.diagonal(z) * v).sum(-1) if self.is_diagonal else super().inner(z, u, v)

    def coverage(self, codes: Tensor) -> Tensor:
        r"""Share of ``codes``, ``(..., d)``, where G is not just its floor.

        That is, where the kernels outweigh it: :math:`\mathrm{tr}(G - \lambda I) > \lambda d`.

        Well below 1 the kernels are isolated bumps: use a larger bandwidth or more centroids.
        """
        return (~self.on_floor(codes)).to(codes.dtype).mean()

    def on_floor(self, z: Tensor) -> Tensor:
        r"""Where the kernels do not outweigh the floor at ``z``, :math:`\mathrm{tr}(G - \lambda I) \le \lambda d`.

        Shape ``(*batch)``.
        """
        floor = self.regularization.to(z.dtype)
        return (self.diagonal(check_point("z", z, self.dim)) - floor).mean(-1) <= floor

    # ---------------------------------------------------------------- first derivatives

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_diagonal:
            diagonal, slope = self._diagonal_jacobian(z)
            return torch.diag_embed(diagonal), torch.diag_embed(slope.mT, dim1=-3, dim2=-2)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        pull = torch.einsum("kij,...kj->...ki", precisions, wide.unsqueeze(-2) - centroids)
        slope = (2 * factor * weights.unsqueeze(-1) * pull).mT @ precisions.flatten(-2)
        total = (weights @ precisions.flatten(-2)).unflatten(-1, (self.dim, self.dim))
        floor = self.regularization.to(z.dtype) * torch.eye(self.dim, dtype=z.dtype, device=z.device)
        return total.to(z.dtype) + floor, slope.unflatten(-1, (self.dim, self.dim)).movedim(-3, -1).to(z.dtype)

    def _diagonal_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Diagonal of G and ``d G_ii / d z_j``, ``(*batch, d, d)``, with no array over points, centroids and axes."""
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        rows = kernel.block(self.dim)
        if is_recorded() or len(centroids) <= rows:  # what is recorded serves all sizes
            slope = kernel.diagonal_jacobian(torch, wide, weights, centroids, precisions, factor)
        else:
            each = (
                kernel.diagonal_jacobian(torch, wide, weights[..., part], centroids[part], precisions[part], factor)
                for part in slices(len(centroids), rows)
            )
            slope = functools.reduce(torch.add, each)
        return (weights @ precisions).to(z.dtype) + self.regularization.to(z.dtype), slope.to(z.dtype)

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.is_diagonal:
            return super().metric_derivatives(z, v)
        diagonal, slope = self._diagonal_jacobian(z)
        along = (slope * v.unsqueeze(-2)).sum(-1)
        return torch.diag_embed(diagonal), slope * v.unsqueeze(-1), torch.diag_embed(along)

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().speed_hessian(z, v)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        found = kernel.speed_hessian(torch, wide, v.to(wide), weights, centroids, precisions, factor)
        return found.to(z.dtype)

    def logdet_gradient(self, z: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().logdet_gradient(z)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        floor = self.regularization.to(wide)
        return kernel.logdet_gradient(wide, weights, centroids, precisions, factor, floor).to(z.dtype)

    @torch.no_grad()
    def _logdet_with_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``log det G`` and its gradient at ``z`` by one table of weights, for diagonal precisions."""
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        floor = self.regularization.to(wide)
        found = kernel.diagonal_and_logdet_gradient(wide, weights, centroids, precisions, factor, floor)
        return found[0].log().sum(-1).to(z.dtype), found[1].to(z.dtype)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().christoffel(z, v)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        floor = self.regularization.to(wide)
        return kernel.christoffel(wide, v.to(wide), weights, centroids, precisions, factor, floor).to(z.dtype)

    def drift(self, z: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().drift(z)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        floor = self.regularization.to(wide)
        return kernel.drift(wide, weights, centroids, precisions, factor, floor).to(z.dtype)
