"""Charts of hyperbolic space that are all of R^d: the hyperboloid and the half-space."""

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
    """The hyperboloid ``(z, sqrt(1 + |z|^2))``: ``|z| = sinh r``."""

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


class LogHalfSpace(HyperbolicChart[A]):
    """The half-space, last coordinate h the log of the height: ``e^{-2h} |dx|^2 + dh^2``."""

    def metric(self, z: A) -> A:
        xp = self.face.xp
        flat = xp.exp(-2 * self._check("z", z)[..., -1:])
        scale = xp.concat([xp.broadcast_to(flat, (*z.shape[:-1], self.dim - 1)), xp.ones_like(flat)], axis=-1)
        return self._factor * scale[..., None] * eye(xp, self.dim, scale)

    def logdet(self, z: A) -> A:
        return self.dim * math.log(self._factor) - 2 * (self.dim - 1) * self._check("z", z)[..., -1]

    def inner(self, z: A, u: A, v: A) -> A:
        xp, product = self.face.xp, u * v
        h = self._check("z", z)[..., -1]
        return self._factor * (xp.exp(-2 * h) * xp.sum(product[..., :-1], -1) + product[..., -1])

    def christoffel(self, z: A, v: A) -> A:
        xp, h, v = self.face.xp, self._check("z", z)[..., -1:], self.face.check_point("v", v, self.dim)
        along, up = v[..., :-1], v[..., -1:]
        lift = xp.exp(-2 * h) * xp.sum(xp.square(along), -1)[..., None]
        return xp.concat([-2 * along * up + xp.zeros_like(h), lift + xp.zeros_like(up)], axis=-1)

    def drift(self, z: A) -> A:
        xp, z = self.face.xp, self._check("z", z)
        up = xp.full_like(z[..., -1:], -(self.dim - 1) / (2 * self._factor))
        return xp.concat([xp.zeros_like(z[..., :-1]), up], axis=-1)

    def expmap(self, z: A, v: A) -> A:
        xp = self.face.xp
        z, v, squared = self._within_range(z, v)
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

    def logmap(self, z: A, y: A) -> A:
        xp, z, y = self.face.xp, self._check("z", z), self._check("y", y)
        far, log_across, length = (part[..., None] for part in self._far(z, y))
        gap, flat = z[..., -1:] - y[..., -1:], y[..., :-1] - z[..., :-1]
        # l / sinh l is 2 l exp(-l) far out
        up = xp.exp(log_across - length) - xp.sign(gap) * xp.exp(xp.abs(gap) - length)
        steep = length * xp.concat([2 * xp.exp(gap - length) * flat, up], axis=-1)
        z, y = self._near(far[..., 0], z, y)
        s, gap = self._half_chord(z, y)[..., None], z[..., -1:] - y[..., -1:]
        along = xp.exp(gap) * (y[..., :-1] - z[..., :-1])
        direction = xp.concat([along, self._across(z, y) / 2 - xp.sinh(gap)], axis=-1)
        scale = smooth.arc_over_sine(xp, smooth.squared_arc_ratio(xp, s, s, -1), 1 + s)
        return xp.where(far, steep, scale * direction)

    # ---------------------------------------------------------------- distances

    def squared_dist(self, z: A, y: A) -> A:
        return self._factor * self._unit_squared_dist(self._check("z", z), self._check("y", y))

    def log_van_vleck(self, z: A, y: A) -> A:
        return self._log_van_vleck_along(self._unit_squared_dist(self._check("z", z), self._check("y", y)))

    def _unit_squared_dist(self, z: A, y: A) -> Array:
        """Squared distance at curvature -1, wherever the points are."""
        far, _, length = self._far(z, y)
        s = self._half_chord(*self._near(far, z, y))
        xp = self.face.xp
        return xp.where(far, xp.square(length), smooth.squared_dist(xp, s, 1 + s, -1))

    def _half_chord(self, z: A, y: A) -> Array:
        xp = self.face.xp
        return self._across(z, y)[..., 0] / 4 + xp.square(xp.sinh((z[..., -1] - y[..., -1]) / 2))

    def _far(self, z: A, y: A) -> tuple[A, A, A]:
        """Where ``sinh(l/2)^2`` is near overflow, the logarithm of :meth:`_across` there, and the distance l there."""
        xp = self.face.xp
        squared, rise = xp.sum(xp.square(y[..., :-1] - z[..., :-1]), -1), xp.abs(z[..., -1] - y[..., -1])
        limit = math.log(xp.finfo(rise.dtype).max) / 2
        apart = squared > 0
        log_across = xp.log(xp.where(apart, squared, xp.ones_like(squared))) - z[..., -1] - y[..., -1]
        far = (rise > limit) | (apart & (log_across > limit))
        # 0 is for minus infinity, whose second derivatives would be NaN: beside a rise near overflow it adds nothing
        log_across = xp.where(apart & far, log_across, xp.zeros_like(log_across))
        # 2 cosh l = |dx|^2 / heights + 2 cosh(rise), of which the growing exponentials are left
        return far, log_across, xp.logaddexp(log_across, rise)

    def _near(self, far: A, *points: A) -> list[Array]:
        """The points with zeros in place of those far apart, whose overflow would be NaN in gradients."""
        return [self.face.xp.where(far[..., None], self.face.xp.zeros_like(point), point) for point in points]

    def _across(self, z: A, y: A) -> Array:
        """Squared horizontal separation over the product of the heights, ``(*batch, 1)``; 0 where there is none."""
        xp = self.face.xp
        most = 0.95 * math.log(xp.finfo((z + y).dtype).max)  # infinity times 0 is NaN
        scale = xp.exp(xp.clip(-(z[..., -1:] + y[..., -1:]) / 2, max=most))
        return xp.sum(xp.square(scale * (y[..., :-1] - z[..., :-1])), -1)[..., None]

    # ---------------------------------------------------------------- other charts

    def to_ball(self, z: A) -> A:
        """The points ``z`` in the Poincare ball, ``(*batch, d)``; (0, ..., 0) is its centre."""
        xp, z = self.face.xp, self._check("z", z)
        x, above = z[..., :-1], xp.exp(z[..., -1:]) + 1
        base = xp.sum(xp.square(x), -1)[..., None] + xp.square(above)
        return xp.concat([2 * x / base, 2 * above / base - 1], axis=-1)

    def from_ball(self, x: A) -> A:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        # height (1 - |x|^2) / |x + e|^2 rather than the inversion's last entry, which cancels near the boundary
        xp = self.face.xp
        base = xp.sum(xp.square(x[..., :-1]), -1)[..., None] + xp.square(x[..., -1:] + 1)
        above = (1 - xp.sum(xp.square(x), -1)[..., None]) / base
        return xp.concat([2 * x[..., :-1] / base, xp.log(above)], axis=-1)

    def to_ambient(self, z: A) -> A:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as ``Hyperbolic.to_ambient``.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        xp = self.face.xp
        return self._factor**0.5 * lifted(xp, from_ball(xp, self.to_ball(z)))

    def from_ambient(self, x: A) -> A:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return self.from_ball(to_ball(self.face.xp, self._on_hyperboloid(x)[..., :-1]))


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
