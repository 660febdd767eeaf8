"""Exact heat kernels of tensors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_riemann import _calculus
from pyro_riemann._formulas import exact_kernels, heat_kernel
from pyro_riemann._formulas.calculus import Calculus
from pyro_riemann.manifolds import _near_sphere as near_sphere


class ExactKernels(exact_kernels.ExactKernels):
    """In float64, whatever the input.

    Near pairs on the sphere at small times, where a mixture of kernels has nearly all of its pairs, come from a table
    of the smooth part of the logarithm, a hundred times cheaper than the contour integral it is made from.
    """

    face: ClassVar[Calculus] = _calculus

    def _sphere(self, s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
        shape, s, c, time = s.shape, s.reshape(-1), c.reshape(-1), time.reshape(-1)
        far, late = near_sphere.outside(s, time, dim), time >= heat_kernel.sphere_switch(dim)
        value = near_sphere.log_kernel(s, c, time, dim)
        for where, kernel in ((far & ~late, _sphere_contour), (late, _sphere_series)):
            try:
                picked = where.nonzero().squeeze(-1)
            except RuntimeError:  # torch.vmap cannot pick: the kernel is computed everywhere
                value = torch.where(where, kernel(s, c, time, dim), value)
                continue
            if picked.numel() or torch.jit.is_tracing():
                value = value.index_put((picked,), kernel(s[picked], c[picked], time[picked], dim))
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
