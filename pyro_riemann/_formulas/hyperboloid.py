"""Charts of hyperbolic space that are all of R^d; the hyperboloid ``(z, sqrt(1 + |z|^2))``: ``|z| = sinh r``."""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, Namespace, eye, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.space_form import HyperbolicForm


class HyperbolicChart(HyperbolicForm[A]):
    """A chart of H^d that is all of R^d."""

    def _half_chord(self, z: A, y: A) -> Array:
        """``sinh(l/2)^2``, shape ``(*batch)``."""
        raise NotImplementedError

    def _half_angle(self, z: A, y: A) -> tuple[A, A]:
        s = self._half_chord(self._check("z", z), self._check("y", y))
        return s, 1 + s

    def _within_range(self, z: A, v: A) -> tuple[A, A, A]:
        """``z``, ``v`` and its squared length, shortened where the end point's square would overflow."""
        xp, v = self.face.xp, self.face.check_point("v", v, self.dim)
        squared = self.inner(z, v, v) / self._factor
        longest = (math.log(xp.finfo(v.dtype).max) / 5) ** 2
        shrink = longest / xp.clip(squared, min=longest)
        return z, v * xp.sqrt(shrink)[..., None], squared * shrink


class LorentzHyperboloid(HyperbolicChart[A]):
    """The points of the hyperboloid without the last coordinate."""

    def metric(self, z: A) -> A:
        slope = z / height(self.face.xp, self._check("z", z))
        return self._factor * (eye(self.face.xp, self.dim, slope) - slope[..., :, None] * slope[..., None, :])

    def cholesky(self, z: A) -> A:
        # far out the entries of G do not tell that it is positive
        xp, z = self.face.xp, self._check("z", z)
        from_here = 1 + xp.flip(xp.cumsum(xp.flip(xp.square(z), (-1,)), -1), (-1,))  # 1 + squares of this, later axes
        after = xp.concat([from_here[..., 1:], xp.ones_like(z[..., :1])], axis=-1)
        below = xp.tril(-z[..., :, None] * (z / xp.sqrt(from_here * after))[..., None, :], -1)
        return self._factor**0.5 * (below + xp.sqrt(after / from_here)[..., None] * eye(xp, self.dim, z))

    def logdet(self, z: A) -> A:
        xp = self.face.xp
        return self.dim * math.log(self._factor) - xp.log1p(xp.square(self._check("z", z)).sum(-1))

    def inner(self, z: A, u: A, v: A) -> A:
        z = self._check("z", z)
        return self._factor * (self._root(z, u) * self._root(z, v)).sum(-1)

    def _root(self, z: A, v: A) -> A:
        """Symmetric root of G times v: a length as a sum of squares, never negative far out."""
        above = height(self.face.xp, z)
        return v - z * self.face.xp.sum(z * v, -1)[..., None] / (above * (above + 1))

    def christoffel(self, z: A, v: A) -> A:
        return -self.inner(z, v, v)[..., None] * z / self._factor

    def drift(self, z: A) -> A:
        return self._check("z", z) * (self.dim / (2 * self._factor))

    def expmap(self, z: A, v: A) -> A:
        xp = self.face.xp
        z, v, squared = self._within_range(z, v)
        cosh, sinhc = smooth.scaled_cosh_sinhc(xp, squared, xp.zeros_like(squared))
        largest = float(xp.finfo(z.dtype).max) ** 0.4  # so that squares stay finite
        return xp.clip(cosh[..., None] * z + sinhc[..., None] * v, min=-largest, max=largest)

    def logmap(self, z: A, y: A) -> A:
        s, c = self._half_angle(z, y)
        scale = smooth.arc_over_sine(self.face.xp, smooth.squared_arc_ratio(self.face.xp, s, s, -1), c)
        return scale[..., None] * (y - z - 2 * s[..., None] * z)

    def _half_chord(self, z: A, y: A) -> Array:
        # in the ball this is |a - b|^2 / ((1 - |a|^2)(1 - |b|^2)), and here 1 - |a|^2 is known to all digits
        xp = self.face.xp
        first, second = 1 + height(xp, z), 1 + height(xp, y)
        return xp.sum(xp.square(z / first - y / second), -1) * (first * second)[..., 0] / 4

    def to_ball(self, z: A) -> A:
        """The points ``z`` in the Poincare ball of ``Hyperbolic``, ``(*batch, d)``."""
        return to_ball(self.face.xp, self._check("z", z))

    def from_ball(self, x: A) -> A:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        return from_ball(self.face.xp, x)

    def to_ambient(self, z: A) -> A:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as ``Hyperbolic.to_ambient``.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        return self._factor**0.5 * lifted(self.face.xp, self._check("z", z))

    def from_ambient(self, x: A) -> A:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return self._on_hyperboloid(x)[..., :-1]


def height(xp: Namespace, z: Array) -> Array:
    """Last coordinate of the embedded point, ``(*batch, 1)``."""
    return xp.sqrt(1 + xp.sum(xp.square(z), -1)[..., None])


def lifted(xp: Namespace, z: Array) -> Array:
    """The embedded point."""
    return xp.concat([z, height(xp, z)], axis=-1)


def to_ball(xp: Namespace, z: Array) -> Array:
    """The same points in the Poincare ball."""
    return z / (1 + height(xp, z))


def from_ball(xp: Namespace, x: Array) -> Array:
    """Points of the Poincare ball in this chart."""
    return 2 * x / (1 - xp.sum(xp.square(x), -1)[..., None])
