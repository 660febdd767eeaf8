"""Exact heat kernels, as functions of distance and time.

Log densities with respect to the Riemannian measure; the generator is half the Laplace-Beltrami
operator, so time is variance. The compact manifolds have two forms: one that converges fast, with
all digits of the logarithm, at small times (images, integrals), and an eigenfunction series
for large times. Sums and integrals run in float64, whatever the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyro_riemann import _autodiff
from pyro_riemann._checks import check_positive
from pyro_riemann.manifolds import _smooth


def as_time(time: float | Tensor, like: Tensor) -> Tensor:
    """``time`` as a tensor like ``like``; raise unless it is positive and finite."""
    return check_positive("time", torch.as_tensor(time, dtype=like.dtype, device=like.device))


def circle(step: Tensor, time: Tensor, period: float | Tensor) -> Tensor:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself).

    Nine images or four harmonics, whichever converges: both are exact to 1e-15 at the switch.
    """
    period = torch.as_tensor(period, dtype=step.dtype, device=step.device)
    finite = torch.isfinite(period)
    frequency = 2 * math.pi / torch.where(finite, period, torch.ones_like(period))
    turn = step * frequency
    turn = turn - 2 * math.pi * (turn / (2 * math.pi)).round()
    variance = time * frequency.square()
    order = torch.arange(-4, 5, dtype=step.dtype, device=step.device)
    spread = variance.clamp(max=2 * math.pi)[..., None]
    images = torch.logsumexp(-(turn[..., None] + 2 * math.pi * order).square() / (2 * spread), -1)
    images = images - 0.5 * (2 * math.pi * spread.squeeze(-1)).log()
    order = torch.arange(1, 5, dtype=step.dtype, device=step.device)
    decay = torch.exp(-order.square() * variance.clamp(min=2 * math.pi)[..., None] / 2)
    harmonics = torch.log1p(2 * (decay * torch.cos(order * turn[..., None])).sum(-1)) - math.log(2 * math.pi)
    wrapped = torch.where(variance < 2 * math.pi, images, harmonics) + frequency.log()
    normal = -step.square() / (2 * time) - 0.5 * (2 * math.pi * time).log()
    return torch.where(finite, wrapped, normal)


# ---------------------------------------------------------------- sphere


