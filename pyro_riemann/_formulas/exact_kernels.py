"""Exact heat kernels of arrays: sums and integrals run in the widest dtype, whatever the input."""

from __future__ import annotations

from typing import Any, ClassVar

from pyro_riemann._formulas import Array, heat_kernel, smooth
from pyro_riemann._formulas.calculus import Calculus


class ExactKernels:
    """The heat kernels of circle, sphere and hyperbolic space on a face, which knows how to sum that of the sphere."""

    face: ClassVar[Calculus]

    def as_time(self, time: Any, like: Array) -> Array:
        """``time`` as an array like ``like``; raise unless it is positive and finite, where that is known."""
        return self.face.check_positive("time", self.face.cast(time, like))

    def circle(self, step: Array, time: Array, period: Any) -> Array:
        """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself)."""
        return heat_kernel.circle(self.face.xp, step, time, self.face.cast(period, step))

    def sphere(self, s: Array, c: Array, time: Any, dim: int) -> Array:
        """Heat kernel of S^d, d >= 2, at ``s = sin(l/2)^2``, ``c = cos(l/2)^2``, both of the widest dtype."""
        s, c, duration = self.face.broadcast(s, c, self.as_time(time, s))
        self._check_digits(smooth.squared_dist(self.face.xp, s, c, 1), duration, dim)
        return self._sphere(s, c, duration, dim)

    def _sphere(self, s: Array, c: Array, time: Array, dim: int) -> Array:
        raise NotImplementedError

    def hyperbolic(self, s: Array, time: Any, dim: int) -> Array:
        """Heat kernel of H^d at ``s = sinh(l/2)^2``, of the widest dtype."""
        xp = self.face.xp
        s, duration = self.face.broadcast(s, self.as_time(time, s))
        if not self.face.holds(xp.isfinite(s)):
            raise ValueError(heat_kernel.too_far(str(xp.finfo(s.dtype).dtype)))
        self._check_digits(smooth.squared_dist(xp, s, 1 + s, -1), duration, dim)
        return self._hyperbolic(s, duration, dim)

    def _hyperbolic(self, s: Array, time: Array, dim: int) -> Array:
        xp, freeze = self.face.xp, self.face.freeze
        if dim % 2 == 1:
            return heat_kernel.hyperbolic_odd(xp, s, time, dim)
        end = heat_kernel.hyperbolic_even_end(xp, freeze(s), freeze(time), dim)
        return heat_kernel.hyperbolic_even(xp, s, time, end, dim)

    def _check_digits(self, squared: Array, time: Array, dim: int) -> None:
        squared, time = self.face.freeze(squared), self.face.freeze(time)
        exponent, kind = squared / (2 * time), self.face.xp.finfo(squared.dtype)
        if not self.face.holds(exponent * kind.eps < heat_kernel.LARGEST_ERROR):
            worst = int(exponent.argmax())
            lasted, dist, size = (part.reshape(-1)[worst].item() for part in (time, squared**0.5, exponent))
            raise ValueError(heat_kernel.no_digits(dim, lasted, dist, size, str(kind.dtype)))
