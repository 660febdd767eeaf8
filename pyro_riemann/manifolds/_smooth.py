"""Functions of a squared length that stay smooth at zero.

Distances, exponential maps and Van Vleck determinants of the sphere and of hyperbolic
space depend on lengths only through their squares, analytically. A square root on the
way would turn that into 0/0 in the gradient at coincident points, so near zero each
function is its power series and elsewhere its elementary form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SINC = [1 / math.factorial(2 * n + 1) for n in range(12)]
_COS = [1 / math.factorial(2 * n) for n in range(12)]
_ARC = [0.5 * 4**n / (n * n * math.comb(2 * n, n)) for n in range(1, 15)]


def _horner(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _even(q: Tensor, series: Tensor, direct: Callable[[Tensor], Tensor], threshold: float) -> Tensor:
    """``series`` where q is small, ``direct(sqrt(q))`` elsewhere; neither branch can leak a NaN gradient."""
    small = q < threshold
    return torch.where(small, series, direct(torch.where(small, torch.ones_like(q), q).sqrt()))


def sinc(q: Tensor) -> Tensor:
    """``sin(r) / r`` for ``q = r^2``."""
    return _even(q, _horner(_SINC, -q.clamp(max=1.0)), lambda r: r.sin() / r, 0.5)


def cos(q: Tensor) -> Tensor:
    """``cos(r)`` for ``q = r^2``."""
    return _even(q, _horner(_COS, -q.clamp(max=1.0)), torch.cos, 0.5)


def tanhc(q: Tensor) -> Tensor:
    """``tanh(r) / r`` for ``q = r^2``; never overflows."""
    near = q.clamp(max=1.0)
    return _even(q, _horner(_SINC, near) / _horner(_COS, near), lambda r: r.tanh() / r, 0.5)


def log_sinhc(q: Tensor) -> Tensor:
    """``log(sinh(r) / r)`` for ``q = r^2``; never overflows."""
    series = _horner(_SINC, q.clamp(max=1.0)).log()
    return _even(q, series, lambda r: r + torch.log1p(-torch.exp(-2 * r)) - math.log(2) - r.log(), 0.5)


def scaled_cosh_sinhc(q: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """``exp(log_scale) * cosh(r)`` and ``exp(log_scale) * sinh(r) / r`` for ``q = r^2``, without overflow of cosh."""
    scale, near = log_scale.exp(), q.clamp(max=1.0)

    def pair(r: Tensor) -> tuple[Tensor, Tensor]:
        return torch.exp(log_scale + r) / 2, torch.exp(log_scale - r) / 2

    cosh = _even(q, scale * _horner(_COS, near), lambda r: sum(pair(r), torch.zeros_like(r)), 0.5)
    sinhc = _even(q, scale * _horner(_SINC, near), lambda r: (pair(r)[0] - pair(r)[1]) / r, 0.5)
    return cosh, sinhc


def squared_arc_ratio(s: Tensor, c: Tensor, curvature: int) -> Tensor:
    """``(l / 2)^2 / s`` where ``s`` is ``sin(l/2)^2`` (curvature 1) or ``sinh(l/2)^2`` (curvature -1).

    ``c`` is ``cos(l/2)^2``; handed over since ``1 - s`` has lost it near the antipode.
    ``atan2`` keeps all digits where ``asin`` and ``acos`` lose half of them.
    """
    threshold = 0.02
    near = torch.where(s < threshold, s, torch.zeros_like(s))
    series = _horner(_ARC, curvature * near)
    if curvature < 0:
        return _even(s, series, lambda root: (root.asinh() / root).square(), threshold)
    # at the antipode itself the cosine is 0 and its root has no derivative: it is held fixed there
    tiny = torch.finfo(c.dtype).tiny
    cosine = torch.where((s < threshold) | (c < tiny), torch.ones_like(c), c).sqrt()
    cosine = torch.where(c < tiny, torch.zeros_like(c), cosine)
    return _even(s, series, lambda root: (torch.atan2(root, cosine) / root).square(), threshold)
