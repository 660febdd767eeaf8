"""Charts of hyperbolic space that are all of R^d.

They go through the Poincare ball and share its limit: beyond a distance of 36 from the origin in
float64 (16 in float32) points are held at that distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann.manifolds._hyperbolic import Hyperbolic, inside_ball
from pyro_riemann.manifolds._warped import WarpedMetric


def hyperboloid(dim: int) -> WarpedMetric:
    r"""Hyperbolic space :math:`H^d` in the chart of the hyperboloid :math:`(x, \sqrt{1 + |x|^2})`, x in R^d.

    ``|x| = sinh r`` at distance r from the origin. The chart is not conformal, so the Ito drift of
    Brownian motion does not vanish.

    Example:
        >>> metric = hyperboloid(2)
        >>> round(metric.dist(torch.zeros(2), torch.tensor([1.0, 0.0])).item(), 4)  # asinh(1)
        0.8814
    """
    return WarpedMetric(Hyperbolic(dim), (_hyperboloid_to_ball, _ball_to_hyperboloid))


def half_space(dim: int) -> WarpedMetric:
    r"""Hyperbolic space as the half-space with logarithmic height, :math:`e^{-2h} |dx|^2 + dh^2`.

    The chart is R^d: the last coordinate is the log height h, the others are x.

    Example:
        >>> metric = half_space(3)
        >>> round(metric.dist(torch.zeros(3), torch.tensor([0.0, 0.0, 2.0])).item(), 4)  # straight up
        2.0
    """
    return WarpedMetric(Hyperbolic(dim), (_half_space_to_ball, _ball_to_half_space))


def _without_overflow(x: Tensor) -> Tensor:
    """Clamp coordinates, far beyond the last point the ball can hold, to where their squares are finite."""
    largest = torch.finfo(x.dtype).max ** 0.25
    return x.clamp(-largest, largest)


def _hyperboloid_to_ball(x: Tensor) -> Tensor:
    x = _without_overflow(x)
    return inside_ball(x / (1 + (1 + x.square().sum(-1, keepdim=True)).sqrt()))


def _ball_to_hyperboloid(z: Tensor) -> Tensor:
    return 2 * z / (1 - z.square().sum(-1, keepdim=True))


def _invert(p: Tensor) -> Tensor:
    """Inversion in the sphere of radius sqrt(2) about (0, ..., 0, -1): swaps the half-space and the ball."""
    lifted = torch.cat([p[..., :-1], p[..., -1:] + 1], dim=-1)
    image = 2 * lifted / lifted.square().sum(-1, keepdim=True)
    return torch.cat([image[..., :-1], image[..., -1:] - 1], dim=-1)


def _half_space_to_ball(p: Tensor) -> Tensor:
    height = _without_overflow(p[..., -1:].clamp(-80.0, 80.0).exp())
    return inside_ball(_invert(torch.cat([_without_overflow(p[..., :-1]), height], dim=-1)))


def _ball_to_half_space(z: Tensor) -> Tensor:
    # height (1 - |z|^2) / |z + e|^2 rather than the inversion's last entry, which cancels near the boundary
    base = z[..., :-1].square().sum(-1, keepdim=True) + (z[..., -1:] + 1).square()
    height = (1 - z.square().sum(-1, keepdim=True)) / base
    return torch.cat([2 * z[..., :-1] / base, height.log()], dim=-1)
