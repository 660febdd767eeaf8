"""Spaces of constant curvature K = 1 or -1, as far as they do not depend on the chart.

Everything rests on two functions of two points: ``s``, which is ``sin(l/2)^2`` on the sphere and ``sinh(l/2)^2``
in hyperbolic space, and ``c``, the squared cosine (``1 + s``) of the same half angle; both ``(*batch)``.
"""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, Namespace, smooth


def squared_dist(xp: Namespace, s: Array, c: Array, curvature: int) -> Array:
    """Squared distance ``l^2``."""
    return 4 * s * smooth.squared_arc_ratio(xp, s, c, curvature)


def arc_over_sine(xp: Namespace, ratio: Array, c: Array) -> Array:
    """``l / sin(l)`` or ``l / sinh(l)`` from ``ratio = (l/2)^2 / s``; large but finite where c is 0 (the antipode)."""
    return xp.sqrt(_over(xp, ratio, c))


def log_van_vleck(xp: Namespace, s: Array, c: Array, curvature: int, dim: int) -> Array:
    """``log V = (d - 1) log(l / sin l)``, large but finite at the antipode."""
    ratio = smooth.squared_arc_ratio(xp, s, c, curvature)
    if curvature < 0:  # far out the quotient would underflow
        return (dim - 1) / 2 * (xp.log(ratio) - xp.log1p(s))
    return (dim - 1) / 2 * xp.log(_over(xp, ratio, c))


def log_van_vleck_of_velocity(xp: Namespace, squared: Array, curvature: int, dim: int) -> Array:
    """``log V`` at the end of a geodesic whose velocity has the squared length ``squared``.

    Beyond the antipode it is that of the longer arc, with an absolute value.
    """
    if curvature < 0:
        return -(dim - 1) * smooth.log_sinhc(xp, squared)
    sinc = xp.abs(smooth.sinc(xp, squared))
    return -(dim - 1) * xp.log(xp.clip(sinc, min=xp.finfo(sinc.dtype).tiny))


def within_range(xp: Namespace, v: Array, squared: Array) -> tuple[Array, Array]:
    """``v`` and its squared length, shortened where the end point's square would overflow."""
    longest = (math.log(xp.finfo(v.dtype).max) / 5) ** 2
    shrink = longest / xp.clip(squared, min=longest)
    return v * xp.sqrt(shrink)[..., None], squared * shrink


def _over(xp: Namespace, ratio: Array, c: Array) -> Array:
    tiny = xp.finfo(c.dtype).tiny
    # not a clip: JAX multiplies its gradient of 0 by that of the quotient, which is infinite there
    return ratio / xp.where(c < tiny, xp.full_like(c, float(tiny)), c)
