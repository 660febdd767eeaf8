"""Exact heat kernels, as functions of distance and time.

Log densities with respect to the Riemannian measure; the generator is half the Laplace-Beltrami
operator, so time is variance. The compact manifolds have two forms: one that converges fast, with
all digits of the logarithm, at small times (images, integrals), and an eigenfunction series
for large times. ``s``, ``c`` (see ``space_form``) and ``time`` have been broadcast to one shape. Where an
integral ends, ``end``, is a matter of accuracy and not of the value: callers compute it apart and do not
differentiate it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pyro_riemann._formulas import Array, Namespace, smooth, table

Directional = Callable[[Callable[[Array], Array], Array, Array], tuple[Array, Array]]


def circle(xp: Namespace, step: Array, time: Array, period: Array) -> Array:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself).

    Nine images or four harmonics, whichever converges: both are exact to 1e-15 at the switch.
    """
    finite = xp.isfinite(period)
    frequency = 2 * math.pi / xp.where(finite, period, xp.ones_like(period))
    turn = step * frequency
    turn = turn - 2 * math.pi * xp.round(turn / (2 * math.pi))
    variance = time * xp.square(frequency)
    spread = xp.clip(variance, max=2 * math.pi)
    shift = 2 * math.pi * table(xp, range(-4, 5), step)
    # relative to the nearest image, so that no exponent is positive
    images = xp.sum(xp.exp(-shift * (shift + 2 * turn[..., None]) / (2 * spread[..., None])), -1)
    images = xp.log(images) - xp.square(turn) / (2 * spread) - 0.5 * xp.log(2 * math.pi * spread)
    order = table(xp, range(1, 5), step)
    decay = xp.exp(-xp.square(order) * xp.clip(variance, min=2 * math.pi)[..., None] / 2)
    harmonics = xp.log1p(2 * xp.sum(decay * xp.cos(order * turn[..., None]), -1)) - math.log(2 * math.pi)
    wrapped = xp.where(variance < 2 * math.pi, images, harmonics) + xp.log(frequency)
    normal = -xp.square(step) / (2 * time) - 0.5 * xp.log(2 * math.pi * time)
    return xp.where(finite, wrapped, normal)


# ---------------------------------------------------------------- sphere


def sphere_series_start(xp: Namespace, x: Array, time: Array, dim: int) -> tuple[Array, Array, Array]:
    """State before the first of the spherical harmonics at cosine ``x``: two Gegenbauer polynomials and the sum."""
    return xp.ones_like(x), (dim - 1) * x, xp.ones_like(x * time)


def sphere_series_step(
    xp: Namespace, state: tuple[Array, Array, Array], n: Any, x: Array, time: Array, dim: int
) -> tuple[Array, Array, Array]:
    """State after the harmonics of degree ``n = 1, 2, ...``"""
    index, (previous, current, total) = (dim - 1) / 2, state
    total = total + (n + index) / index * current * xp.exp(-n * (n + dim - 1) * time / 2)
    return current, (2 * (n + index) * x * current - (n + 2 * index - 1) * previous) / (n + 1), total


def sphere_series_end(xp: Namespace, state: tuple[Array, Array, Array], dim: int) -> Array:
    """Log heat kernel of S^d, d >= 2, from the state after enough degrees."""
    log_volume = math.log(2) + (dim + 1) / 2 * math.log(math.pi) - math.lgamma((dim + 1) / 2)
    # rounding may leave a tail below 1e-15 of the peak negative
    return xp.log(xp.clip(state[2], min=xp.finfo(state[2].dtype).tiny)) - log_volume


def sphere_series_degree(shortest: float, dim: int) -> int:
    """Degree at which the terms at s = 0 fall below 1e-17 for all times from ``shortest`` on."""
    degree = 4
    while degree < 4000 and degree * (degree + dim - 1) * shortest / 2 < 40 + dim * math.log(degree + dim):
        degree += 1 + degree // 8
    return degree


