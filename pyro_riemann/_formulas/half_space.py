"""Hyperbolic space as the half-space, last coordinate h the log of the height: ``e^{-2h} |dx|^2 + dh^2``."""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, eye, hyperboloid, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.hyperboloid import HyperbolicChart


class LogHalfSpace(HyperbolicChart[A]):
    """The upper half-space, of any negative curvature."""

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
        return self._factor**0.5 * hyperboloid.lifted(xp, hyperboloid.from_ball(xp, self.to_ball(z)))

    def from_ambient(self, x: A) -> A:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return self.from_ball(hyperboloid.to_ball(self.face.xp, self._on_hyperboloid(x)[..., :-1]))
