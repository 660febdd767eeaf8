"""The conformal charts of constant curvature K: the stereographic sphere (1) and the Poincare ball (-1).

The metric is ``4 |dz|^2 / (1 + K |z|^2)^2``, times the squared radius. The denominators of points, ``1 + K |z|^2``,
are called ``below``, ``first`` and ``second``, and are ``(*batch)``.
"""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, eye, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.space_form import HyperbolicForm, SpaceForm


class ConformalSpaceForm(SpaceForm[A]):
    r"""The chart :math:`4 R^2 |dz|^2 / (1 \pm |z|^2)^2` of curvature :math:`\pm 1 / R^2`."""

    def _denominator(self, name: str, z: A) -> Array:
        """``1 + K |z|^2``; also the check that ``z`` is in the chart."""
        z = self.face.check_point(name, z, self.dim, self)
        return 1 + self.sign * self.face.xp.square(z).sum(-1)

    def _half_angle(self, z: A, y: A) -> tuple[A, A]:
        return self._half_angle_over(z, y, self._denominator("z", z), self._denominator("y", y))

    def _half_angle_over(self, z: A, y: A, first: Array, second: Array) -> tuple[Array, Array]:
        xp = self.face.xp
        s = xp.sum(xp.square(y - z), -1) / first / second
        if self.sign < 0:
            return s, 1 + s
        # half the sum of the embedded points: exact to rounding at the antipode, where 1 - s is not
        middle = z / first[..., None] + y / second[..., None]
        return s, xp.sum(xp.square(middle), -1) + xp.square(1 - 1 / first - 1 / second)

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: A) -> A:
        return self.face.xp.square(self.cholesky(z))

    def cholesky(self, z: A) -> A:
        below = self._denominator("z", z)
        return (2 * self._factor**0.5 / below)[..., None, None] * eye(self.face.xp, self.dim, below)

    def logdet(self, z: A) -> A:
        logs = math.log(2) - self.face.xp.log(self._denominator("z", z))
        return 2 * self.dim * logs + self.dim * math.log(self._factor)

    def inner(self, z: A, u: A, v: A) -> A:
        return self._factor * self._unit_inner(self._denominator("z", z), u, v)

    def _unit_inner(self, below: Array, u: A, v: A) -> Array:
        return self.face.xp.square(2 / below) * self.face.xp.sum(u * v, -1)

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        xp, factor = self.face.xp, (2 / self._denominator("z", z))[..., None, None]
        metric = xp.square(factor) * (self._factor * eye(xp, self.dim, factor))
        log_slope = -self.sign * factor[..., None] * z[..., None, None, :]
        return metric, 2 * metric[..., None] * log_slope

    def christoffel(self, z: A, v: A) -> A:
        xp, below = self.face.xp, self._denominator("z", z)
        along, squared = xp.sum(z * v, -1)[..., None], xp.sum(xp.square(v), -1)[..., None]
        return self.sign * (2 / below)[..., None] * (squared * z - 2 * along * v)

    def drift(self, z: A) -> A:
        return -self.curvature * (self.dim - 2) / 4 * self._denominator("z", z)[..., None] * z

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: A, v: A) -> A:
        # a Moebius translation of tan(r/2) v / |v| to z
        xp, below = self.face.xp, self._denominator("z", z)
        quarter = self._unit_inner(below, v, v) / 4
        if self.sign > 0:
            cosine, sine = smooth.cos(xp, quarter), smooth.sinc(xp, quarter) / below
        else:
            sine = smooth.tanhc(xp, quarter) / below
            cosine = xp.ones_like(sine)
        leap, cosine = sine[..., None] * v, cosine[..., None]
        squared, eps = xp.sum(xp.square(leap), -1)[..., None], xp.finfo(z.dtype).eps
        under = xp.square(cosine) - 2 * self.sign * cosine * xp.sum(z * leap, -1)[..., None]
        under = under + xp.sum(xp.square(z), -1)[..., None] * squared
        # zero only where rounding decides: at the sphere's missing pole, and between far ends of the ball
        under = xp.clip(under, min=eps**2)
        y = z + below[..., None] * (cosine * leap - self.sign * squared * z) / under
        if self.sign > 0:
            return y
        # rounding can put a far point on the unit sphere, where the metric is infinite
        squared, limit = xp.sum(xp.square(y), -1)[..., None], 1 - 4 * eps
        over = squared > limit
        return xp.where(over, y * xp.sqrt(limit / xp.where(over, squared, xp.ones_like(squared))), y)

    def logmap(self, z: A, y: A) -> A:
        xp, first, second = self.face.xp, self._denominator("z", z), self._denominator("y", y)
        s, c = self._half_angle_over(z, y, first, second)
        ratio, step = smooth.squared_arc_ratio(xp, s, c, self.sign), y - z
        direction = first[..., None] * step + self.sign * xp.sum(xp.square(step), -1)[..., None] * z
        velocity = direction * (smooth.arc_over_sine(xp, ratio, c) / second)[..., None]
        if self.sign < 0:
            return velocity
        # towards the antipode the direction shrinks to rounding error: there, scale it to the known length
        far, squared, one = s > 0.5, xp.sum(xp.square(direction), -1), xp.ones_like(s)
        lost = far & (squared == 0)  # exactly antipodal: every direction leads there, the first axis is taken
        axis = xp.concat([xp.ones_like(direction[..., :1]), xp.zeros_like(direction[..., 1:])], axis=-1)
        direction = xp.where(lost[..., None], axis, direction)
        squared = xp.where(lost, one, squared)
        length = first * xp.sqrt(xp.where(far, s * ratio, one) / xp.where(far, squared, one))
        return xp.where(far[..., None], length[..., None] * direction, velocity)


