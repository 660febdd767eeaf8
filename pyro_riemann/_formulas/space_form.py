"""Spaces of constant curvature K: what the sphere and hyperbolic space share, in whatever chart.

Everything rests on two functions of two points: ``s``, which is ``sin(l/2)^2`` on the sphere and ``sinh(l/2)^2``
in hyperbolic space, and ``c``, the squared cosine (``1 + s``) of the same half angle; both ``(*batch)``. The length l
is that at curvature 1 or -1.
"""

from __future__ import annotations

import math
from typing import ClassVar

from pyro_riemann._formulas import densities, folding, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.exact_kernels import ExactKernels
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._formulas.radial import RadialLaw


class SpaceForm(MetricAlgebra[A]):
    """What follows from the half angle between two points alone; subclasses are charts.

    The chart is that of curvature 1 or -1, whatever the curvature: only lengths change.
    """

    sign: int
    kernels: ClassVar[ExactKernels]
    is_symmetric = True

    def __init__(self, dim: int, curvature: float) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self.dim, self.curvature = dim, float(curvature)
        self._factor = 1 / abs(self.curvature)  # of G, over that of curvature 1 or -1

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """True in hyperbolic space, false on a sphere."""
        return self.sign < 0

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-1:]) != (self.dim + 1,):
            return ""
        name = type(self).__name__
        return f" If these are ambient coordinates, `{name}.from_ambient` has those of the chart."

    def _check(self, name: str, z: A) -> A:
        """``z``, if it is a point of the chart."""
        return self.face.check_point(name, z, self.dim, self)

    def _half_angle(self, z: A, y: A) -> tuple[A, A]:
        """``s`` and ``c``, each ``(*batch)``."""
        raise NotImplementedError

    def _ambient(self, x: A, radius: float) -> A:
        """Points ``(*batch, d + 1)`` of the ambient space in units of the radius."""
        if x.ndim == 0 or x.shape[-1] != self.dim + 1:
            raise ValueError(f"`x` must have shape (*batch, {self.dim + 1}), got {tuple(x.shape)}.")
        return x / radius

    def scalar_curvature(self, z: A) -> A:
        return self.face.xp.full_like(self._check("z", z)[..., 0], self.curvature * self.dim * (self.dim - 1))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(self.curvature)

    def injectivity_radius(self, z: A) -> A | None:
        radius = math.inf if self.sign < 0 else math.pi * self._factor**0.5
        return self.face.xp.full_like(self._check("z", z)[..., 0], radius)

    def squared_dist(self, z: A, y: A) -> A:
        return self._factor * smooth.squared_dist(self.face.xp, *self._half_angle(z, y), self.sign)

    def log_van_vleck(self, z: A, y: A) -> A:
        return smooth.log_van_vleck(self.face.xp, *self._half_angle(z, y), self.sign, self.dim)

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        """``y = expmap(z, v)``, ``(*batch, d)``, and ``log V(z, y)``, ``(*batch)``, in closed form.

        Beyond the antipode, V is that of the longer arc (with an absolute value).
        """
        return self.expmap(z, v), self._log_van_vleck_along(self.inner(z, v, v) / self._factor)

    def _log_van_vleck_along(self, squared: A) -> A:
        """``log V`` at the end of a geodesic of this squared length, at curvature 1 or -1."""
        if self.sign < 0:
            return (1 - self.dim) * smooth.log_sinhc(self.face.xp, squared)
        xp = self.face.xp
        sinc = xp.abs(smooth.sinc(xp, squared))
        return (1 - self.dim) * xp.log(xp.clip(sinc, min=xp.finfo(sinc.dtype).tiny))

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        r"""Log density at ``y`` of ``expmap(z, v)`` with :math:`v \sim N(0, t\,G(z)^{-1})`, in closed form.

        With respect to dM, shape ``(*batch)``. In hyperbolic space one geodesic leads to ``y``, on the sphere
        infinitely many do: for d >= 2 the density is infinite at ``z`` and at its antipode, where all of them meet, and
        is replaced there by that at a distance of the root of the machine precision.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            time: variance t of the tangent vectors, ``(*batch)``.
        """
        return self._log_folded_density(z, y, time, self._num_turns(time / self._factor) if self.sign > 0 else 0)

    def _num_turns(self, time: A) -> int:
        """How many turns the formula of the sphere takes."""
        raise NotImplementedError

    def _log_folded_density(self, z: A, y: A, time: A, turns: int) -> A:
        if self.sign < 0:
            squared, log_van_vleck = self.squared_dist(z, y), self.log_van_vleck(z, y)
            return densities.single_geodesic(self.face.xp, self.dim, time, squared, log_van_vleck)
        s, c, time = self.face.broadcast(*self._half_angle(z, y), time / self._factor)
        return folding.log_density(self.face.xp, s, c, time, self.dim, turns) - self._log_density_factor

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        r"""Log density at ``y`` of ``expmap(z, factor @ x)``, x standard normal, in closed form, as a density in dM.

        All geodesics from ``z`` to ``y`` start along one line, on which the law is that of a variance of its own, so
        that on the sphere the sum is that of :meth:`log_folded_density`; shape ``(*batch)``.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.
        """
        if self.sign < 0:
            return self._log_carried_normal(z, y, factor)
        xp = self.face.xp
        noise = xp.square(self.face.solve(factor, self.logmap(z, y))).sum(-1)
        log_factor, logdet = self.face.log_abs_det(factor), self.logdet(z)
        apart = noise > xp.finfo(noise.dtype).tiny
        # where the two meet any direction will do
        mean = xp.exp((2 * log_factor + logdet) / self.dim)
        time = xp.where(apart, self.squared_dist(z, y) / xp.where(apart, noise, xp.ones_like(noise)), mean)
        folded = self.log_folded_density(z, y, time)
        return None if folded is None else folded + 0.5 * (self.dim * xp.log(time) - logdet) - log_factor

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Exact log heat kernel with respect to dM, ``(*batch)``, as that of ``Sphere`` or ``Hyperbolic``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or as there.
        """
        wide, other = (self.face.double(self._check(name, point)) for name, point in (("z", z), ("y", y)))
        value = self._log_heat_kernel(wide, other, time / self._factor) - self._log_density_factor
        return self.face.cast(value, z + y)

    def _log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """The kernel at curvature 1 or -1."""
        s, c = self._half_angle(z, y)
        if self.sign < 0:
            return self.kernels.hyperbolic(s, time, self.dim)
        return self.kernels.sphere(s, c, time, self.dim)

    @property
    def _log_density_factor(self) -> float:
        """What the log of a density in dM loses, over that of curvature 1 or -1."""
        return 0.5 * self.dim * math.log(self._factor)


class HyperbolicForm(SpaceForm[A]):
    """A chart of hyperbolic space."""

    sign = -1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        if not -math.inf < curvature < 0:
            raise ValueError(f"`curvature` must be negative and finite, got {curvature}.")
        super().__init__(dim, curvature)

    def _on_hyperboloid(self, x: A) -> A:
        """Points of the unit hyperboloid, the time last, from those of the one of this curvature."""
        xp, x = self.face.xp, self._ambient(x, self._factor**0.5)
        squared = xp.square(x)
        gap = xp.abs(squared[..., -1] - squared[..., :-1].sum(-1) - 1)
        if not self.face.holds((gap < 1e-3 * squared.sum(-1)) & (x[..., -1] > 0)):
            raise ValueError(
                f"`x` must lie on the hyperboloid x_0^2 - |x|^2 = {self._factor:g}, its positive entry x_0 last."
            )
        return x
