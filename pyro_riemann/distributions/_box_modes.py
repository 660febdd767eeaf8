r"""The peaks of a kernel metric's volume where its bumps overlap, as Gaussians.

Kernels that overlap lift each other: :math:`\sqrt{\det G}` is then a power d/2 of a density estimate, and its mass
gathers at a few peaks between the centroids, wider or narrower than any one bump. A mixture with a part for each
centroid proposes everywhere but there.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pyro_riemann.distributions._box_mixture import GaussianParts
from pyro_riemann.metrics import KernelMetric

_MAX_PEAKS = 256
_ITERATIONS = 60
_SAME = 0.3  # peaks closer than this, in standard deviations of a bump, are one


def peaks_of(metric: KernelMetric, starts: Tensor) -> GaussianParts:
    r"""Laplace approximation of :math:`\sqrt{\det G}` at the peaks that lie uphill of ``starts (n, d)``.

    Peaks are found by the fixed-point iteration of mean shift (Comaniciu & Meer 2002, *Mean shift: a robust approach
    toward feature space analysis*): where the gradient of log det G vanishes, z is a weighted mean of the centroids.
    """
    metric = copy.deepcopy(metric).double().requires_grad_(False)
    spread = metric.bandwidth**2 / metric.dim
    precision = metric.precisions.mean(0) / spread
    factor = precision.sqrt().diag() if metric.is_diagonal else torch.linalg.cholesky(precision)
    points = starts.double().clone()
    moving = torch.ones_like(points[:, 0], dtype=torch.bool)
    for _ in range(_ITERATIONS):
        moved = _mean_shift(metric, points[moving])
        far = ((moved - points[moving]) @ factor).abs().amax(-1) > 1e-2
        points[moving] = moved
        moving[moving.clone()] = far
        if not bool(moving.any()):
            break
    value = 0.5 * metric.logdet(points)
    order = value.argsort(descending=True)
    white = points[order] @ factor
    kept: list[int] = []
    for index in range(len(white)):
        if not kept or float((white[kept] - white[index]).square().sum(-1).min()) > _SAME**2:
            kept.append(index)
            if len(kept) == _MAX_PEAKS:
                break
    peaks = points[order[kept]]
    covariance, logdet = _curvature(metric, peaks, factor)
    return GaussianParts(peaks, covariance, value[order[kept]] + 0.5 * logdet)


def _mean_shift(metric: KernelMetric, z: Tensor) -> Tensor:
    """Solve grad log det G = 0 for z, with the kernel weights as they are at the old z."""
    weights = metric.kernel_weights(z)
    precisions = metric.precisions
    if metric.is_diagonal:
        pull = weights * (metric.diagonal(z).reciprocal() @ precisions.mT)
        # far from every centroid there is no uphill: stay
        total = (pull @ precisions).clamp(min=1e-300)
        return torch.where(total > 1e-290, pull @ (precisions * metric.centroids) / total, z)
    inverse = torch.linalg.inv(metric.metric(z))
    pull = weights * (inverse.flatten(-2) @ precisions.flatten(-2).mT)
    shifted = torch.einsum("kij,kj->ki", precisions, metric.centroids)
    total = (pull @ precisions.flatten(-2)).unflatten(-1, (metric.dim, metric.dim))
    scale = total.diagonal(dim1=-2, dim2=-1).mean(-1)
    safe = torch.where((scale > 1e-290)[:, None, None], total, torch.eye(metric.dim).to(total))
    solved = torch.linalg.solve(safe, (pull @ shifted).unsqueeze(-1)).squeeze(-1)
    return torch.where((scale > 1e-290).unsqueeze(-1), solved, z)


def _curvature(metric: KernelMetric, peaks: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of minus the Hessian of log sqrt(det G), bounded where it is flat, and its log determinant."""
    dim, step = metric.dim, 1e-4
    inverse = torch.linalg.inv(factor).mT  # columns: one standard deviation of a bump
    offsets = step * torch.cat([inverse.mT, -inverse.mT])
    slopes = 0.5 * metric.logdet_gradient((peaks.unsqueeze(1) + offsets).flatten(0, 1)).unflatten(0, (-1, 2 * dim))
    hessian = (slopes[:, :dim] - slopes[:, dim:]) / (2 * step) @ inverse  # in units of a bump
    values, vectors = torch.linalg.eigh(-0.5 * (hessian + hessian.mT))
    values = values.clamp(min=0.05)  # flat or rising: as wide as four to five bumps
    root = inverse @ vectors
    covariance = (root / values.unsqueeze(-2)) @ root.mT
    return covariance, torch.logdet(covariance)
