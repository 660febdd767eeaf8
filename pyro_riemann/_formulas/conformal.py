"""The conformal charts of constant curvature K: the stereographic sphere (1) and the Poincare ball (-1).

The metric is ``4 |dz|^2 / (1 + K |z|^2)^2``. Its denominator ``below = 1 + K |z|^2``, shape ``(*batch)``, is an
argument of its own, since the callers check it (a point of the ball must lie in it).
"""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, Namespace, smooth
from pyro_riemann._formulas.space_form import arc_over_sine


def denominator(xp: Namespace, z: Array, curvature: int) -> Array:
    """``1 + K |z|^2``."""
    return 1 + curvature * xp.sum(xp.square(z), -1)


def logdet(xp: Namespace, below: Array, dim: int) -> Array:
    """Log determinant of the metric."""
    return 2 * dim * (math.log(2) - xp.log(below))


def inner(xp: Namespace, below: Array, u: Array, v: Array) -> Array:
    """Inner product of tangent vectors."""
    return xp.square(2 / below) * xp.sum(u * v, -1)


def metric_jacobian(xp: Namespace, z: Array, below: Array, eye: Array, curvature: int) -> tuple[Array, Array]:
    """The metric tensor and its coordinate derivatives, last axis the coordinate."""
    factor = (2 / below)[..., None, None]
    metric = xp.square(factor) * eye
    log_slope = -curvature * factor[..., None] * z[..., None, None, :]
    return metric, 2 * metric[..., None] * log_slope


def christoffel(xp: Namespace, z: Array, v: Array, below: Array, curvature: int) -> Array:
    """Christoffel symbols contracted with ``v`` twice."""
    along, squared = xp.sum(z * v, -1)[..., None], xp.sum(xp.square(v), -1)[..., None]
    return curvature * (2 / below)[..., None] * (squared * z - 2 * along * v)


def half_angle(xp: Namespace, z: Array, y: Array, first: Array, second: Array, curvature: int) -> tuple[Array, Array]:
    """``s`` and ``c`` of two points with denominators ``first`` and ``second``."""
    s = xp.sum(xp.square(y - z), -1) / first / second
    if curvature < 0:
        return s, 1 + s
    # half the sum of the embedded points: exact to rounding at the antipode, where 1 - s is not
    middle = z / first[..., None] + y / second[..., None]
    return s, xp.sum(xp.square(middle), -1) + xp.square(1 - 1 / first - 1 / second)


def logmap(xp: Namespace, z: Array, y: Array, first: Array, second: Array, curvature: int) -> Array:
    """Initial velocity of the shortest geodesic from ``z`` to ``y``."""
    s, c = half_angle(xp, z, y, first, second, curvature)
    ratio, step = smooth.squared_arc_ratio(xp, s, c, curvature), y - z
    direction = first[..., None] * step + curvature * xp.sum(xp.square(step), -1)[..., None] * z
    velocity = direction * (arc_over_sine(xp, ratio, c) / second)[..., None]
    if curvature < 0:
        return velocity
    # towards the antipode the direction shrinks to rounding error: there, scale it to the known length
    far, squared, one = s > 0.5, xp.sum(xp.square(direction), -1), xp.ones_like(s)
    lost = far & (squared == 0)  # exactly antipodal: every direction leads there, the first axis is taken
    axis = xp.concat([xp.ones_like(direction[..., :1]), xp.zeros_like(direction[..., 1:])], axis=-1)
    direction = xp.where(lost[..., None], axis, direction)
    squared = xp.where(lost, one, squared)
    length = first * xp.sqrt(xp.where(far, s * ratio, one) / xp.where(far, squared, one))
    return xp.where(far[..., None], length[..., None] * direction, velocity)


def expmap(xp: Namespace, z: Array, v: Array, below: Array, curvature: int) -> Array:
    """End of the geodesic that leaves ``z`` with velocity ``v``: a Moebius translation of ``tan(r/2) v / |v|`` to z."""
    quarter = inner(xp, below, v, v) / 4
    if curvature > 0:
        cosine, sine = smooth.cos(xp, quarter), smooth.sinc(xp, quarter) / below
    else:
        sine = smooth.tanhc(xp, quarter) / below
        cosine = xp.ones_like(sine)
    leap, cosine = sine[..., None] * v, cosine[..., None]
    squared, eps = xp.sum(xp.square(leap), -1)[..., None], xp.finfo(z.dtype).eps
    under = xp.square(cosine) - 2 * curvature * cosine * xp.sum(z * leap, -1)[..., None]
    under = under + xp.sum(xp.square(z), -1)[..., None] * squared
    # zero only where rounding decides: at the sphere's missing pole, and between far ends of the ball
    under = xp.clip(under, min=eps**2)
    y = z + below[..., None] * (cosine * leap - curvature * squared * z) / under
    if curvature > 0:
        return y
    # rounding can put a far point on the unit sphere, where the metric is infinite
    squared, limit = xp.sum(xp.square(y), -1)[..., None], 1 - 4 * eps
    over = squared > limit
    return xp.where(over, y * xp.sqrt(limit / xp.where(over, squared, xp.ones_like(squared))), y)
