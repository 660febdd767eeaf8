"""Charts of hyperbolic space that are all of R^d: no boundary to fall over, no digits lost near it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._checks import check_point
from pyro_riemann._formulas import half_space, hyperboloid, space_form
from pyro_riemann.manifolds import _heat_kernel
from pyro_riemann.manifolds._hyperbolic import check_negative, on_hyperboloid
from pyro_riemann.manifolds._space_form import SpaceForm


class _HyperbolicChart(SpaceForm):
    """A chart of H^d that is all of R^d."""

    sign = -1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, check_negative(curvature))

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        """``sinh(l/2)^2``, shape ``(*batch)``."""
        raise NotImplementedError

    def _half_angle(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._check("z", z), self._check("y", y)
        s = self._half_chord(z, y)
        return s, 1 + s

    def _within_range(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self._check("z", z), check_point("v", v, self.dim)
        return space_form.within_range(torch, v, self.inner(z, v, v) / self._factor)

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Exact log heat kernel, as :meth:`pyro_riemann.Hyperbolic.log_heat_kernel`; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``, with respect to dM.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or as there.
        """
        value = _heat_kernel.hyperbolic(self._half_angle(z.double(), y.double())[0], time / self._factor, self.dim)
        return (value - self._log_density_factor).to(torch.result_type(z, y))


class Hyperboloid(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the hyperboloid :math:`(z, \sqrt{1 + |z|^2})`, z in R^d.

    :math:`G(z) = (I - z z^\top / (1 + |z|^2)) / |K|`, K the curvature; at K = -1 ``|z| = sinh r`` at distance r from
    the origin. The chart does not depend on K. It is not conformal, so the Ito drift of Brownian motion does not
    vanish: it is :math:`|K| d z / 2`.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.manifolds import Hyperboloid
        >>> metric = Hyperboloid(2)
        >>> round(metric.dist(torch.zeros(2), torch.tensor([1.0, 0.0])).item(), 4)  # asinh(1)
        0.8814
    """

    def metric(self, z: Tensor) -> Tensor:
        slope = z / hyperboloid.height(torch, self._check("z", z))
        eye = torch.eye(self.dim, dtype=z.dtype, device=z.device)
        return self._factor * (eye - slope[..., :, None] * slope[..., None, :])

    def cholesky(self, z: Tensor) -> Tensor:
        below, diagonal = hyperboloid.cholesky(torch, self._check("z", z))
        return self._factor**0.5 * (below + torch.diag_embed(diagonal))

    def logdet(self, z: Tensor) -> Tensor:
        return self.dim * math.log(self._factor) - self._check("z", z).square().sum(-1).log1p()

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        self._check("z", z)
        return self._factor * (hyperboloid.root(torch, z, u) * hyperboloid.root(torch, z, v)).sum(-1)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return -self.inner(z, v, v)[..., None] * z / self._factor

    def drift(self, z: Tensor) -> Tensor:
        return self.dim / (2 * self._factor) * self._check("z", z)

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return hyperboloid.expmap(torch, z, *self._within_range(z, v))

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return hyperboloid.logmap(torch, self._check("z", z), self._check("y", y))

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        return hyperboloid.half_chord(torch, z, y)

    def to_ball(self, z: Tensor) -> Tensor:
        """The points ``z`` in the Poincare ball of :class:`pyro_riemann.Hyperbolic`, ``(*batch, d)``."""
        return hyperboloid.to_ball(torch, self._check("z", z))

    def from_ball(self, x: Tensor) -> Tensor:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        return hyperboloid.from_ball(torch, x)

    def to_ambient(self, z: Tensor) -> Tensor:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`pyro_riemann.Hyperbolic.to_ambient`.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        return self._factor**0.5 * torch.cat([z, hyperboloid.height(torch, self._check("z", z))], dim=-1)

    def from_ambient(self, x: Tensor) -> Tensor:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return on_hyperboloid(x, self.dim, self._factor)[..., :-1]


class HalfSpace(_HyperbolicChart):
    r"""Hyperbolic space :math:`H^d` as the upper half-space with the logarithm of the height as last coordinate.

    :math:`ds^2 = (e^{-2h} |dx|^2 + dh^2) / |K|` at ``z = (x, h)`` in R^d, K the curvature. The drift of Brownian motion
    is :math:`-|K| (d - 1) / 2` in h and 0 in x.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.manifolds import HalfSpace
        >>> metric = HalfSpace(3)
        >>> round(metric.dist(torch.zeros(3), torch.tensor([0.0, 0.0, 2.0])).item(), 4)  # straight up
        2.0
    """

    def metric(self, z: Tensor) -> Tensor:
        h = self._check("z", z)[..., -1:]
        scale = torch.cat([torch.exp(-2 * h).expand_as(z[..., :-1]), torch.ones_like(h)], dim=-1)
        return torch.diag_embed(self._factor * scale)

    def logdet(self, z: Tensor) -> Tensor:
        return self.dim * math.log(self._factor) - 2 * (self.dim - 1) * self._check("z", z)[..., -1]

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._factor * half_space.inner(torch, self._check("z", z), u, v)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return half_space.christoffel(torch, self._check("z", z), check_point("v", v, self.dim))

    def drift(self, z: Tensor) -> Tensor:
        self._check("z", z)
        return torch.cat(
            [torch.zeros_like(z[..., :-1]), torch.full_like(z[..., -1:], -(self.dim - 1) / (2 * self._factor))], dim=-1
        )

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return half_space.expmap(torch, z, *self._within_range(z, v))

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return half_space.logmap(torch, self._check("z", z), self._check("y", y))

    def _half_chord(self, z: Tensor, y: Tensor) -> Tensor:
        return half_space.half_chord(torch, z, y)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self._factor * half_space.squared_dist(torch, self._check("z", z), self._check("y", y))

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        squared = half_space.squared_dist(torch, self._check("z", z), self._check("y", y))
        return space_form.log_van_vleck_of_velocity(torch, squared, self.sign, self.dim)

    def to_ball(self, z: Tensor) -> Tensor:
        """The points ``z`` in the Poincare ball, ``(*batch, d)``; (0, ..., 0) is its centre."""
        return half_space.to_ball(torch, self._check("z", z))

    def from_ball(self, x: Tensor) -> Tensor:
        """Points ``x`` of the open Poincare ball in this chart, ``(*batch, d)``."""
        return half_space.from_ball(torch, x)

    def to_ambient(self, z: Tensor) -> Tensor:
        """Points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`pyro_riemann.Hyperbolic.to_ambient`.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        return Hyperboloid(self.dim, self.curvature).to_ambient(hyperboloid.from_ball(torch, self.to_ball(z)))

    def from_ambient(self, x: Tensor) -> Tensor:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        return self.from_ball(hyperboloid.to_ball(torch, on_hyperboloid(x, self.dim, self._factor)[..., :-1]))
