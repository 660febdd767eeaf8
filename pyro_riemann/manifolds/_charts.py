"""Charts of hyperbolic space that are all of R^d: no boundary to fall over, no digits lost near it."""

from __future__ import annotations

from torch import Tensor

from pyro_riemann._formulas import half_space, hyperboloid
from pyro_riemann.manifolds._space_form import SpaceForm


class Hyperboloid(hyperboloid.LorentzHyperboloid[Tensor], SpaceForm):
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


class HalfSpace(half_space.LogHalfSpace[Tensor], SpaceForm):
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
