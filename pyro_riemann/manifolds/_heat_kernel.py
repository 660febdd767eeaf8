"""Exact heat kernels of tensors: sums and integrals run in float64, whatever the input."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import check_positive, holds
from pyro_riemann._formulas import heat_kernel, space_form
from pyro_riemann.manifolds import _near_sphere as near_sphere


def as_time(time: float | Tensor, like: Tensor) -> Tensor:
    """``time`` as a tensor like ``like``; raise unless it is positive and finite."""
    return check_positive("time", torch.as_tensor(time, dtype=like.dtype, device=like.device))


def circle(step: Tensor, time: Tensor, period: float | Tensor) -> Tensor:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself)."""
    return heat_kernel.circle(torch, step, time, torch.as_tensor(period, dtype=step.dtype, device=step.device))


def sphere(s: Tensor, c: Tensor, time: float | Tensor, dim: int) -> Tensor:
    """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``, both in float64.

    Near pairs at small times, where a mixture of kernels has nearly all of its pairs, come from a table of the smooth
    part of the logarithm, a hundred times cheaper than the contour integral it is made from.
    """
    s, c, duration = torch.broadcast_tensors(s, c, as_time(time, s))
    _check_digits(space_form.squared_dist(torch, s, c, 1), duration, dim)
    shape, s, c, duration = s.shape, s.reshape(-1), c.reshape(-1), duration.reshape(-1)
    far, late = near_sphere.outside(s, duration, dim), duration >= heat_kernel.sphere_switch(dim)
    value = near_sphere.log_kernel(s, c, duration, dim)
    for where, kernel in ((far & ~late, _sphere_contour), (late, _sphere_series)):
        try:
            picked = where.nonzero().squeeze(-1)
        except RuntimeError:  # torch.vmap cannot pick: the kernel is computed everywhere
            value = torch.where(where, kernel(s, c, duration, dim), value)
            continue
        if picked.numel() or torch.jit.is_tracing():
            value = value.index_put((picked,), kernel(s[picked], c[picked], duration[picked], dim))
    return value.reshape(shape)


def _sphere_contour(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    """The contour integral, up to the time of the switch."""
    return heat_kernel.sphere(torch, s, c, time.clamp(max=heat_kernel.sphere_switch(dim)), dim)


def _sphere_series(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    """Sum over spherical harmonics, by Gegenbauer polynomials in ``1 - 2 s``; from the time of the switch on."""
    x, time = 1 - 2 * s, time.clamp(min=heat_kernel.sphere_switch(dim))
    state = heat_kernel.sphere_series_start(torch, x, time, dim)
    for n in range(1, heat_kernel.sphere_series_degree(dim) + 1):
        state = heat_kernel.sphere_series_step(torch, state, n, x, time, dim)
    return heat_kernel.sphere_series_end(torch, state, dim)


def hyperbolic(s: Tensor, time: float | Tensor, dim: int) -> Tensor:
    """Heat kernel of H^d at ``s = sinh(l/2)^2``, in float64."""
    s, duration = torch.broadcast_tensors(s, as_time(time, s))
    if not holds(torch.isfinite(s)):
        raise ValueError(heat_kernel.too_far("float64"))
    _check_digits(space_form.squared_dist(torch, s, 1 + s, -1), duration, dim)
    if dim % 2 == 1:
        return heat_kernel.hyperbolic_odd(torch, s, duration, dim)
    with torch.no_grad():
        end = heat_kernel.hyperbolic_even_end(torch, s, duration, dim)
    return heat_kernel.hyperbolic_even(torch, s, duration, end, dim)


def _check_digits(squared: Tensor, time: Tensor, dim: int) -> None:
    exponent = squared.detach() / (2 * time.detach())
    if not holds(exponent * torch.finfo(exponent.dtype).eps < heat_kernel.LARGEST_ERROR):
        worst = int(exponent.argmax())
        values = time.flatten()[worst].item(), squared.flatten()[worst].item() ** 0.5, exponent.flatten()[worst].item()
        raise ValueError(heat_kernel.no_digits(dim, *values, "float64"))
