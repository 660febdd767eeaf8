"""Metrics and immersions written out in coordinates, independent of ``pyro_riemann.manifolds``."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import RiemannianMetric
from tests import charts


class Hyperboloid(RiemannianMetric):
    """H^2 by the first two coordinates of the hyperboloid; |z| = sinh r."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        outer = z.unsqueeze(-1) * z.unsqueeze(-2)
        return torch.eye(2).to(z) - outer / (1 + z.square().sum(-1))[..., None, None]


class HalfSpace(RiemannianMetric):
    """H^3 as the half-space, third coordinate the log of the height."""

    dim = 3

    def metric(self, z: Tensor) -> Tensor:
        flat = torch.exp(-2 * z[..., 2:])
        return torch.diag_embed(torch.cat([flat, flat, torch.ones_like(flat)], -1))


class Vanishing(RiemannianMetric):
    """exp(-2 z) on the line: curves of finite length reach infinity."""

    dim = 1

    def metric(self, z: Tensor) -> Tensor:
        return torch.exp(-2 * z).unsqueeze(-1)


def half_space_cosh(z: Tensor) -> Tensor:
    """cosh of the distance from height 1 above the origin of :class:`HalfSpace`."""
    height = z[..., 2].exp()
    return 1 + (z[..., :2].square().sum(-1) + (height - 1).square()) / (2 * height)


def stereographic(z: Tensor) -> Tensor:
    """The unit sphere, origin at the last axis."""
    square = z.square().sum(-1, keepdim=True)
    return torch.cat([2 * z, 1 - square], -1) / (1 + square)


def warped_sphere(z: Tensor) -> Tensor:
    """The unit sphere through a shear, regular everywhere and far from conformal."""
    return stereographic(charts.shear(z))
