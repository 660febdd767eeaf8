"""Hyperbolic space in the Poincare ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._checks import holds
from pyro_riemann.manifolds import _heat_kernel
from pyro_riemann.manifolds._space_form import ConformalSpaceForm


class Hyperbolic(ConformalSpaceForm):
    r"""Hyperbolic space :math:`H^d` in the Poincare ball, :math:`G(z) = 4 I / (|K| (1 - |z|^2)^2)` for ``|z| < 1``.

    Curvature is K, scalar curvature ``d (d - 1) K``. The chart is the open unit ball at every K, not all of R^d:
    a point outside raises. Where a point must be unconstrained (NUTS, an encoder's output) use
    :class:`pyro_riemann.manifolds.Hyperboloid` or :class:`~pyro_riemann.manifolds.HalfSpace`, the same
    space in charts that are all of R^d.

    Near the boundary coordinates run out of digits: at K = -1 and distance r from the centre a distance is good to
    about ``exp(r)`` times the machine precision (1e-8 at r = 20 in float64, 1e-3 at r = 10 in float32), and
    beyond r = 36 (16) there are no points; :meth:`expmap` stops there.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite; by methods, if a point lies
            outside the open unit ball.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> ball = Hyperbolic(2)
        >>> y = torch.tensor([0.5, 0.0])
        >>> round(ball.dist(torch.zeros(2), y).item(), 4)  # 2 atanh(1/2)
        1.0986
    """

    sign = -1

    def __init__(self, dim: int, curvature: float = -1.0) -> None:
        super().__init__(dim, check_negative(curvature))

    def to_ambient(self, z: Tensor) -> Tensor:
        r"""Points ``(*batch, d + 1)`` of the hyperboloid :math:`x_0^2 - |x|^2 = 1 / |K|`, x_0 last.

        Args:
            z: points of the chart, ``(*batch, d)``.
        """
        below = self._denominator("z", z)[..., None]
        return self._factor**0.5 * torch.cat([2 * z / below, 2 / below - 1], dim=-1)

    def from_ambient(self, x: Tensor) -> Tensor:
        """Chart coordinates of points ``(*batch, d + 1)`` of the hyperboloid, as :meth:`to_ambient` returns them.

        Raises:
            ValueError: if ``x`` does not have d + 1 entries, or does not lie on the hyperboloid.
        """
        unit = on_hyperboloid(x, self.dim, self._factor)
        return unit[..., :-1] / (1 + unit[..., -1:])

    def _denominator(self, name: str, z: Tensor) -> Tensor:
        value = super()._denominator(name, z)
        if not holds(value > 0):
            norm = z.detach().norm(dim=-1)
            raise ValueError(
                f"`{name}` must lie in the open unit ball, got {int((~(norm < 1)).sum())} of {norm.numel()} points "
                f"with norm 1 or more, or NaN (largest: {norm.max().item():.6g}). "
                "`manifolds.Hyperboloid` is the same space in a chart that is all of R^d."
            )
        return value

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Log transition density of Brownian motion with respect to dM, exact; shape ``(*batch)``.

        The generator is half the Laplace-Beltrami operator, so ``time`` is the variance of small
        steps. Odd d is a closed form, even d an integral by Gauss-Legendre quadrature, McKean's for d = 2; no term is
        negative. Accurate in the logarithm at all times and distances up to 709: to 1e-12, or to the rounding of the
        exponents ``l^2 / 2t`` and ``(d - 1)^2 t / 8`` where this is more.
        Computed in float64 from float32 points as well.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive, or so short that the rounding of ``l^2 / 2t``
                exceeds 0.1, or points lie so far apart that ``sinh(l/2)^2`` overflows.

        Source: McKean (1970), *An upper bound to the spectrum of Delta on a manifold of negative curvature*;
        Grigor'yan & Noguchi (1998), *The heat kernel on hyperbolic space*.

        Example:
            >>> ball = Hyperbolic(3)
            >>> kernel = ball.log_heat_kernel(torch.zeros(3), torch.zeros(3), time=0.5)
            >>> expected = -0.25 - 1.5 * torch.tensor(torch.pi).log()  # e^{-t/2} (2 pi t)^{-3/2}
            >>> bool(torch.isclose(kernel, expected))
            True
        """
        value = _heat_kernel.hyperbolic(self._half_angle(z.double(), y.double())[0], time / self._factor, self.dim)
        return (value - self._log_density_factor).to(torch.result_type(z, y))


def check_negative(curvature: float) -> float:
    """``curvature``, if it is that of a hyperbolic space."""
    if not -math.inf < curvature < 0:
        raise ValueError(f"`curvature` must be negative and finite, got {curvature}.")
    return curvature


def on_hyperboloid(x: Tensor, dim: int, squared_radius: float) -> Tensor:
    """Points of the unit hyperboloid, the time last, from those of one of a radius, ``(*batch, d + 1)``."""
    if x.dim() == 0 or x.shape[-1] != dim + 1:
        raise ValueError(f"`x` must have shape (*batch, {dim + 1}), got {tuple(x.shape)}.")
    x = x / squared_radius**0.5
    squared = x.detach().square()
    if not holds(
        ((squared[..., -1] - squared[..., :-1].sum(-1) - 1).abs() < 1e-3 * squared.sum(-1)) & (x[..., -1] > 0)
    ):
        raise ValueError(
            f"`x` must lie on the hyperboloid x_0^2 - |x|^2 = {squared_radius:g}, its positive entry x_0 last."
        )
    return x