def sphere(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``."""
    dtype = s.dtype
    s, c, time = s.double(), c.double(), time.double()
    if dim > 3:
        return _sphere_series(s, time, dim, _series_degree(time, dim)).to(dtype)
    short = {2: _sphere_two, 3: _sphere_three}[dim](s, c, time.clamp(max=1.0))
    return torch.where(time < 1, short, _sphere_series(s, time.clamp(min=1.0), dim, 12)).to(dtype)


def _sphere_series(s: Tensor, time: Tensor, dim: int, degree: int) -> Tensor:
    """Sum over spherical harmonics, by Gegenbauer polynomials in ``1 - 2 s``."""
    index, x = (dim - 1) / 2, 1 - 2 * s
    log_volume = math.log(2) + (dim + 1) / 2 * math.log(math.pi) - math.lgamma((dim + 1) / 2)
    previous, current = torch.ones_like(x), 2 * index * x
    total = torch.ones_like(x * time)
    for n in range(1, degree + 1):
        total = total + (n + index) / index * current * torch.exp(-n * (n + dim - 1) * time / 2)
        following = (2 * (n + index) * x * current - (n + 2 * index - 1) * previous) / (n + 1)
        previous, current = current, following
    # rounding may leave a tail below 1e-15 of the peak negative
    return total.clamp(min=torch.finfo(total.dtype).tiny).log() - log_volume


def _series_degree(time: Tensor, dim: int) -> int:
    """Degree at which the terms at s = 0 fall below 1e-17; a fixed one under ``torch.jit.trace``."""
    if torch.jit.is_tracing():
        return 128
    shortest = float(time.detach().min())
    degree = 4
    while degree < 4000 and degree * (degree + dim - 1) * shortest / 2 < 40 + dim * math.log(degree + dim):
        degree += 1 + degree // 8
    return degree


def _sphere_two(s: Tensor, c: Tensor, time: Tensor) -> Tensor:
    r"""S^2 at small times: the spherical form of McKean's integral.

    :math:`p = 2 e^{t/8} (2\pi t)^{-3/2} \int_0^{\pi/2} \sum_k (-1)^k (a + 2\pi k) e^{-(a + 2\pi k)^2/2t}
    / \sin(a/2)\, d\phi` with :math:`\cos(a/2) = \cos(l/2) \cos\phi`, smooth and without singularity.
    """
    s, c, time = torch.broadcast_tensors(s, c, time)
    squared = 4 * s * _smooth.squared_arc_ratio(s, c, 1)
    with torch.no_grad():  # where the integrand has fallen to exp(-50), or the end
        far = (squared + 100 * time).sqrt().clamp(max=math.pi)
        ratio = torch.cos(far / 2) / c.sqrt().clamp(min=1e-30)
        end = torch.where(far < math.pi, ratio.clamp(0, 1).acos(), torch.full_like(far, math.pi / 2))
    nodes, weights = _gauss_legendre(64, s)
    phi = end[..., None] * nodes
    # sin(a/2)^2 and cos(a/2)^2 as functions of s and c, without cancellation
    c_there = c[..., None] * phi.cos().square()
    s_there = s[..., None] + c[..., None] * phi.sin().square()
    ratio = _smooth.squared_arc_ratio(s_there, c_there, 1)
    angle_squared, time_there = 4 * s_there * ratio, time[..., None]
    total = torch.exp(-(angle_squared - squared[..., None]) / (2 * time_there))
    for k in (1, 2):  # images in pairs: even functions of the angle over the angle
        turn = 2 * math.pi * k
        cosh, sinhc = _smooth.scaled_cosh_sinhc(
            angle_squared * (turn / time_there).square(),
            -(angle_squared - squared[..., None] + turn**2) / (2 * time_there),
        )
        total = total + 2 * (-1) ** k * (cosh - turn**2 / time_there * sinhc)
    integral = end * (weights * total * 2 * ratio.sqrt()).sum(-1)
    return math.log(2) + time / 8 - 1.5 * (2 * math.pi * time).log() - squared / (2 * time) + integral.log()


def _sphere_three(s: Tensor, c: Tensor, time: Tensor) -> Tensor:
    r"""S^3: :math:`e^{t/2} (2\pi t)^{-3/2} \sum_k (l + 2\pi k) e^{-(l + 2\pi k)^2 / 2t} / \sin l`.

    Summed around l = 0 or around l = pi, so that the 0/0 of either pole is resolved exactly.
    """
    s, c, time = torch.broadcast_tensors(s, c, time)
    arc, gap = _smooth.squared_arc_ratio(s, c, 1), _smooth.squared_arc_ratio(c, s, 1)
    squared, complement = 4 * s * arc, 4 * c * gap
    near = torch.ones_like(s)
    for k in (1, 2):
        turn = 2 * math.pi * k
        cosh, sinhc = _smooth.scaled_cosh_sinhc(squared * (turn / time).square(), -(turn**2) / (2 * time))
        near = near + 2 * (cosh - turn**2 / time * sinhc)
    tiny = torch.finfo(s.dtype).tiny
    far = torch.zeros_like(s)
    for k in (0, 1, 2):
        turn = (2 * k + 1) * math.pi
        cosh, sinhc = _smooth.scaled_cosh_sinhc(
            complement * (turn / time).square(), -(turn**2 + complement - squared) / (2 * time)
        )
        far = far + 2 * (turn**2 / time * sinhc - cosh)
    is_near = s < 0.5
    one = torch.ones_like(s)
    value = torch.where(is_near, near, one).log() + 0.5 * (arc / torch.where(is_near, c, one).clamp(min=tiny)).log()
    other = torch.where(is_near, one, far).log() + 0.5 * (gap / torch.where(is_near, one, s)).log()
    return time / 2 - 1.5 * (2 * math.pi * time).log() - squared / (2 * time) + torch.where(is_near, value, other)


# ---------------------------------------------------------------- hyperbolic space


def hyperbolic(s: Tensor, time: Tensor, dim: int) -> Tensor:
    """Heat kernel of H^d at ``s = sinh(l/2)^2``.

    Two dimensions more are one derivative: ``p_{d+2} = -exp(-d t/2) / (4 pi) dp_d / ds``; odd d starts from the
    normal density on the line, even d from the integrand of McKean's formula.
    """
    dtype = s.dtype
    s, time = torch.broadcast_tensors(s.double(), time.double())
    squared = 4 * s * _smooth.squared_arc_ratio(s, s, -1)
    if dim % 2 == 1:
        amplitude = _descend(torch.ones_like, time, 1, (dim - 1) // 2)(s)
        return (amplitude.log() - 0.5 * (2 * math.pi * time).log() - squared / (2 * time)).to(dtype)
    with torch.no_grad():  # where the integrand has fallen to exp(-60)
        start, far = squared.sqrt(), (squared + 120 * time).sqrt()
        cosh = torch.exp((far - start) / 2) * (1 + torch.exp(-far)) / (1 + torch.exp(-start))
        end = cosh.acosh()
    nodes, weights = _gauss_legendre(96, s)
    phi = end[..., None] * nodes
    s_there = s[..., None] * phi.cosh().square() + phi.sinh().square()
    steps, time_there = (dim - 2) // 2, time[..., None].expand_as(s_there)
    amplitude = _descend(_mckean, time_there, 2, steps)(s_there) * phi.cosh() ** (2 * steps)
    excess = 4 * s_there * _smooth.squared_arc_ratio(s_there, s_there, -1) - squared[..., None]
    integral = end * (weights * amplitude * torch.exp(-excess / (2 * time_there))).sum(-1)
    log_scale = math.log(2) - time / 8 - 1.5 * (2 * math.pi * time).log() - squared / (2 * time)
    return (log_scale + integral.log()).to(dtype)


def _mckean(s: Tensor) -> Tensor:
    """``a / sinh(a/2)`` at ``s = sinh(a/2)^2``."""
    return 2 * _smooth.squared_arc_ratio(s, s, -1).sqrt()


def _descend(amplitude: Callable[[Tensor], Tensor], time: Tensor, dim: int, steps: int) -> Callable[[Tensor], Tensor]:
    """Amplitude A of ``A(s) exp(-l^2 / 2t)`` after ``steps`` steps from dimension ``dim`` to ``dim + 2``."""
    if steps == 0:
        return amplitude
    before = _descend(amplitude, time, dim, steps - 1)
    decay = torch.exp(-(dim + 2 * (steps - 1)) * time / 2) / (4 * math.pi)

    def after(s: Tensor) -> Tensor:
        value, slope = _autodiff.directional(before, s, torch.ones_like(s))
        # d(l^2)/ds = 4 l / sinh l
        squared_slope = 4 * (_smooth.squared_arc_ratio(s, s, -1) / (1 + s)).sqrt()
        return decay * (squared_slope / (2 * time) * value - slope)

    return after


def _gauss_legendre(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.as_tensor((nodes + 1) / 2).to(like), torch.as_tensor(weights / 2).to(like)
