"""Symmetric spaces: the sphere, hyperbolic space also in charts that are all of R^d, and positive definite matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._formulas import folding, space_form
from pyro_riemann._formulas.conformal import PoincareBall, StereographicSphere
from pyro_riemann._formulas.hyperbolic import LogHalfSpace, LorentzHyperboloid
from pyro_riemann._formulas.positive_definite import PositiveDefinite
from pyro_riemann.manifolds._heat_kernel import ExactKernels
from pyro_riemann.metrics._flat import ClosedForm


class SpaceForm(space_form.SpaceForm[Tensor], ClosedForm):
    """The charts of constant curvature on tensors."""

    kernels = ExactKernels()

    def extra_repr(self) -> str:
        return f"dim={self.dim}, curvature={self.curvature:g}"

    def _num_turns(self, time: Tensor) -> int:
        return folding.num_turns(_longest(time), self.dim)


class Sphere(StereographicSphere[Tensor], SpaceForm):
    r"""The sphere :math:`S^d` of radius R in stereographic coordinates, :math:`G(z) = 4 R^2 I / (1 + |z|^2)^2`.

    The chart :math:`\mathbb{R}^d` covers the sphere but one pole: ``z = 0`` is the other pole,
    ``|z| = 1`` the equator. The chart does not depend on the radius. Curvature is
    :math:`1 / R^2`, scalar curvature :math:`d (d - 1) / R^2`.

    At antipodal points (the cut locus) the distance is pi R and has a kink; gradients are finite
    there but are those of no particular geodesic, and ``log_van_vleck``, infinite in truth, is a
    large finite number.

    Args:
        dim: dimension d of the sphere (2 for the globe).
        radius: R, a positive number; :class:`pyro_riemann.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``radius`` not positive and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> sphere = Sphere(2)
        >>> z, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])  # two points on the equator
        >>> round(sphere.dist(z, y).item(), 4)  # a quarter turn
        1.5708
        >>> sphere.to_ambient(z)
        tensor([1., 0., 0.])
        >>> kernel = sphere.log_heat_kernel(torch.zeros(2), torch.ones(2), time=20.0)
        >>> round(kernel.exp().item() * 4 * torch.pi, 4)  # uniform after a long time
        1.0
    """

    def extra_repr(self) -> str:
        return f"dim={self.dim}, radius={self.radius:g}"


class Hyperbolic(PoincareBall[Tensor], SpaceForm):
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


class Hyperboloid(LorentzHyperboloid[Tensor], SpaceForm):
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


class HalfSpace(LogHalfSpace[Tensor], SpaceForm):
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


def _longest(time: Tensor) -> float:
    """The longest of the times; infinite where values cannot be read (``torch.jit.trace``, ``torch.vmap``)."""
    try:
        return math.inf if torch.jit.is_tracing() or time.numel() == 0 else float(time.detach().max())
    except RuntimeError:
        return math.inf


class SPD(PositiveDefinite[Tensor], ClosedForm):
    r"""Symmetric positive definite n x n matrices, :math:`|\dot P|^2 = \mathrm{tr}(P^{-1} \dot P P^{-1} \dot P)`.

    The affine-invariant metric, which is also the Fisher-Rao metric of normal laws with covariance P, times 2. It is
    that of a symmetric space without positive curvature: two points have one geodesic, and congruence
    :math:`P \mapsto C P C^\top` and inversion are isometries. The scalar curvature is ``-n (n - 1) (n + 2) / 8``.

    The chart is all of :math:`\mathbb{R}^d`, d = n (n + 1) / 2: with :math:`P = L L^\top`, the entries of the Cholesky
    factor L below the diagonal, row by row, followed by the logarithms of those on it. 0 is the identity matrix.

    The heat kernel is known for n = 1, a line, and n = 2, the product of a line and the hyperbolic plane of
    curvature -1/2.

    Args:
        size: number n of rows.

    Raises:
        ValueError: if ``size`` is less than 1.

    Source: Pennec, Fillard & Ayache (2006), *A Riemannian framework for tensor computing*; Moakher (2005), *A
    differential geometric approach to the geometric mean of symmetric positive-definite matrices*; Lin (2019),
    *Riemannian geometry of symmetric positive definite matrices via Cholesky decomposition*, for the chart.

    Example:
        >>> spd = SPD(2)
        >>> z = spd.from_matrix(torch.eye(2))
        >>> y = spd.from_matrix(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
        >>> round(spd.dist(z, y).item(), 4)  # sqrt 2 log 2
        0.9803
        >>> spd.to_matrix(spd.expmap(z, 0.5 * spd.logmap(z, y))).round(decimals=4)
        tensor([[1.4142, 0.0000],
                [0.0000, 0.7071]])
    """

    kernels = ExactKernels()

    def extra_repr(self) -> str:
        return f"size={self.size}"
