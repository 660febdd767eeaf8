"""Hyperbolic space as the half-space, last coordinate h the log of the height: ``e^{-2h} |dx|^2 + dh^2``."""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, Namespace, smooth, space_form
from pyro_riemann._formulas.space_form import arc_over_sine


def inner(xp: Namespace, z: Array, u: Array, v: Array) -> Array:
    """Inner product of tangent vectors."""
    product = u * v
    return xp.exp(-2 * z[..., -1]) * xp.sum(product[..., :-1], -1) + product[..., -1]


def christoffel(xp: Namespace, z: Array, v: Array) -> Array:
    """Christoffel symbols contracted with ``v`` twice."""
    h, along, up = z[..., -1:], v[..., :-1], v[..., -1:]
    lift = xp.exp(-2 * h) * xp.sum(xp.square(along), -1)[..., None]
    return xp.concat([-2 * along * up + xp.zeros_like(h), lift + xp.zeros_like(up)], axis=-1)


def half_chord(xp: Namespace, z: Array, y: Array) -> Array:
    """``sinh(l/2)^2``."""
    return _across(xp, z, y)[..., 0] / 4 + xp.square(xp.sinh((z[..., -1] - y[..., -1]) / 2))


def squared_dist(xp: Namespace, z: Array, y: Array) -> Array:
    """Squared distance at curvature -1, wherever the points are."""
    far, _, length = _far(xp, z, y)
    z, y = _near(xp, far, z, y)
    s = half_chord(xp, z, y)
    return xp.where(far, xp.square(length), space_form.squared_dist(xp, s, 1 + s, -1))


def _far(xp: Namespace, z: Array, y: Array) -> tuple[Array, Array, Array]:
    """Where ``sinh(l/2)^2`` is near overflow, the logarithm of :func:`_across` there, and the distance l there."""
    squared, rise = xp.sum(xp.square(y[..., :-1] - z[..., :-1]), -1), xp.abs(z[..., -1] - y[..., -1])
    limit = math.log(xp.finfo(rise.dtype).max) / 2
    apart = squared > 0
    log_across = xp.log(xp.where(apart, squared, xp.ones_like(squared))) - z[..., -1] - y[..., -1]
    far = (rise > limit) | (apart & (log_across > limit))
    # 0 stands for minus infinity, whose second derivatives would be NaN: beside a rise near overflow it adds nothing
    log_across = xp.where(apart & far, log_across, xp.zeros_like(log_across))
    # 2 cosh l = |dx|^2 / heights + 2 cosh(rise), of which the growing exponentials are left
    return far, log_across, xp.logaddexp(log_across, rise)


def _near(xp: Namespace, far: Array, *points: Array) -> list[Array]:
    """The points with zeros in place of those far apart, whose overflow would be NaN in gradients."""
    return [xp.where(far[..., None], xp.zeros_like(point), point) for point in points]


def _across(xp: Namespace, z: Array, y: Array) -> Array:
    """Squared horizontal separation over the product of the heights, ``(*batch, 1)``; 0 where there is none."""
    most = 0.95 * math.log(xp.finfo((z + y).dtype).max)  # infinity times 0 is NaN
    scale = xp.exp(xp.clip(-(z[..., -1:] + y[..., -1:]) / 2, max=most))
    return xp.sum(xp.square(scale * (y[..., :-1] - z[..., :-1])), -1)[..., None]


def expmap(xp: Namespace, z: Array, v: Array, squared: Array) -> Array:
    """End of the geodesic with velocity ``v``, whose squared length is ``squared`` and within range."""
    x, h, along, up = z[..., :-1], z[..., -1:], v[..., :-1], v[..., -1:]
    squared = squared[..., None]
    cosh, sinhc = smooth.scaled_cosh_sinhc(xp, squared, xp.zeros_like(squared))
    # steeply up, cosh - sinhc * up cancels down to exp(-r): there r - up comes from the horizontal part
    steep = up > 0.5
    safe_up = xp.where(steep, up, xp.ones_like(up))
    length = xp.sqrt(xp.where(steep, squared, xp.ones_like(squared)))
    across = xp.exp(-2 * h) * xp.sum(xp.square(along), -1)[..., None]
    rising = xp.exp(-length) + sinhc * across / (length + safe_up)
    shrink = xp.where(steep, rising, cosh - sinhc * xp.where(steep, -up, up))
    return xp.concat([x + sinhc * along / shrink, h - xp.log(shrink)], axis=-1)


def logmap(xp: Namespace, z: Array, y: Array) -> Array:
    """Initial velocity of the geodesic from ``z`` to ``y``."""
    far, log_across, length = (part[..., None] for part in _far(xp, z, y))
    gap, flat = z[..., -1:] - y[..., -1:], y[..., :-1] - z[..., :-1]
    # l / sinh l is 2 l exp(-l) far out
    up = xp.exp(log_across - length) - xp.sign(gap) * xp.exp(xp.abs(gap) - length)
    steep = length * xp.concat([2 * xp.exp(gap - length) * flat, up], axis=-1)
    z, y = _near(xp, far[..., 0], z, y)
    s, gap = half_chord(xp, z, y)[..., None], z[..., -1:] - y[..., -1:]
    along = xp.exp(gap) * (y[..., :-1] - z[..., :-1])
    direction = xp.concat([along, _across(xp, z, y) / 2 - xp.sinh(gap)], axis=-1)
    return xp.where(far, steep, arc_over_sine(xp, smooth.squared_arc_ratio(xp, s, s, -1), 1 + s) * direction)


def to_ball(xp: Namespace, z: Array) -> Array:
    """The same points in the Poincare ball; (0, ..., 0) is its centre."""
    x, above = z[..., :-1], xp.exp(z[..., -1:]) + 1
    base = xp.sum(xp.square(x), -1)[..., None] + xp.square(above)
    return xp.concat([2 * x / base, 2 * above / base - 1], axis=-1)


def from_ball(xp: Namespace, x: Array) -> Array:
    """Points of the Poincare ball in this chart."""
    # height (1 - |x|^2) / |x + e|^2 rather than the inversion's last entry, which cancels near the boundary
    base = xp.sum(xp.square(x[..., :-1]), -1)[..., None] + xp.square(x[..., -1:] + 1)
    above = (1 - xp.sum(xp.square(x), -1)[..., None]) / base
    return xp.concat([2 * x[..., :-1] / base, xp.log(above)], axis=-1)
