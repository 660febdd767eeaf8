"""Charts for tests: known manifolds in coordinates that are not conformal.

In a conformal chart of a surface the Ito drift vanishes and the metric is a multiple of the
identity, so errors in drift, in ``G^{-1}`` or in index order go unseen. The charts here show them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import FlatTorus, Hyperbolic, PullbackMetric, RiemannianMetric, Sphere, WarpedMetric
from pyro_riemann.manifolds import SPD, HalfSpace, Hyperboloid, ProductMetric, ScaledMetric


def shear(z: Tensor) -> Tensor:
    """A nonlinear triangular map of R^d: every axis is stretched, and pushed by the one before."""
    pushed = z + 0.3 * torch.tanh(z)
    return pushed + 0.5 * torch.sin(1.3 * torch.cat([torch.zeros_like(pushed[..., :1]), pushed[..., :-1]], dim=-1))


def unshear(x: Tensor) -> Tensor:
    """Inverse of :func:`shear`."""
    pushed = x
    for _ in range(x.shape[-1]):  # exact after one pass an axis
        before = torch.cat([torch.zeros_like(x[..., :1]), pushed[..., :-1]], dim=-1)
        pushed = x - 0.5 * torch.sin(1.3 * before)
    z = pushed
    for _ in range(6):  # of Newton for z + 0.3 tanh(z): exact after four, so that derivatives are exact too
        bent = torch.tanh(z)
        z = z - (z + 0.3 * bent - pushed) / (1.3 - 0.3 * bent * bent)
    return z


def warped_sphere(dim: int = 2) -> WarpedMetric:
    """The unit sphere through a nonlinear shear of its stereographic chart."""
    return WarpedMetric(Sphere(dim), (shear, unshear))


def warped_torus(dim: int = 2, periods: float = 2 * torch.pi) -> WarpedMetric:
    """A flat torus through a nonlinear shear."""
    return WarpedMetric(FlatTorus(dim, periods), (shear, unshear))


def warped_hyperbolic(dim: int = 2) -> WarpedMetric:
    """Hyperbolic space through a nonlinear shear of the hyperboloid chart."""
    return WarpedMetric(Hyperboloid(dim), (shear, unshear))


def hyperboloid_chart(dim: int = 2) -> Hyperboloid:
    """Hyperbolic space on the hyperboloid: |x| = sinh r."""
    return Hyperboloid(dim)


def half_space_log_height(dim: int = 3) -> HalfSpace:
    """Hyperbolic space as the half-space, last coordinate the log of the height."""
    return HalfSpace(dim)


def ball_as_hyperboloid(dim: int = 2) -> WarpedMetric:
    """The hyperboloid chart once more, but derived from the Poincare ball by a change of coordinates."""
    return WarpedMetric(Hyperbolic(dim), (Hyperboloid(dim).to_ball, Hyperboloid(dim).from_ball))


def ball_as_half_space(dim: int = 3) -> WarpedMetric:
    """The half-space chart once more, but derived from the Poincare ball by a change of coordinates."""
    return WarpedMetric(Hyperbolic(dim), (HalfSpace(dim).to_ball, HalfSpace(dim).from_ball))


def cylinder() -> PullbackMetric:
    """A flat but curved-looking surface: the cylinder (cos z_0, sin z_0, z_1) as a pullback."""
    return PullbackMetric(_roll, 2, jitter=0.0)


def _roll(z: Tensor) -> Tensor:
    return torch.stack([z[..., 0].cos(), z[..., 0].sin(), z[..., 1]], dim=-1)


def sphere_pullback(dim: int = 2) -> PullbackMetric:
    """The unit sphere as a pullback through the sheared stereographic embedding, all numerics and no closed form."""
    return PullbackMetric(_ShearedSphere(dim), dim, jitter=0.0)


class _ShearedSphere(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sphere = Sphere(dim)

    def forward(self, z: Tensor) -> Tensor:
        return self.sphere.to_ambient(shear(z))


class OnlyMetric(RiemannianMetric):
    """Another metric's tensor and nothing else of it: the generic route, to compare with a closed form."""

    def __init__(self, base: RiemannianMetric) -> None:
        super().__init__()
        self.dim, self.base = base.dim, base

    def metric(self, z: Tensor) -> Tensor:
        return self.base.metric(z)


def all_charts() -> dict[str, RiemannianMetric]:
    """Manifolds with closed forms, each through several charts; every chart accepts |z| < 1 at least."""
    return {
        "sphere1": Sphere(1),
        "sphere2": Sphere(2),
        "sphere3": Sphere(3),
        "warped sphere2": warped_sphere(2),
        "warped sphere3": warped_sphere(3),
        "ball2": Hyperbolic(2),
        "ball3": Hyperbolic(3),
        "hyperboloid2": Hyperboloid(2),
        "hyperboloid3": Hyperboloid(3),
        "half-space2": HalfSpace(2),
        "half-space3": HalfSpace(3),
        "ball as hyperboloid2": ball_as_hyperboloid(2),
        "ball as half-space3": ball_as_half_space(3),
        "warped hyperbolic2": warped_hyperbolic(2),
        "torus2": FlatTorus(2, [2 * torch.pi, 3.0]),
        "warped torus2": warped_torus(2, 3.0),
        "cylinder": FlatTorus(2, [2 * torch.pi, float("inf")]),
        "large sphere2": Sphere(2, 1.7),
        "curved ball3": Hyperbolic(3, -2.5),
        "flatter hyperboloid2": Hyperboloid(2, -0.4),
        "curved half-space2": HalfSpace(2, -1.8),
        "scaled warped sphere2": ScaledMetric(warped_sphere(2), 0.6),
        "sphere2 x half-space2": ProductMetric([Sphere(2, 0.8), HalfSpace(2)]),
        "matrices2": SPD(2),
    }
