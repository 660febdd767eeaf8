"""Hyperbolic space on the hyperboloid ``(z, sqrt(1 + |z|^2))``: z in R^d, ``|z| = sinh r``."""

from __future__ import annotations

from pyro_riemann._formulas import Array, Namespace, smooth
from pyro_riemann._formulas.space_form import arc_over_sine


def height(xp: Namespace, z: Array) -> Array:
    """Last coordinate of the embedded point, ``(*batch, 1)``."""
    return xp.sqrt(1 + xp.sum(xp.square(z), -1)[..., None])


def root(xp: Namespace, z: Array, v: Array) -> Array:
    """Symmetric root of G times v: a length as a sum of squares, never negative far out."""
    above = height(xp, z)
    return v - z * xp.sum(z * v, -1)[..., None] / (above * (above + 1))


def cholesky(xp: Namespace, z: Array) -> tuple[Array, Array]:
    """Cholesky factor of G, below the diagonal and on it; far out the entries of G do not tell that it is positive."""
    from_here = 1 + xp.flip(xp.cumsum(xp.flip(xp.square(z), (-1,)), -1), (-1,))  # 1 + squares of this and later axes
    after = xp.concat([from_here[..., 1:], xp.ones_like(z[..., :1])], axis=-1)
    below = xp.tril(-z[..., :, None] * (z / xp.sqrt(from_here * after))[..., None, :], -1)
    return below, xp.sqrt(after / from_here)


def half_chord(xp: Namespace, z: Array, y: Array) -> Array:
    """``sinh(l/2)^2``."""
    # in the ball this is |a - b|^2 / ((1 - |a|^2)(1 - |b|^2)), and here 1 - |a|^2 is known to all digits
    first, second = 1 + height(xp, z), 1 + height(xp, y)
    return xp.sum(xp.square(z / first - y / second), -1) * (first * second)[..., 0] / 4


def expmap(xp: Namespace, z: Array, v: Array, squared: Array) -> Array:
    """End of the geodesic with velocity ``v``, whose squared length is ``squared`` and within range."""
    cosh, sinhc = smooth.scaled_cosh_sinhc(xp, squared, xp.zeros_like(squared))
    largest = float(xp.finfo(z.dtype).max) ** 0.4  # so that squares stay finite
    return xp.clip(cosh[..., None] * z + sinhc[..., None] * v, min=-largest, max=largest)


def logmap(xp: Namespace, z: Array, y: Array) -> Array:
    """Initial velocity of the geodesic from ``z`` to ``y``."""
    s = half_chord(xp, z, y)
    scale = arc_over_sine(xp, smooth.squared_arc_ratio(xp, s, s, -1), 1 + s)
    return scale[..., None] * (y - z - 2 * s[..., None] * z)


def to_ball(xp: Namespace, z: Array) -> Array:
    """The same points in the Poincare ball."""
    return z / (1 + height(xp, z))


def from_ball(xp: Namespace, x: Array) -> Array:
    """Points of the Poincare ball in this chart."""
    return 2 * x / (1 - xp.sum(xp.square(x), -1)[..., None])
