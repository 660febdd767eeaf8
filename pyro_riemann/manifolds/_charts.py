"""Charts of hyperbolic space that are all of R^d: no boundary to fall over, no digits lost near it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._checks import check_point
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.manifolds import _heat_kernel, _smooth
from pyro_riemann.metrics import RiemannianMetric


class _HyperbolicChart(RiemannianMetric):
    """What follows from ``sinh(l/2)^2`` alone, whatever the chart."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        """``sinh(l/2)^2``, shape ``(*batch)``."""
        raise NotImplementedError

    def _within_range(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``v`` and its squared length, shortened where the end point's square would overflow."""
        squared = self.inner(z, v, v)
        longest = (math.log(torch.finfo(v.dtype).max) / 5) ** 2
        shrink = longest / squared.clamp(min=longest)
        return v * shrink.sqrt()[..., None], squared * shrink

    def scalar_curvature(self, z: Tensor) -> Tensor:
        return torch.full_like(check_point("z", z, self.dim)[..., 0], -self.dim * (self.dim - 1))

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        s = self._half_chord(z, y)
        return 4 * s * _smooth.squared_arc_ratio(s, s, -1)

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        s = self._half_chord(z, y)
        return (self.dim - 1) / 2 * (_smooth.squared_arc_ratio(s, s, -1).log() - s.log1p())

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.expmap(z, v), -(self.dim - 1) * _smooth.log_sinhc(self.inner(z, v, v))

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Any) -> Geodesic:
        """Shortest curve, in closed form; of the solver's settings only ``num_segments`` matters."""
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Exact log heat kernel with respect to dM, as :meth:`pyro_riemann.Hyperbolic.log_heat_kernel`."""
        return _heat_kernel.hyperbolic(self._half_chord(z, y), _heat_kernel.as_time(time, z), self.dim)


class Hyperboloid(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the hyperboloid :math:`(z, \sqrt{1 + |z|^2})`, z in R^d.

    :math:`G(z) = I - z z^\top / (1 + |z|^2)`; ``|z| = sinh r`` at distance r from the origin. The chart is
    not conformal, so the Ito drift of Brownian motion does not vanish: it is ``d z / 2``.

    Args:
        dim: dimension d.

    Example:
        >>> from pyro_riemann.manifolds import Hyperboloid
        >>> metric = Hyperboloid(2)
        >>> round(metric.dist(torch.zeros(2), torch.tensor([1.0, 0.0])).item(), 4)  # asinh(1)
        0.8814
    """

    def _height(self, name: str, z: Tensor) -> Tensor:
        return (1 + check_point(name, z, self.dim).square().sum(-1, keepdim=True)).sqrt()

    def metric(self, z: Tensor) -> Tensor:
        slope = z / self._height("z", z)
        return torch.eye(self.dim, dtype=z.dtype, device=z.device) - slope[..., :, None] * slope[..., None, :]

    def logdet(self, z: Tensor) -> Tensor:
        return -check_point("z", z, self.dim).square().sum(-1).log1p()

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (self._root(z, u) * self._root(z, v)).sum(-1)

    def _root(self, z: Tensor, v: Tensor) -> Tensor:
        """Symmetric root of G times v: a length as a sum of squares, never negative far out."""
        height = self._height("z", z)
        return v - z * (z * v).sum(-1, keepdim=True) / (height * (height + 1))

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return -self.inner(z, v, v)[..., None] * z

    def drift(self, z: Tensor) -> Tensor:
        return self.dim / 2 * check_point("z", z, self.dim)

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        v, squared = self._within_range(z, v)
        cosh, sinhc = _smooth.scaled_cosh_sinhc(squared, torch.zeros_like(squared))
        largest = torch.finfo(z.dtype).max ** 0.4  # so that squares stay finite
        return (cosh[..., None] * z + sinhc[..., None] * v).clamp(-largest, largest)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        s = self._half_chord(z, y)
        sinhc = (_smooth.squared_arc_ratio(s, s, -1) / (1 + s)).sqrt()
        return sinhc[..., None] * (y - z - 2 * s[..., None] * z)

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        # in the ball this is |a - b|^2 / ((1 - |a|^2)(1 - |b|^2)), and here 1 - |a|^2 is known to all digits
        first, second = 1 + self._height("z", z), 1 + self._height("y", y)
        return (z / first - y / second).square().sum(-1) * (first * second).squeeze(-1) / 4

    def to_ball(self, z: Tensor) -> Tensor:
        """The same points in the Poincare ball of :class:`pyro_riemann.Hyperbolic`."""
        return z / (1 + self._height("z", z))

    def from_ball(self, x: Tensor) -> Tensor:
        """Points of the Poincare ball in this chart."""
        return 2 * x / (1 - x.square().sum(-1, keepdim=True))


