"""Exact heat kernels of tensors: sums and integrals run in float64, whatever the input."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import _autodiff
from pyro_riemann._checks import check_positive
from pyro_riemann._formulas import heat_kernel


def as_time(time: float | Tensor, like: Tensor) -> Tensor:
    """``time`` as a tensor like ``like``; raise unless it is positive and finite."""
    return check_positive("time", torch.as_tensor(time, dtype=like.dtype, device=like.device))


def circle(step: Tensor, time: Tensor, period: float | Tensor) -> Tensor:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself)."""
    return heat_kernel.circle(torch, step, time, torch.as_tensor(period, dtype=step.dtype, device=step.device))


def sphere(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``."""
    dtype = s.dtype
    s, c, time = torch.broadcast_tensors(s.double(), c.double(), time.double())
    if dim > 3:
        return _sphere_series(s, time, dim, _series_degree(time, dim)).to(dtype)
    soon = time.clamp(max=1.0)
    if dim == 2:
        with torch.no_grad():
            end = heat_kernel.sphere_two_end(torch, s, c, soon)
        short = heat_kernel.sphere_two(torch, s, c, soon, end)
    else:
        short = heat_kernel.sphere_three(torch, s, c, soon)
    return torch.where(time < 1, short, _sphere_series(s, time.clamp(min=1.0), dim, 12)).to(dtype)


def _sphere_series(s: Tensor, time: Tensor, dim: int, degree: int) -> Tensor:
    """Sum over spherical harmonics, by Gegenbauer polynomials in ``1 - 2 s``."""
    x = 1 - 2 * s
    state = heat_kernel.sphere_series_start(torch, x, time, dim)
    for n in range(1, degree + 1):
        state = heat_kernel.sphere_series_step(torch, state, n, x, time, dim)
    return heat_kernel.sphere_series_end(torch, state, dim)


def _series_degree(time: Tensor, dim: int) -> int:
    """Degree that suffices for the shortest time; a fixed one under ``torch.jit.trace``."""
    return 128 if torch.jit.is_tracing() else heat_kernel.sphere_series_degree(float(time.detach().min()), dim)


def hyperbolic(s: Tensor, time: Tensor, dim: int) -> Tensor:
    """Heat kernel of H^d at ``s = sinh(l/2)^2``."""
    dtype = s.dtype
    s, time = torch.broadcast_tensors(s.double(), time.double())
    if dim % 2 == 1:
        value = heat_kernel.hyperbolic_odd(torch, s, time, dim, _autodiff.directional)
    else:
        with torch.no_grad():
            end = heat_kernel.hyperbolic_even_end(torch, s, time)
        value = heat_kernel.hyperbolic_even(torch, s, time, end, dim, _autodiff.directional)
    return value.to(dtype)
