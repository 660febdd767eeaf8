"""What is known of geodesics from a centre and their Jacobi fields, at the ends of their steps and between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas import ray_rule
from pyro_riemann._interface import Metric


class State(NamedTuple):
    """Where geodesics of unit speed are.

    Attributes:
        point, velocity, acceleration: ``(*batch, d)``.
        field, field_velocity, field_acceleration: ``(*batch, d, d - 1)``, Jacobi fields that start with 0 in the
            directions of an orthonormal frame across the ray. (Along the ray the field is ``r`` times the velocity.)
    """

    point: Tensor
    velocity: Tensor
    acceleration: Tensor
    field: Tensor
    field_velocity: Tensor
    field_acceleration: Tensor


class Rays(NamedTuple):
    """The steps of n rays, without gradient.

    Attributes:
        radius: ``(k + 1, n)``, distances along the ray between which the steps are; no step where it stays the same.
        state: what is known at their ends, each ``(k + 1, n, ...)``.
        end: ``(n,)``: the first conjugate point, or where the integrand has gone.
        lost: ``(n,)``, log of the integrand at the end of a ray that could not be followed further; else -inf.
    """

    radius: Tensor
    state: State
    end: Tensor
    lost: Tensor

    def at(self, step: Tensor, share: Tensor, ray: Tensor | None = None) -> State:
        """State at ``share`` in [0, 1] of step ``step``, of every ray or those with numbers ``ray``; ``(*batch, n)``.

        By quintic interpolation, without accelerations.
        """
        ray = torch.arange(self.radius.shape[1], device=step.device).expand_as(step) if ray is None else ray
        width = self.radius[step + 1, ray] - self.radius[step, ray]
        safe = torch.where(width > 0, width, torch.ones_like(width))
        value = _times_width(ray_rule.quintic(share), width)
        slope = [factor / safe for factor in _times_width(ray_rule.quintic_slope(share), width)]
        start, stop = (State(*(part[step + k, ray] for part in self.state)) for k in (0, 1))
        position, field = (*start[:3], *stop[:3]), (*start[3:], *stop[3:])
        blank, blank_field = torch.zeros_like(start.point), torch.zeros_like(start.field)
        return State(
            *(_blend(value, position), _blend(slope, position), blank),
            *(_blend(value, field), _blend(slope, field), blank_field),
        )

    def take(self, index: Tensor) -> Rays:
        """The rays with these numbers."""
        state = State(*(part[:, index] for part in self.state))
        return Rays(self.radius[:, index], state, self.end[index], self.lost[index])

    def find(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """The step, and the share of it, at which every ray has ``radius``; all ``(*batch, n)``."""
        step = (self.radius[1:-1].unsqueeze(1) < radius.reshape(-1, radius.shape[-1])).sum(0).reshape(radius.shape)
        rays = torch.arange(radius.shape[-1], device=step.device).expand_as(step)
        left, right = self.radius[step, rays], self.radius[step + 1, rays]
        share = (radius - left) / torch.where(right > left, right - left, torch.ones_like(left))
        return step, share.clamp(0, 1)


def log_area(metric: Metric, state: State) -> Tensor:
    r"""Log of :math:`r^{d-1} / V`, the area at that radius of a unit of solid angle; ``(*batch)``."""
    if metric.dim == 1:
        return torch.zeros_like(state.point[..., 0])
    gram = state.field.mT @ metric.metric(state.point) @ state.field
    return 0.5 * torch.linalg.slogdet(gram).logabsdet


def across(factor: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors ``(n, d)`` and orthonormal frames across them, ``(n, d, d - 1)``, in the metric ``L L^T``.

    Args:
        factor: Cholesky factors L, ``(n, d, d)``.
        white: directions, unit vectors of R^d, ``(n, d)``.
    """
    axis = torch.zeros_like(white)
    axis[..., 0] = torch.where(white[..., 0] > 0, -1.0, 1.0).to(white)
    normal = (white - axis).unsqueeze(-1)  # of the mirror that takes the axis to the direction; never short
    unit = torch.eye(white.shape[-1], dtype=white.dtype, device=white.device)
    mirror = unit - 2 * normal @ normal.mT / normal.square().sum(-2, keepdim=True)
    frame = torch.linalg.solve_triangular(factor.mT, torch.cat([white.unsqueeze(-1), mirror[..., 1:]], -1), upper=True)
    return frame[..., 0], frame[..., 1:]


def _times_width(factors: tuple[Tensor, ...], width: Tensor) -> list[Tensor]:
    """Hermite's factors of value, slope and curvature at both ends, for a step of that width."""
    powers = (torch.ones_like(width), width, width**2)
    return [factor * powers[k % 3] for k, factor in enumerate(factors)]


def _blend(factors: list[Tensor], parts: tuple[Tensor, ...]) -> Tensor:
    extra = (1,) * (parts[0].dim() - factors[0].dim())
    return sum(
        (f.reshape(*f.shape, *extra) * p for f, p in zip(factors, parts, strict=True)), torch.zeros_like(parts[0])
    )