class StereographicSphere(ConformalSpaceForm[A]):
    """The sphere of a radius."""

    sign = 1

    def __init__(self, dim: int, radius: float = 1.0) -> None:
        if not 0 < radius < math.inf:
            raise ValueError(f"`radius` must be positive and finite, got {radius}.")
        super().__init__(dim, radius**-2.0)
        self.radius = float(radius)

    def to_ambient(self, z: A) -> A:
        """Vectors of length R, ``(*batch, d + 1)``, of points ``z``; the origin goes to the pole (0, ..., 0, -R)."""
        inverse = 1 / self._denominator("z", z)[..., None]
        return self.radius * self.face.xp.concat([2 * z * inverse, 1 - 2 * inverse], axis=-1)

    def from_ambient(self, x: A) -> A:
        """Chart coordinates of vectors ``(*batch, d + 1)`` of length R; the pole (0, ..., 0, R) has none: infinite.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or is not of length R.
        """
        xp, x = self.face.xp, self._ambient(x, self.radius)
        if not self.face.holds(xp.abs(xp.square(x).sum(-1) - 1) < 1e-3):
            length = "unit length" if self.radius == 1 else f"length {self.radius:g}"
            raise ValueError(f"`x` must be of {length}; divide it by its norm along the last axis.")
        return x[..., :-1] / (1 - x[..., -1:])

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        if self.dim == 1:  # the circle, where the heat kernel is the wrapped normal
            return self.log_heat_kernel(z, y, time)
        return super().log_folded_density(z, y, time)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log transition density of Brownian motion with respect to dM, exact; shape ``(*batch)``.

        The generator is half the Laplace-Beltrami operator, so ``time`` is the variance of small
        steps. One contour integral serves every dimension at small times, spherical harmonics at large ones.
        Accurate in the logarithm at all times and distances, the antipode included: to 1e-12, or to the
        rounding of the exponent ``l^2 / 2t`` where this is more.
        Computed in float64 from float32 points as well; by JAX where ``jax_enable_x64`` is set, else in float32: then
        to 1e-5 and the rounding of that.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or so short that the rounding of ``l^2 / 2t``
                exceeds 0.1.

        Source: Camporesi (1990), *Harmonic analysis and propagators on homogeneous spaces*.
        """
        return super().log_heat_kernel(z, y, time)

    def _log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        if self.dim > 1:
            return super()._log_heat_kernel(z, y, time)
        turn = 2 * (self.face.xp.atan(y) - self.face.xp.atan(z))[..., 0]
        return self.kernels.circle(turn, self.kernels.as_time(time, turn), 2 * math.pi)


class PoincareBall(ConformalSpaceForm[A], HyperbolicForm[A]):
    """Hyperbolic space in the unit ball."""

    def _check(self, name: str, z: A) -> A:
        self._denominator(name, z)
        return super()._check(name, z)

    def _denominator(self, name: str, z: A) -> Array:
        xp, below = self.face.xp, super()._denominator(name, z)
        if not self.face.holds(inside := below > 0):
            outside, count, largest = int((~inside).sum()), math.prod(below.shape), xp.sqrt(1 - below).max().item()
            raise ValueError(
                f"`{name}` must lie in the open unit ball, got {outside} of {count} points with norm 1 or more, or NaN "
                f"(largest: {largest:.6g}). "
                "`manifolds.Hyperboloid` is the same space in a chart that is all of R^d."
            )
        return below

    def to_ambient(self, z: A) -> A:
        r"""Points ``(*batch, d + 1)`` of the hyperboloid :math:`x_0^2 - |x|^2 = 1 / |K|`, x_0 last.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        below = self._denominator("z", z)[..., None]
        return self._factor**0.5 * self.face.xp.concat([2 * z / below, 2 / below - 1], axis=-1)

    def from_ambient(self, x: A) -> A:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        unit = self._on_hyperboloid(x)
        return unit[..., :-1] / (1 + unit[..., -1:])

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log transition density of Brownian motion with respect to dM, exact; shape ``(*batch)``.

        The generator is half the Laplace-Beltrami operator, so ``time`` is the variance of small
        steps. Odd d is a closed form, even d an integral by Gauss-Legendre quadrature, McKean's for d = 2; no term is
        negative. Accurate in the logarithm at all times and distances up to 709: to 1e-12, or to the rounding of the
        exponents ``l^2 / 2t`` and ``(d - 1)^2 t / 8`` where this is more.
        Computed in float64 from float32 points as well; by JAX where ``jax_enable_x64`` is set, else in float32: then
        to 1e-5 and the rounding of that.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or so short that the rounding of ``l^2 / 2t``
                exceeds 0.1, or points lie so far apart that ``sinh(l/2)^2`` overflows.

        Source: McKean (1970), *An upper bound to the spectrum of Delta on a manifold of negative curvature*;
        Grigor'yan & Noguchi (1998), *The heat kernel on hyperbolic space*.
        """
        return super().log_heat_kernel(z, y, time)
