"""Hyperbolic space in the Poincare ball."""

from __future__ import annotations

from torch import Tensor

from pyro_riemann._formulas import conformal
from pyro_riemann.manifolds._space_form import SpaceForm


class Hyperbolic(conformal.PoincareBall[Tensor], SpaceForm):
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
        >>> ball = Hyperbolic(3)
        >>> kernel = ball.log_heat_kernel(torch.zeros(3), torch.zeros(3), time=0.5)
        >>> expected = -0.25 - 1.5 * torch.tensor(torch.pi).log()  # e^{-t/2} (2 pi t)^{-3/2}
        >>> bool(torch.isclose(kernel, expected))
        True
    """
