"""What the sphere and hyperbolic space share: conformal charts of constant curvature +1 and -1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._checks import check_point
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.manifolds import _smooth
from pyro_riemann.metrics import RiemannianMetric


class SpaceForm(RiemannianMetric):
    r"""The metric :math:`4 |dz|^2 / (1 + K |z|^2)^2`, of curvature K = 1 or -1, with its closed forms.

    Everything rests on ``s``, the squared half chord :math:`|z-y|^2 / ((1+K|z|^2)(1+K|y|^2))`, which is
    :math:`\sin^2(l/2)` on the sphere and :math:`\sinh^2(l/2)` in hyperbolic space, and on ``c``, the
    squared cosine of the same half angle.
    """

    curvature: int

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"

    # ---------------------------------------------------------------- the metric and its derivatives

    def _denominator(self, name: str, z: Tensor) -> Tensor:
        """``1 + K |z|^2``, shape ``(*batch)``; also the check that ``z`` is in the chart."""
        check_point(name, z, self.dim)
        return 1 + self.curvature * z.square().sum(-1)

    def _conformal_factor(self, z: Tensor) -> Tensor:
        return 2 / self._denominator("z", z)

    def metric(self, z: Tensor) -> Tensor:
        return self._conformal_factor(z).square()[..., None, None] * _eye(self.dim, z)

    def cholesky(self, z: Tensor) -> Tensor:
        return self._conformal_factor(z)[..., None, None] * _eye(self.dim, z)

    def logdet(self, z: Tensor) -> Tensor:
        return 2 * self.dim * (math.log(2) - self._denominator("z", z).log())

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._conformal_factor(z).square() * (u * v).sum(-1)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        factor = self._conformal_factor(z)[..., None, None]
        metric = factor.square() * _eye(self.dim, z)
        log_slope = -self.curvature * factor[..., None] * z[..., None, None, :]
        return metric, 2 * metric[..., None] * log_slope

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        factor = self._conformal_factor(z)[..., None]
        along, squared = (z * v).sum(-1, keepdim=True), v.square().sum(-1, keepdim=True)
        return self.curvature * factor * (squared * z - 2 * along * v)

    def drift(self, z: Tensor) -> Tensor:
        return -self.curvature * (self.dim - 2) / 4 * self._denominator("z", z)[..., None] * z

    def scalar_curvature(self, z: Tensor) -> Tensor:
        check_point("z", z, self.dim)
        return torch.full_like(z[..., 0], self.curvature * self.dim * (self.dim - 1))

    # ---------------------------------------------------------------- geodesics

    def _half_angle(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``s``, ``c`` and ``(l / 2)^2 / s``."""
        first, second = self._denominator("z", z), self._denominator("y", y)
        s = (y - z).square().sum(-1) / first / second
        if self.curvature < 0:
            c = 1 + s
        else:  # half the sum of the embedded points: exact to rounding at the antipode, where 1 - s is not
            middle = z / first[..., None] + y / second[..., None]
            c = middle.square().sum(-1) + (1 - 1 / first - 1 / second).square()
        return s, c, _smooth.squared_arc_ratio(s, c, self.curvature)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        s, _, ratio = self._half_angle(z, y)
        return 4 * s * ratio

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        s, c, ratio = self._half_angle(z, y)
        step, here = y - z, self._denominator("z", z)
        direction = here[..., None] * step + self.curvature * step.square().sum(-1, keepdim=True) * z
        velocity = direction * (_over(ratio, c).sqrt() / self._denominator("y", y))[..., None]
        if self.curvature < 0:
            return velocity
        # towards the antipode the direction shrinks to rounding error: there, scale it to the known length
        far, squared = s > 0.5, direction.square().sum(-1)
        lost = far & (squared == 0)  # exactly antipodal: every direction leads there, the first axis is taken
        direction = torch.where(lost[..., None], _eye(self.dim, z)[0].expand_as(direction), direction)
        squared, one = torch.where(lost, torch.ones_like(s), squared), torch.ones_like(s)
        length = here * (torch.where(far, s * ratio, one) / torch.where(far, squared, one)).sqrt()
        return torch.where(far[..., None], length[..., None] * direction, velocity)

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        _, c, ratio = self._half_angle(z, y)
        return (self.dim - 1) / 2 * _over(ratio, c).log()

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Any) -> Geodesic:
        """Shortest curve, in closed form; of the solver's settings only ``num_segments`` matters."""
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)

    def _shoot(self, z: Tensor, v: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Moebius translation of ``tan(r/2) v / |v|`` to z; ``cosine`` is cos(r/2) and ``sine`` is sin(r/2) / |v|."""
        leap, cosine = sine[..., None] * v, cosine[..., None]
        squared = leap.square().sum(-1, keepdim=True)
        below = cosine.square() - 2 * self.curvature * cosine * (z * leap).sum(-1, keepdim=True)
        below = below + z.square().sum(-1, keepdim=True) * squared
        # zero only where rounding decides: at the sphere's missing pole, and between far ends of the ball
        below = below.clamp(min=torch.finfo(z.dtype).eps ** 2)
        return z + self._denominator("z", z)[..., None] * (cosine * leap - self.curvature * squared * z) / below


def _eye(dim: int, like: Tensor) -> Tensor:
    return torch.eye(dim, dtype=like.dtype, device=like.device)


def _over(ratio: Tensor, c: Tensor) -> Tensor:
    """``ratio / c``, large but finite where c is 0 (the antipode)."""
    return ratio / c.clamp(min=torch.finfo(c.dtype).tiny)
