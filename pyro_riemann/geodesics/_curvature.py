"""Scalar curvature, and the Van Vleck-Morette determinant of the solved boundary-value problem."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pyro_riemann import _calculus, _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._formulas import calculus
from pyro_riemann._interface import Immersed, Metric
from pyro_riemann._memory import in_pieces
from pyro_riemann._modes import full_precision
from pyro_riemann._vmap import over_batches
from pyro_riemann.geodesics._pieces import Piece, attached, gather
from pyro_riemann.geodesics._solver import GeodesicSolver, flat_pairs


@full_precision
def scalar_curvature(metric: Metric, z: Tensor) -> Tensor:
    """Scalar curvature R(z); :math:`d(d-1)` on the unit sphere, twice the Gauss curvature if d = 2.

    Pullback metrics use :func:`gauss_curvature`, which needs second derivatives of the immersion only; other
    metrics use :func:`riemann_curvature`. Both agree on a pullback.

    Args:
        metric: any object with the interface of ``RiemannianMetric``.
        z: points, ``(*batch, d)``.

    Returns:
        Shape ``(*batch)``.

    Raises:
        TypeError, ValueError: if ``z`` is not a floating tensor ``(*batch, d)``.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 4, and chapter 6, section 2 (Gauss equation).

    Example:
        >>> from pyro_riemann import RiemannianMetric
        >>> class HalfPlane(RiemannianMetric):
        ...     dim = 2
        ...     def metric(self, z):
        ...         return torch.diag_embed(z[..., 1:].expand_as(z) ** -2)
        >>> round(HalfPlane().scalar_curvature(torch.tensor([0.3, 2.0])).item(), 4)
        -2.0
    """
    check_point("z", z, metric.dim)
    surface = metric.immersed()
    return riemann_curvature(metric, z) if surface is None else gauss_curvature(surface, z)


def gauss_curvature(metric: Immersed, z: Tensor) -> Tensor:
    """Scalar curvature of a pullback metric, ``(*batch)``, by the Gauss equation."""
    return calculus.gauss_curvature(_calculus, metric.embed_jacobian, z, metric.dim)


@full_precision
def riemann_curvature(metric: Metric, z: Tensor) -> Tensor:
    """Scalar curvature of any metric, ``(*batch)``, from the first and second derivatives of G."""
    return calculus.riemann_curvature(_calculus, metric.metric_jacobian, z, metric.dim)


class _Solved(Metric, Protocol):
    """A metric that says how its boundary-value problems are solved."""

    @property
    def solver(self) -> GeodesicSolver: ...


@full_precision
@over_batches
def log_van_vleck(metric: _Solved, z: Tensor, y: Tensor) -> Tensor:
    r"""Log of :math:`V = |\det(-\partial_z \partial_y\, l^2/2)| / \sqrt{\det G(z) \det G(y)}`, shape ``(*batch)``.

    The mixed derivative of the least energy is a Schur complement of the full Hessian of the
    discrete energy, the interior of the curve eliminated; the Gauss-Newton Hessian would be wrong
    here, even on a cylinder. 0 where ``z == y``; infinite at conjugate points.
    Differentiable in both ends and in the metric's parameters.

    Args:
        metric: any metric.
        z: start, ``(*batch, d)``.
        y: end, ``(*batch, d)``.

    Raises:
        ValueError: for points of the wrong shape, or with NaN.
        TypeError: for points that are not floating tensors.

    Source: Morette (1951), *On the definition and approximation of Feynman's path integrals*.

    Example:
        >>> from pyro_riemann import Sphere
        >>> z, y = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])
        >>> round(log_van_vleck(Sphere(2), z, y).item(), 3)  # log(l / sin l), l = pi / 2
        0.452
    """
    z, y, shape = flat_pairs(metric, z, y)
    dim = z.shape[-1]

    def mixed_volume(piece: Piece) -> Tensor:
        control = attached(metric.solver, metric, piece, z, y)

        def of(part: slice) -> Tensor:
            hessian = piece.energy.rows(rows[part]).exact_system(control[part]).hessian
            inner, right = hessian[:, dim:-dim, dim:-dim], hessian[:, dim:-dim, -dim:]
            mixed = hessian[:, :dim, -dim:] - hessian[:, :dim, dim:-dim] @ (torch.linalg.inv(inner) @ right)
            return _linalg.log_abs_det(mixed)

        rows = torch.arange(len(control), device=z.device)
        found: Tensor = in_pieces(of, len(control), metric.solver.room(metric, control))
        return found

    pieces = metric.solver.pieces(metric, z.detach(), y.detach())
    value = gather(pieces, mixed_volume) - 0.5 * (metric.logdet(z) + metric.logdet(y))
    return value.reshape(shape)
