"""Scalar curvature, by the Gauss equation for immersions and by Riemann's tensor for any metric."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import _autodiff
from pyro_riemann._checks import check_point
from pyro_riemann._interface import Immersed, Metric
from pyro_riemann._modes import full_precision


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
    r"""Scalar curvature of a pullback metric, :math:`|\mathrm{tr}\, II|^2 - |II|^2` (Gauss equation).

    II is the second fundamental form in an orthonormal frame: the second derivatives of the
    immersion, projected on the normal space. Shape ``(*batch, d) -> (*batch)``.
    """
    hessian = _autodiff.jacobian(lambda point: metric.embed_jacobian(point)[1], z, metric.dim)[1]
    _, jacobian = metric.embed_jacobian(z)
    factor = torch.linalg.cholesky(jacobian.mT @ jacobian)
    unit = torch.eye(metric.dim, dtype=factor.dtype, device=factor.device)
    frame = torch.linalg.solve_triangular(factor.mT, unit.expand_as(factor), upper=True)
    tangents = jacobian @ frame
    form = torch.einsum("...aij,...ik,...jl->...akl", hessian, frame, frame)
    form = form - torch.einsum("...am,...bm,...bkl->...akl", tangents, tangents, form)
    trace = form.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square().sum(-1) - form.square().sum((-3, -2, -1))


@full_precision
def riemann_curvature(metric: Metric, z: Tensor) -> Tensor:
    r"""Scalar curvature of any metric from the first and second derivatives of G.

    .. math:: R = g^{ik} g^{jl} \big(\partial_j \partial_k g_{il} - \partial_i \partial_k g_{jl}
        + g_{mn} (\Gamma^m_{jk} \Gamma^n_{il} - \Gamma^m_{jl} \Gamma^n_{ik})\big)

    Shape ``(*batch, d) -> (*batch)``.
    """
    tensor, slope = metric.metric_jacobian(z)
    second = _autodiff.jacobian(lambda point: metric.metric_jacobian(point)[1], z, metric.dim)[1]
    inverse = torch.linalg.inv(tensor)
    # symbols[..., m, j, k] = Christoffel symbols of the first kind
    symbols = 0.5 * (slope + slope.transpose(-1, -2) - slope.movedim(-1, -3))
    # symbols of the second kind with one lower index raised
    linear = torch.einsum("...ik,...jl,...iljk->...", inverse, inverse, second) - torch.einsum(
        "...ik,...jl,...jlik->...", inverse, inverse, second
    )
    contracted = torch.einsum("...mjl,...jl->...m", symbols, inverse)
    raised = torch.einsum("...mjk,...mn,...jl,...ki->...nli", symbols, inverse, inverse, inverse)
    mixed = torch.einsum("...nli,...nil->...", raised, symbols)
    return linear + mixed - torch.einsum("...m,...mn,...n->...", contracted, inverse, contracted)
