r"""Gaussians of a tangent space folded onto the sphere: the sum over all geodesics that arrive at a point.

On the unit sphere S^d the tangent vectors at ``loc`` that the exponential map carries to a point at distance r have
the lengths :math:`|r + 2 \pi k|`, k an integer, so that with m = d - 1 the density with respect to dM is

.. math:: p = (2\pi t)^{-d/2} \sin(r)^{-m} f(r), \qquad f(r) = \sum_k |r + 2\pi k|^m e^{-(r + 2\pi k)^2 / 2t} .

For d >= 2 all geodesics meet again at the antipode and at ``loc`` itself, where p is infinite, and integrable.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

from pyro_riemann._formulas import Array, Namespace, smooth, table

_LONG_TIME = 200.0  # from here on the sum over k is an integral and corrections that do not oscillate, to 1e-13
_DEGREE = 20  # of the last Bernoulli polynomial among these


def num_turns(longest: float, dim: int) -> int:
    """How many turns around the sphere count at times up to ``longest``: terms beyond are below 1e-16 of the sum."""
    reach = (8.6 + math.sqrt(dim - 1)) * math.sqrt(min(max(longest, 0.0), _LONG_TIME))
    return math.ceil(reach / (2 * math.pi)) + 1


def log_density(xp: Namespace, s: Array, c: Array, time: Array, dim: int, turns: int) -> Array:
    """Log of p, d >= 2, at ``s = sin(r/2)^2``, ``c = cos(r/2)^2``, with respect to dM; all of one shape.

    Closer than the root of the machine precision to one of the two poles it is that at this distance.

    Args:
        xp: array namespace.
        s: squared sine of half the distance.
        c: its squared cosine.
        time: variance of the tangent Gaussian.
        dim: dimension d.
        turns: :func:`num_turns` at the longest time.
    """
    power, least = dim - 1, float(xp.finfo(s.dtype).eps)
    ratio = smooth.squared_arc_ratio(xp, s, c, 1)
    squared = 4 * s * ratio
    radius = xp.sqrt(_at_least(xp, squared, least))
    log_sine = 0.5 * xp.log(_at_least(xp, 4 * s * c, least))
    direct = 0.5 * power * xp.log(ratio / _at_least(xp, c, least / 4))  # (r / sin r)^m, smooth at r = 0
    soon = xp.clip(time, max=_LONG_TIME)
    folds = _log_folds(xp, radius, soon, power, turns) - power * log_sine
    images = xp.logaddexp(direct, folds) - squared / (2 * soon)
    late = _log_periodic_sum(xp, radius, xp.clip(time, min=_LONG_TIME), power) - power * log_sine
    return xp.where(time < _LONG_TIME, images, late) - 0.5 * dim * xp.log(2 * math.pi * time)


def _log_folds(xp: Namespace, radius: Array, time: Array, power: int, turns: int) -> Array:
    """Log of the terms of f from ``k != 0``, less the exponent of the direct one."""
    signed = [2 * math.pi * k for turn in range(1, turns + 1) for k in (-turn, turn)]
    turn = table(xp, signed, radius)
    length = xp.abs(radius[..., None] + turn)
    terms = power * xp.log(length) - turn * (turn + 2 * radius[..., None]) / (2 * time[..., None])
    largest = xp.amax(terms, -1)
    return largest + xp.log(xp.sum(xp.exp(terms - largest[..., None]), -1))


def _log_periodic_sum(xp: Namespace, radius: Array, time: Array, power: int) -> Array:
    """Log of f at long times: the integral, and what the kink of ``|x|^m`` at 0 adds where m is odd.

    The latter is the Euler-Maclaurin formula, :math:`\\sum_k |x + k|^n \\to -2 B_{n+1}(x) / (n + 1)` for n odd.
    """
    log_integral = (power + 1) / 2 * xp.log(2 * time) + math.lgamma((power + 1) / 2) - math.log(2 * math.pi)
    if power % 2 == 0 or power >= _DEGREE:
        return log_integral
    turn, excess = radius / (2 * math.pi), xp.zeros_like(radius)
    for j, degree in enumerate(range(power + 1, _DEGREE + 1, 2)):
        scale = -2 * (2 * math.pi) ** (degree - 1) / degree / math.factorial(j)
        excess = excess + scale * (-1 / (2 * time)) ** j * _polynomial(xp, _bernoulli(degree), turn)
    return log_integral + xp.log1p(excess * xp.exp(-log_integral))


def _polynomial(xp: Namespace, coefficients: tuple[float, ...], x: Array) -> Array:
    total = xp.zeros_like(x)
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


@cache
def _bernoulli(degree: int) -> tuple[float, ...]:
    """Coefficients of the Bernoulli polynomial, that of the highest power first."""
    numbers = [Fraction(1)]
    for n in range(1, degree + 1):
        numbers.append(-sum((math.comb(n + 1, k) * numbers[k] for k in range(n)), Fraction(0)) / (n + 1))
    return tuple(float(math.comb(degree, k) * numbers[k]) for k in range(degree + 1))


def _at_least(xp: Namespace, value: Array, least: float) -> Array:
    # not a clip, whose gradient JAX splits at a tie
    return xp.where(value < least, xp.full_like(value, least), value)
