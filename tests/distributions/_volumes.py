"""Metrics whose Riemannian uniform is known, and the masses of cells by quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_riemann import (
    KernelMetric,
    RiemannianMetric,
)

DTYPE = torch.float64


class Exponential(RiemannianMetric):
    """G = diag(exp(2 a_i z_i)): the uniform law is a product of truncated exponentials."""

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.dim = rates.shape[0]
        self.rates = nn.Parameter(rates)
        self.evaluations = 0

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed((2 * self.rates * z).exp())

    def logdet(self, z: Tensor) -> Tensor:
        self.evaluations += 1
        return 2 * z @ self.rates

    def exact_log_volume(self, low: float, high: float) -> float:
        a = self.rates.detach()
        return float((((a * high).exp() - (a * low).exp()) / a).log().sum())


class Bumps(RiemannianMetric):
    """sqrt(det G) = 1 + sum of Gaussians with given masses: the volume of a box that holds them is their sum."""

    def __init__(self, loc: Tensor, scale: Tensor, log_mass: Tensor, box: float) -> None:
        super().__init__()
        self.loc, self.scale, self.log_mass, self.box = loc, scale, log_mass.to(loc), box
        self.dim = loc.shape[1]

    def logdet(self, z: Tensor) -> Tensor:
        height = self.log_mass - self.scale.log().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)
        terms = height - 0.5 * ((z.unsqueeze(-2) - self.loc) / self.scale).square().sum(-1)
        return 2 * torch.cat([terms, torch.zeros_like(z[..., :1])], -1).logsumexp(-1)

    def metric(self, z: Tensor) -> Tensor:
        factor = (self.logdet(z) / self.dim).exp()
        return factor[..., None, None] * torch.eye(self.dim, dtype=z.dtype)

    def exact_log_volume(self) -> float:
        return math.log(self.box + float(self.log_mass.exp().sum()))


def isolated_bumps(dim: int, count: int = 20, regularization: float = 1e-3) -> KernelMetric:
    """Centroids so far apart, in units of the bandwidth, that the kernels do not overlap."""
    generator = torch.Generator().manual_seed(dim)
    centroids = torch.rand(10 * count, dim, generator=generator, dtype=DTYPE) * 10
    kept = [centroids[0]]
    for candidate in centroids[1:]:
        if len(kept) < count and min(float((candidate - c).norm()) for c in kept) > 0.9:
            kept.append(candidate)
    scale = 0.05 + 0.05 * torch.rand(len(kept), dim, generator=generator, dtype=DTYPE)
    return KernelMetric(torch.stack(kept), scale**-2, 1.5, regularization)


def overlapping_bumps(dim: int, full: bool = False) -> KernelMetric:
    generator = torch.Generator().manual_seed(1)
    centroids = torch.randn(12, dim, generator=generator, dtype=DTYPE)
    scale = 0.3 + 0.4 * torch.rand(12, dim, generator=generator, dtype=DTYPE)
    precisions = torch.diag_embed(scale**-2) if full else scale**-2
    if full:
        factor = torch.linalg.cholesky(precisions)
        tilt = torch.eye(dim, dtype=DTYPE) + 0.3 * torch.ones(dim, dim, dtype=DTYPE).tril(-1)
        precisions = (tilt @ factor) @ (tilt @ factor).mT
    return KernelMetric(centroids, precisions, 1.5, 1e-2)


def cell_masses(metric: RiemannianMetric, low: Tensor, high: Tensor, cells: int, fine: int = 60) -> Tensor:
    """Probabilities of ``cells x cells`` by the midpoint rule, a route of its own."""
    steps = cells * fine
    axes = [low[i] + (high[i] - low[i]) * (torch.arange(steps, dtype=DTYPE) + 0.5) / steps for i in range(2)]
    points = torch.cartesian_prod(*axes)
    density = torch.cat([(0.5 * metric.logdet(p)).exp().detach() for p in points.split(50_000)])
    mass = density.reshape(cells, fine, cells, fine).sum((1, 3))
    return mass / mass.sum()
