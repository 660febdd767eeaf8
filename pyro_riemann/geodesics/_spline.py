"""Clamped cubic B-splines on [0, 1]: the curves of the geodesic solver."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.splines import basis

__all__ = ["basis", "gauss_rule", "line", "uniform_basis"]


@lru_cache(maxsize=64)
def _uniform_basis(num_knots: int, num_segments: int) -> Tensor:
    return torch.from_numpy(splines.uniform_basis(num_knots, num_segments))


def uniform_basis(num_knots: int, num_segments: int, like: Tensor) -> Tensor:
    """Basis at ``num_segments + 1`` equally spaced times, ``(N + 1, num_knots + 3)``."""
    return _uniform_basis(num_knots, num_segments).to(like)


@lru_cache(maxsize=64)
def _gauss_rule(num_knots: int, num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
    weights, values, slopes = splines.gauss_rule(num_knots, num_segments)
    return torch.from_numpy(weights), torch.from_numpy(values), torch.from_numpy(slopes)


def gauss_rule(num_knots: int, num_segments: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre weights ``(Q,)`` with the basis and its derivative ``(Q, num_knots + 3)`` at the nodes.

    At least ``num_segments`` nodes, the same number in each knot interval.
    """
    weights, values, slopes = _gauss_rule(num_knots, num_segments)
    return weights.to(like), values.to(like), slopes.to(like)


def line(num_knots: int, z: Tensor, y: Tensor) -> Tensor:
    """Control points of the straight line from ``z`` to ``y``: ``(P, d) -> (P, num_knots + 3, d)``."""
    t = torch.from_numpy(splines.greville(num_knots)).to(z)[:, None]
    return z.unsqueeze(-2) * (1 - t) + y.unsqueeze(-2) * t
