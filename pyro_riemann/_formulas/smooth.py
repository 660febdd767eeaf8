"""Functions of a squared length that stay smooth at zero.

Distances, exponential maps and Van Vleck determinants of the sphere and of hyperbolic
space depend on lengths only through their squares, analytically. A square root on the
way would turn that into 0/0 in the gradient at coincident points, so near zero each
function is its power series and elsewhere its elementary form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pyro_riemann._formulas import Array, Namespace

_SINC = [1 / math.factorial(2 * n + 1) for n in range(12)]
_COS = [1 / math.factorial(2 * n) for n in range(12)]
_ARC = [0.5 * 4**n / (n * n * math.comb(2 * n, n)) for n in range(1, 15)]


def _horner(xp: Namespace, coefficients: list[float], x: Array) -> Array:
    total = xp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _even(xp: Namespace, q: Array, series: Array, direct: Callable[[Array], Array], threshold: float) -> Array:
    """``series`` where q is small, ``direct(sqrt(q))`` elsewhere; neither branch can leak a NaN gradient."""
    small = q < threshold
    return xp.where(small, series, direct(xp.sqrt(xp.where(small, xp.ones_like(q), q))))


def root(xp: Namespace, value: Array) -> Array:
    """Square root with gradient 0, not infinity, at 0; a NaN stays one."""
    flat = value <= 0
    return xp.where(flat, xp.zeros_like(value), xp.sqrt(xp.where(flat, xp.ones_like(value), value)))


def sinc(xp: Namespace, q: Array) -> Array:
    """``sin(r) / r`` for ``q = r^2``."""
    return _even(xp, q, _horner(xp, _SINC, -xp.clip(q, max=1.0)), lambda r: xp.sin(r) / r, 0.5)


def cos(xp: Namespace, q: Array) -> Array:
    """``cos(r)`` for ``q = r^2``."""
    return _even(xp, q, _horner(xp, _COS, -xp.clip(q, max=1.0)), xp.cos, 0.5)


def tanhc(xp: Namespace, q: Array) -> Array:
    """``tanh(r) / r`` for ``q = r^2``; never overflows."""
    near = xp.clip(q, max=1.0)
    return _even(xp, q, _horner(xp, _SINC, near) / _horner(xp, _COS, near), lambda r: xp.tanh(r) / r, 0.5)


def log_sinhc(xp: Namespace, q: Array) -> Array:
    """``log(sinh(r) / r)`` for ``q = r^2``; never overflows."""
    series = xp.log(_horner(xp, _SINC, xp.clip(q, max=1.0)))
    return _even(xp, q, series, lambda r: r + xp.log1p(-xp.exp(-2 * r)) - math.log(2) - xp.log(r), 0.5)


def scaled_cosh_sinhc(xp: Namespace, q: Array, log_scale: Array) -> tuple[Array, Array]:
    """``exp(log_scale) * cosh(r)`` and ``exp(log_scale) * sinh(r) / r`` for ``q = r^2``, without overflow of cosh."""
    scale, near = xp.exp(log_scale), xp.clip(q, max=1.0)

    def pair(r: Array) -> tuple[Array, Array]:
        return xp.exp(log_scale + r) / 2, xp.exp(log_scale - r) / 2

    cosh = _even(xp, q, scale * _horner(xp, _COS, near), lambda r: sum(pair(r), xp.zeros_like(r)), 0.5)
    sinhc = _even(xp, q, scale * _horner(xp, _SINC, near), lambda r: (pair(r)[0] - pair(r)[1]) / r, 0.5)
    return cosh, sinhc


def squared_arc_ratio(xp: Namespace, s: Array, c: Array, curvature: int) -> Array:
    """``(l / 2)^2 / s`` where ``s`` is ``sin(l/2)^2`` (curvature 1) or ``sinh(l/2)^2`` (curvature -1).

    ``c`` is ``cos(l/2)^2``; handed over since ``1 - s`` has lost it near the antipode.
    ``atan2`` keeps all digits where ``asin`` and ``acos`` lose half of them.
    """
    threshold = 0.02
    near = xp.where(s < threshold, s, xp.zeros_like(s))
    series = arc_series(xp, curvature * near)
    if curvature < 0:
        return _even(xp, s, series, lambda root: xp.square(xp.asinh(root) / root), threshold)
    # at the antipode itself the cosine is 0 and its root has no derivative: it is held fixed there
    tiny = xp.finfo(c.dtype).tiny
    cosine = xp.sqrt(xp.where((s < threshold) | (c < tiny), xp.ones_like(c), c))
    cosine = xp.where(c < tiny, xp.zeros_like(c), cosine)
    return _even(xp, s, series, lambda root: xp.square(xp.atan2(root, cosine) / root), threshold)


def arc_series(xp: Namespace, s: Array) -> Array:
    """``asin(sqrt(s))^2 / s`` for small ``s``, real or complex, to all digits up to ``|s| = 0.02``."""
    return _horner(xp, _ARC, s)


# ---------------------------------------------------------------- of s and c, the squared sine and cosine of l / 2


def squared_dist(xp: Namespace, s: Array, c: Array, curvature: int) -> Array:
    """Squared distance ``l^2``."""
    return 4 * s * squared_arc_ratio(xp, s, c, curvature)


def arc_over_sine(xp: Namespace, ratio: Array, c: Array) -> Array:
    """``l / sin(l)`` or ``l / sinh(l)`` from ``ratio = (l/2)^2 / s``; large but finite where c is 0 (the antipode)."""
    return xp.sqrt(_over(xp, ratio, c))


def log_van_vleck(xp: Namespace, s: Array, c: Array, curvature: int, dim: int) -> Array:
    """``log V = (d - 1) log(l / sin l)``, large but finite at the antipode."""
    ratio = squared_arc_ratio(xp, s, c, curvature)
    if curvature < 0:  # far out the quotient would underflow
        return (dim - 1) / 2 * (xp.log(ratio) - xp.log1p(s))
    return (dim - 1) / 2 * xp.log(_over(xp, ratio, c))


def _over(xp: Namespace, ratio: Array, c: Array) -> Array:
    tiny = xp.finfo(c.dtype).tiny
    # not a clip: JAX multiplies its gradient of 0 by that of the quotient, which is infinite there
    return ratio / xp.where(c < tiny, xp.full_like(c, float(tiny)), c)