def sphere_two_end(xp: Namespace, s: Array, c: Array, time: Array) -> Array:
    """Where the integrand of :func:`sphere_two` has fallen to exp(-50), or its last angle."""
    far = xp.clip(xp.sqrt(4 * s * smooth.squared_arc_ratio(xp, s, c, 1) + 100 * time), max=math.pi)
    ratio = xp.cos(far / 2) / xp.clip(xp.sqrt(c), min=1e-30)
    return xp.where(far < math.pi, xp.acos(xp.clip(ratio, min=0.0, max=1.0)), xp.full_like(far, math.pi / 2))


def sphere_two(xp: Namespace, s: Array, c: Array, time: Array, end: Array) -> Array:
    r"""S^2 at small times: the spherical form of McKean's integral.

    :math:`p = 2 e^{t/8} (2\pi t)^{-3/2} \int_0^{\pi/2} \sum_k (-1)^k (a + 2\pi k) e^{-(a + 2\pi k)^2/2t}
    / \sin(a/2)\, d\phi` with :math:`\cos(a/2) = \cos(l/2) \cos\phi`, smooth and without singularity.
    """
    squared = 4 * s * smooth.squared_arc_ratio(xp, s, c, 1)
    nodes, weights = _gauss_legendre(xp, 64, s)
    phi = end[..., None] * nodes
    # sin(a/2)^2 and cos(a/2)^2 as functions of s and c, without cancellation
    c_there = c[..., None] * xp.square(xp.cos(phi))
    s_there = s[..., None] + c[..., None] * xp.square(xp.sin(phi))
    ratio = smooth.squared_arc_ratio(xp, s_there, c_there, 1)
    angle_squared, time_there = 4 * s_there * ratio, time[..., None]
    total = xp.exp(-(angle_squared - squared[..., None]) / (2 * time_there))
    for k in (1, 2):  # images in pairs: even functions of the angle over the angle
        turn = 2 * math.pi * k
        cosh, sinhc = smooth.scaled_cosh_sinhc(
            xp,
            angle_squared * xp.square(turn / time_there),
            -(angle_squared - squared[..., None] + turn**2) / (2 * time_there),
        )
        total = total + 2 * (-1) ** k * (cosh - turn**2 / time_there * sinhc)
    integral = end * xp.sum(weights * total * 2 * xp.sqrt(ratio), -1)
    return math.log(2) + time / 8 - 1.5 * xp.log(2 * math.pi * time) - squared / (2 * time) + xp.log(integral)


def sphere_three(xp: Namespace, s: Array, c: Array, time: Array) -> Array:
    r"""S^3: :math:`e^{t/2} (2\pi t)^{-3/2} \sum_k (l + 2\pi k) e^{-(l + 2\pi k)^2 / 2t} / \sin l`.

    Summed around l = 0 or around l = pi, so that the 0/0 of either pole is resolved exactly.
    """
    arc, gap = smooth.squared_arc_ratio(xp, s, c, 1), smooth.squared_arc_ratio(xp, c, s, 1)
    squared, complement = 4 * s * arc, 4 * c * gap
    near = xp.ones_like(s)
    for k in (1, 2):
        turn = 2 * math.pi * k
        cosh, sinhc = smooth.scaled_cosh_sinhc(xp, squared * xp.square(turn / time), -(turn**2) / (2 * time))
        near = near + 2 * (cosh - turn**2 / time * sinhc)
    tiny = xp.finfo(s.dtype).tiny
    far = xp.zeros_like(s)
    for k in (0, 1, 2):
        turn = (2 * k + 1) * math.pi
        cosh, sinhc = smooth.scaled_cosh_sinhc(
            xp, complement * xp.square(turn / time), -(turn**2 + complement - squared) / (2 * time)
        )
        far = far + 2 * (turn**2 / time * sinhc - cosh)
    is_near, one = s < 0.5, xp.ones_like(s)
    value = xp.log(xp.where(is_near, near, one))
    value = value + 0.5 * xp.log(arc / xp.clip(xp.where(is_near, c, one), min=tiny))
    other = xp.log(xp.where(is_near, one, far)) + 0.5 * xp.log(gap / xp.where(is_near, one, s))
    return time / 2 - 1.5 * xp.log(2 * math.pi * time) - squared / (2 * time) + xp.where(is_near, value, other)


