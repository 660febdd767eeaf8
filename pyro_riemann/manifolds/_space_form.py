"""What the sphere and hyperbolic space share: constant curvature, in whatever chart."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._formulas import conformal, densities, folding, space_form
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric


class SpaceForm(RiemannianMetric):
    """What follows from the half angle between two points alone; subclasses are charts.

    The chart is that of curvature 1 or -1, whatever the curvature: only lengths change.
    """

    sign: int
    is_symmetric = True

    def __init__(self, dim: int, curvature: float) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self.dim, self.curvature = dim, float(curvature)
        self._factor = 1 / abs(self.curvature)  # of G, over that of curvature 1 or -1

    def extra_repr(self) -> str:
        return f"dim={self.dim}, curvature={self.curvature:g}"

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """True in hyperbolic space, false on a sphere."""
        return self.sign < 0

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-1:]) != (self.dim + 1,):
            return ""
        name = type(self).__name__
        return f" If these are ambient coordinates, `{name}.from_ambient` has those of the chart."

    def _check(self, name: str, z: Tensor) -> Tensor:
        """``z``, if it is a point of the chart."""
        return check_point(name, z, self.dim, self)

    def _half_angle(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``sin(l/2)^2`` and ``cos(l/2)^2``, or ``sinh(l/2)^2`` and ``cosh(l/2)^2``, each ``(*batch)``."""
        raise NotImplementedError

    def scalar_curvature(self, z: Tensor) -> Tensor:
        return torch.full_like(self._check("z", z)[..., 0], self.curvature * self.dim * (self.dim - 1))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(self.curvature)

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        radius = math.inf if self.sign < 0 else math.pi * self._factor**0.5
        return torch.full_like(self._check("z", z)[..., 0], radius)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self._factor * space_form.squared_dist(torch, *self._half_angle(z, y), self.sign)

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        return space_form.log_van_vleck(torch, *self._half_angle(z, y), self.sign, self.dim)

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``y = expmap(z, v)``, ``(*batch, d)``, and ``log V(z, y)``, ``(*batch)``, in closed form.

        Beyond the antipode, V is that of the longer arc (with an absolute value).
        """
        squared = self.inner(z, v, v) / self._factor
        return self.expmap(z, v), space_form.log_van_vleck_of_velocity(torch, squared, self.sign, self.dim)

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        r"""Log density at ``y`` of ``expmap(z, v)`` with :math:`v \sim N(0, t\,G(z)^{-1})`, in closed form.

        With respect to dM, shape ``(*batch)``. In hyperbolic space one geodesic leads to ``y``, on the sphere
        infinitely many do: for d >= 2 the density is infinite at ``z`` and at its antipode, where all of them meet, and
        is replaced there by that at a distance of the root of the machine precision.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            time: variance t of the tangent vectors, ``(*batch)``.
        """
        if self.sign < 0:
            squared, log_van_vleck = self.squared_dist(z, y), self.log_van_vleck(z, y)
            return densities.single_geodesic(torch, self.dim, time, squared, log_van_vleck)
        s, c, time = torch.broadcast_tensors(*self._half_angle(z, y), time / self._factor)
        turns = folding.num_turns(_longest(time), self.dim)
        return folding.log_density(torch, s, c, time, self.dim, turns) - self._log_density_factor

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        r"""Log density at ``y`` of ``expmap(z, factor @ x)``, x standard normal, in closed form, as a density in dM.

        All geodesics from ``z`` to ``y`` start along one line, on which the law is that of a variance of its own, so
        that on the sphere the sum is that of :meth:`log_folded_density`; shape ``(*batch)``.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.
        """
        noise = _linalg.solve(factor, self.logmap(z, y)).square().sum(-1)
        log_factor, logdet = _linalg.log_abs_det(factor), self.logdet(z)
        if self.sign < 0:
            log_van_vleck = self.log_van_vleck(z, y)
            return densities.tangent_normal(torch, self.dim, noise, log_factor, logdet, log_van_vleck)
        squared = self.squared_dist(z, y)
        apart = noise > torch.finfo(noise.dtype).tiny
        # where the two meet any direction will do
        mean = torch.exp((2 * log_factor + logdet) / self.dim)
        time = torch.where(apart, squared / torch.where(apart, noise, torch.ones_like(noise)), mean)
        folded = self.log_folded_density(z, y, time)
        return None if folded is None else folded + 0.5 * (self.dim * torch.log(time) - logdet) - log_factor

    @property
    def _log_density_factor(self) -> float:
        """What the log of a density in dM loses, over that of curvature 1 or -1."""
        return 0.5 * self.dim * math.log(self._factor)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        """Shortest curve from ``z`` to ``y`` in closed form, batches broadcast.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            init: without effect: nothing is searched for.
            **settings: of the solver's settings only ``num_segments`` matters.

        Raises:
            ValueError: for an unknown ``init``, or settings out of range.
        """
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)


class ConformalSpaceForm(SpaceForm):
    r"""The chart :math:`4 R^2 |dz|^2 / (1 \pm |z|^2)^2` of curvature :math:`\pm 1 / R^2`."""

    def _denominator(self, name: str, z: Tensor) -> Tensor:
        """``1 + |z|^2`` or ``1 - |z|^2``, shape ``(*batch)``; also the check that ``z`` is in the chart."""
        return conformal.denominator(torch, self._check(name, z), self.sign)

    def _half_angle(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self._denominator("z", z), self._denominator("y", y)
        return conformal.half_angle(torch, z, y, first, second, self.sign)

    def metric(self, z: Tensor) -> Tensor:
        return self.cholesky(z).square()

    def cholesky(self, z: Tensor) -> Tensor:
        return (2 * self._factor**0.5 / self._denominator("z", z))[..., None, None] * _eye(self.dim, z)

    def logdet(self, z: Tensor) -> Tensor:
        return conformal.logdet(torch, self._denominator("z", z), self.dim) + self.dim * math.log(self._factor)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._factor * conformal.inner(torch, self._denominator("z", z), u, v)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        eye = self._factor * _eye(self.dim, z)
        return conformal.metric_jacobian(torch, z, self._denominator("z", z), eye, self.sign)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return conformal.christoffel(torch, z, v, self._denominator("z", z), self.sign)

    def drift(self, z: Tensor) -> Tensor:
        return -self.curvature * (self.dim - 2) / 4 * self._denominator("z", z)[..., None] * z

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return conformal.expmap(torch, z, v, self._denominator("z", z), self.sign)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        first, second = self._denominator("z", z), self._denominator("y", y)
        return conformal.logmap(torch, z, y, first, second, self.sign)


def _eye(dim: int, like: Tensor) -> Tensor:
    return torch.eye(dim, dtype=like.dtype, device=like.device)


def _longest(time: Tensor) -> float:
    """The longest of the times; infinite where values cannot be read (``torch.jit.trace``, ``torch.vmap``)."""
    try:
        return math.inf if torch.jit.is_tracing() or time.numel() == 0 else float(time.detach().max())
    except RuntimeError:
        return math.inf
