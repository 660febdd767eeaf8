"""Quadrature on known surfaces, finite differences and metrics with parameters, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric, RiemannianMetric, Sphere, WarpedMetric
from tests.charts import warped_hyperbolic, warped_sphere

F64 = torch.float64
SPHERES: dict[str, RiemannianMetric] = {"stereographic": Sphere(2), "warped": warped_sphere(2)}
CENTRES = [[0.0, 0.0], [0.7, -0.4], [1.5, 0.3]]


def from_sphere(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """Points of the stereographic chart in the chart of ``metric``, which is ``Sphere`` or warped."""
    return metric.from_base(z) if isinstance(metric, WarpedMetric) else z


def sphere_rule(metric: RiemannianMetric, size: int = 96) -> tuple[Tensor, Tensor]:
    """Points of ``metric``'s chart and weights that integrate over S^2 with respect to dM."""
    nodes, weight = np.polynomial.legendre.leggauss(size)
    cosine, phi = np.meshgrid(nodes, (np.arange(size) + 0.5) * 2 * np.pi / size, indexing="ij")
    sine = np.sqrt(1 - cosine**2)
    ambient = torch.from_numpy(np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], -1))
    weights = torch.from_numpy(np.repeat(weight[:, None], size, 1) * 2 * np.pi / size)
    return from_sphere(metric, Sphere(2).from_ambient(ambient)).reshape(-1, 2), weights.reshape(-1)


def hyperbolic_rule(radius: float = 7.0, size: int = 200) -> tuple[WarpedMetric, Tensor, Tensor]:
    """A warped chart of H^2, its points and weights for dM on a disc around the origin of the hyperboloid."""
    metric = warped_hyperbolic(2)
    nodes, weight = np.polynomial.legendre.leggauss(size)
    r = (nodes + 1) / 2 * radius
    phi = (np.arange(size) + 0.5) * 2 * np.pi / size
    point = torch.from_numpy(np.sinh(r)[:, None, None] * np.stack([np.cos(phi), np.sin(phi)], -1))
    weights = torch.from_numpy(np.repeat((weight * radius / 2 * np.sinh(r))[:, None], size, 1) * 2 * np.pi / size)
    return metric, metric.from_base(point).reshape(-1, 2), weights.reshape(-1)


def total_mass(
    log_prob: Callable[[Tensor], Tensor], metric: RiemannianMetric, points: Tensor, weights: Tensor
) -> float:
    """Mass with respect to dz of a density, from a rule for dM."""
    return float((weights * (log_prob(points) - 0.5 * metric.logdet(points)).exp()).sum())


def derivative(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 5e-4) -> Tensor:
    """Gradient of a scalar function by five-point central differences (error of order step^4)."""
    gradient = torch.zeros_like(x)
    flat = x.detach().clone().reshape(-1)
    with torch.no_grad():
        for i in range(flat.numel()):
            for k, c in ((1, 8.0), (2, -1.0)):
                for sign in (1, -1):
                    moved = flat.clone()
                    moved[i] += sign * k * step
                    gradient.view(-1)[i] += sign * c * function(moved.reshape(x.shape)) / (12 * step)
    return gradient


class Twist(nn.Module):
    """A shear of the plane with one parameter, and its inverse."""

    def __init__(self, strength: Tensor) -> None:
        super().__init__()
        self.strength = nn.Parameter(strength.clone()) if strength.is_leaf else strength

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z[..., 0] + self.strength * torch.sin(z[..., 1]), z[..., 1]], -1)

    def inverse(self, x: Tensor) -> Tensor:
        return torch.stack([x[..., 0] - self.strength * torch.sin(x[..., 1]), x[..., 1]], -1)


def twisted_sphere(strength: float | Tensor = 0.4) -> tuple[WarpedMetric, nn.Parameter]:
    """The sphere in a chart with one learnable parameter."""
    twist = Twist(torch.as_tensor(strength, dtype=F64))
    metric = WarpedMetric(Sphere(2), (twist, twist.inverse))
    return metric, twist.strength  # type: ignore[return-value]


class Paraboloid(nn.Module):
    """(x, y, a (x^2 + 2 y^2) / 2), whose curvature varies."""

    def __init__(self, bend: float = 0.8) -> None:
        super().__init__()
        self.bend = nn.Parameter(torch.tensor(bend, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        height = 0.5 * self.bend * (z[..., 0].square() + 2 * z[..., 1].square())
        return torch.cat([z, height.unsqueeze(-1)], -1)


def paraboloid(bend: float = 0.8) -> PullbackMetric:
    return PullbackMetric(Paraboloid(bend), 2, jitter=0.0)