class HalfSpace(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the upper half-space with the logarithm of the height as last coordinate.

    :math:`ds^2 = e^{-2h} |dx|^2 + dh^2` at ``z = (x, h)`` in R^d. The drift of Brownian motion is
    ``-(d - 1) / 2`` in h and 0 in x.

    Args:
        dim: dimension d.

    Example:
        >>> from pyro_riemann.manifolds import HalfSpace
        >>> metric = HalfSpace(3)
        >>> round(metric.dist(torch.zeros(3), torch.tensor([0.0, 0.0, 2.0])).item(), 4)  # straight up
        2.0
    """

    def _split(self, name: str, z: Tensor) -> tuple[Tensor, Tensor]:
        check_point(name, z, self.dim)
        return z[..., :-1], z[..., -1:]

    def metric(self, z: Tensor) -> Tensor:
        x, h = self._split("z", z)
        return torch.diag_embed(torch.cat([torch.exp(-2 * h).expand_as(x), torch.ones_like(h)], dim=-1))

    def logdet(self, z: Tensor) -> Tensor:
        return -2 * (self.dim - 1) * self._split("z", z)[1].squeeze(-1)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        product = u * v
        height = self._split("z", z)[1].squeeze(-1)
        return torch.exp(-2 * height) * product[..., :-1].sum(-1) + product[..., -1]

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        (_, h), (along, up) = self._split("z", z), self._split("v", v)
        lift = torch.exp(-2 * h) * along.square().sum(-1, keepdim=True)
        return torch.cat([-2 * along * up + torch.zeros_like(h), lift + torch.zeros_like(up)], dim=-1)

    def drift(self, z: Tensor) -> Tensor:
        x, h = self._split("z", z)
        return torch.cat([torch.zeros_like(x), torch.full_like(h, -(self.dim - 1) / 2)], dim=-1)

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        v, squared = self._within_range(z, v)
        (x, h), (along, up) = self._split("z", z), self._split("v", v)
        squared = squared[..., None]
        cosh, sinhc = _smooth.scaled_cosh_sinhc(squared, torch.zeros_like(squared))
        # steeply up, cosh - sinhc * up cancels down to exp(-r): there r - up comes from the horizontal part
        steep = up > 0.5
        safe_up = torch.where(steep, up, torch.ones_like(up))
        length = torch.where(steep, squared, torch.ones_like(squared)).sqrt()
        across = torch.exp(-2 * h) * along.square().sum(-1, keepdim=True)
        shrink = torch.where(
            steep, torch.exp(-length) + sinhc * across / (length + safe_up), cosh - sinhc * torch.where(steep, -up, up)
        )
        return torch.cat([x + sinhc * along / shrink, h - shrink.log()], dim=-1)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        s = self._half_chord(z, y)[..., None]
        (x, h), (there, k) = self._split("z", z), self._split("y", y)
        across = (there - x).square().sum(-1, keepdim=True) * torch.exp(-h - k)
        direction = torch.cat([torch.exp(h - k) * (there - x), across / 2 + torch.sinh(k - h)], dim=-1)
        return (_smooth.squared_arc_ratio(s, s, -1) / (1 + s)).sqrt() * direction

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        (x, h), (there, k) = self._split("z", z), self._split("y", y)
        across = (there - x).square().sum(-1, keepdim=True) * torch.exp(-h - k)
        return (across / 4 + torch.sinh((h - k) / 2).square()).squeeze(-1)

    def to_ball(self, z: Tensor) -> Tensor:
        """The same points in the Poincare ball; (0, ..., 0) is its centre."""
        x, h = self._split("z", z)
        height = h.exp()
        base = x.square().sum(-1, keepdim=True) + (height + 1).square()
        return torch.cat([2 * x / base, 2 * (height + 1) / base - 1], dim=-1)

    def from_ball(self, x: Tensor) -> Tensor:
        """Points of the Poincare ball in this chart."""
        # height (1 - |x|^2) / |x + e|^2 rather than the inversion's last entry, which cancels near the boundary
        base = x[..., :-1].square().sum(-1, keepdim=True) + (x[..., -1:] + 1).square()
        height = (1 - x.square().sum(-1, keepdim=True)) / base
        return torch.cat([2 * x[..., :-1] / base, height.log()], dim=-1)
