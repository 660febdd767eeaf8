"""Kernel metrics of the tests, and equation 7 as it stands."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import KernelMetric

NUM, DIM = 12, 3


def kernels(diagonal: bool = True, dtype: torch.dtype = torch.float64, dim: int = DIM) -> KernelMetric:
    generator = torch.Generator().manual_seed(1)
    centroids = torch.randn(NUM, dim, generator=generator, dtype=torch.float64)
    precisions = 0.5 + 3 * torch.rand(NUM, dim, generator=generator, dtype=torch.float64)
    if not diagonal:
        root = 0.5 * torch.randn(NUM, dim, dim, generator=generator, dtype=torch.float64)
        precisions = torch.diag_embed(precisions) + root @ root.mT
    return KernelMetric(centroids.to(dtype), precisions.to(dtype), 1.3, 0.05)


def definition(metric: KernelMetric, z: Tensor) -> Tensor:
    """Equation 7, kernel by kernel."""
    total = metric.regularization * torch.eye(metric.dim, dtype=z.dtype)
    for centroid, precision in zip(metric.centroids, metric.precisions, strict=True):
        matrix = torch.diag(precision) if precision.dim() == 1 else precision
        distance = torch.einsum("...i,ij,...j->...", z - centroid, matrix, z - centroid)
        total = total + matrix * torch.exp(-distance / metric.bandwidth**2)[..., None, None]
    return total