# ---------------------------------------------------------------- hyperbolic space


def hyperbolic_odd(xp: Namespace, s: Array, time: Array, dim: int, directional: Directional) -> Array:
    """H^d, d odd, in closed form.

    Two dimensions more are one derivative: ``p_{d+2} = -exp(-d t/2) / (4 pi) dp_d / ds``; odd d starts from the
    normal density on the line. ``directional(function, s, v)`` is the value and the derivative of a function.
    """
    amplitude = _descend(xp, xp.ones_like, time, 1, (dim - 1) // 2, directional)(s)
    squared = 4 * s * smooth.squared_arc_ratio(xp, s, s, -1)
    return xp.log(amplitude) - 0.5 * xp.log(2 * math.pi * time) - squared / (2 * time)


def hyperbolic_even_end(xp: Namespace, s: Array, time: Array) -> Array:
    """Where the integrand of :func:`hyperbolic_even` has fallen to exp(-60)."""
    squared = 4 * s * smooth.squared_arc_ratio(xp, s, s, -1)
    start, far = xp.sqrt(squared), xp.sqrt(squared + 120 * time)
    return xp.acosh(xp.exp((far - start) / 2) * (1 + xp.exp(-far)) / (1 + xp.exp(-start)))


def hyperbolic_even(xp: Namespace, s: Array, time: Array, end: Array, dim: int, directional: Directional) -> Array:
    """H^d, d even, by McKean's integral and as many derivatives as in :func:`hyperbolic_odd`."""
    squared = 4 * s * smooth.squared_arc_ratio(xp, s, s, -1)
    nodes, weights = _gauss_legendre(xp, 96, s)
    phi = end[..., None] * nodes
    s_there = s[..., None] * xp.square(xp.cosh(phi)) + xp.square(xp.sinh(phi))
    steps, time_there = (dim - 2) // 2, xp.broadcast_to(time[..., None], s_there.shape)

    def mckean(s: Array) -> Array:
        """``a / sinh(a/2)`` at ``s = sinh(a/2)^2``."""
        return 2 * xp.sqrt(smooth.squared_arc_ratio(xp, s, s, -1))

    amplitude = _descend(xp, mckean, time_there, 2, steps, directional)(s_there) * xp.cosh(phi) ** (2 * steps)
    excess = 4 * s_there * smooth.squared_arc_ratio(xp, s_there, s_there, -1) - squared[..., None]
    integral = end * xp.sum(weights * amplitude * xp.exp(-excess / (2 * time_there)), -1)
    log_scale = math.log(2) - time / 8 - 1.5 * xp.log(2 * math.pi * time) - squared / (2 * time)
    return log_scale + xp.log(integral)


def _descend(
    xp: Namespace,
    amplitude: Callable[[Array], Array],
    time: Array,
    dim: int,
    steps: int,
    directional: Directional,
) -> Callable[[Array], Array]:
    """Amplitude A of ``A(s) exp(-l^2 / 2t)`` after ``steps`` steps from dimension ``dim`` to ``dim + 2``."""
    if steps == 0:
        return amplitude
    before = _descend(xp, amplitude, time, dim, steps - 1, directional)
    decay = xp.exp(-(dim + 2 * (steps - 1)) * time / 2) / (4 * math.pi)

    def after(s: Array) -> Array:
        value, slope = directional(before, s, xp.ones_like(s))
        # d(l^2)/ds = 4 l / sinh l
        squared_slope = 4 * xp.sqrt(smooth.squared_arc_ratio(xp, s, s, -1) / (1 + s))
        return decay * (squared_slope / (2 * time) * value - slope)

    return after


def _gauss_legendre(xp: Namespace, count: int, like: Array) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = _nodes_and_weights(count)
    return table(xp, nodes, like), table(xp, weights, like)


@cache
def _nodes_and_weights(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
