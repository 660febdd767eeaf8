"""Symmetric spaces: the sphere, hyperbolic space also in charts that are all of R^d, and positive definite matrices."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import folding
from pyro_riemann._formulas import space_form as formulas
from pyro_riemann._formulas.conformal import PoincareBall, StereographicSphere
from pyro_riemann._formulas.hyperbolic import LogHalfSpace, LorentzHyperboloid
from pyro_riemann._formulas.positive_definite import PositiveDefinite
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro.manifolds._heat_kernel import ExactKernels
from pyro_riemann.numpyro.metrics._flat import ClosedForm

F = TypeVar("F", bound=Callable[..., Any])


def compiled(method: F, static_argnames: str | None = None) -> F:
    """The method as a program. Points are checked before they enter it: there values cannot be read."""
    program: Any = jax.jit(method, static_argnames=static_argnames)
    names = list(inspect.signature(method).parameters)[1:]

    def check(metric: SpaceForm, name: str, value: Any) -> Any:
        if name == "v":
            return check_point(name, value, metric.dim)
        return metric._check(name, value) if name in ("z", "y") else value

    @functools.wraps(method)
    def checked(self: SpaceForm, *args: Any, **named: Any) -> Any:
        given = (*args, *(named[name] for name in names[len(args) :]))
        return program(self, *(check(self, name, value) for name, value in zip(names, given, strict=True)))

    return cast(F, checked)


class SpaceForm(formulas.SpaceForm[Array], ClosedForm):
    """The charts of constant curvature on arrays."""

    kernels = ExactKernels()

    squared_dist = compiled(formulas.SpaceForm.squared_dist)
    log_van_vleck = compiled(formulas.SpaceForm.log_van_vleck)
    _log_van_vleck_along = jax.jit(formulas.SpaceForm._log_van_vleck_along)
    _log_folded_density = compiled(formulas.SpaceForm._log_folded_density, static_argnames="turns")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, curvature={self.curvature:g})"

    def _num_turns(self, time: Array) -> int:
        """A power of two, since a new number compiles anew."""
        longest = math.inf if isinstance(time, jax.core.Tracer) or np.size(time) == 0 else float(np.asarray(time).max())
        return int(2 ** math.ceil(math.log2(folding.num_turns(longest, self.dim))))


class Sphere(StereographicSphere[Array], SpaceForm):
    r"""The sphere :math:`S^d` of radius R in stereographic coordinates, :math:`G(z) = 4 R^2 I / (1 + |z|^2)^2`.

    The chart :math:`\mathbb{R}^d` covers the sphere but one pole: ``z = 0`` is the other pole,
    ``|z| = 1`` the equator. The chart does not depend on the radius. Curvature is
    :math:`1 / R^2`, scalar curvature :math:`d (d - 1) / R^2`.

    At antipodal points (the cut locus) the distance is pi R and has a kink; gradients are finite
    there but are those of no particular geodesic, and ``log_van_vleck``, infinite in truth, is a
    large finite number.

    Args:
        dim: dimension d of the sphere (2 for the globe).
        radius: R, a positive number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``radius`` not positive and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> sphere = Sphere(2)
        >>> z, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])  # two points on the equator
        >>> round(sphere.dist(z, y).item(), 4)  # a quarter turn
        1.5708
        >>> sphere.to_ambient(z).tolist()
        [1.0, 0.0, 0.0]
        >>> kernel = sphere.log_heat_kernel(jnp.zeros(2), jnp.ones(2), time=20.0)
        >>> round(jnp.exp(kernel).item() * 4 * jnp.pi, 4)  # uniform after a long time
        1.0
    """

    expmap = compiled(StereographicSphere.expmap)
    logmap = compiled(StereographicSphere.logmap)

    def __repr__(self) -> str:
        return f"Sphere(dim={self.dim}, radius={self.radius:g})"


class Hyperbolic(PoincareBall[Array], SpaceForm):
    r"""Hyperbolic space :math:`H^d` in the Poincare ball, :math:`G(z) = 4 I / (|K| (1 - |z|^2)^2)` for ``|z| < 1``.

    Curvature is K, scalar curvature ``d (d - 1) K``. The chart is the open unit ball at every K, not all of R^d:
    a point outside raises, or gives NaN under ``jit``. Where a point must be unconstrained (NUTS, an encoder's
    output) use :class:`~pyro_riemann.numpyro.manifolds.Hyperboloid` or
    :class:`~pyro_riemann.numpyro.manifolds.HalfSpace`, the same space in charts that are all of R^d.

    Near the boundary coordinates run out of digits: at K = -1 and distance r from the centre a distance is good to
    about ``exp(r)`` times the machine precision (1e-8 at r = 20 in float64, 1e-3 at r = 10 in float32), and
    beyond r = 36 (16) there are no points; :meth:`expmap` stops there.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite; by methods, if a point lies
            outside the open unit ball.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> ball = Hyperbolic(2)
        >>> round(ball.dist(jnp.zeros(2), jnp.array([0.5, 0.0])).item(), 4)  # 2 atanh(1/2)
        1.0986
        >>> ball = Hyperbolic(3)
        >>> kernel = ball.log_heat_kernel(jnp.zeros(3), jnp.zeros(3), time=0.5)
        >>> expected = -0.25 - 1.5 * jnp.log(jnp.pi)  # e^{-t/2} (2 pi t)^{-3/2}
        >>> jnp.isclose(kernel, expected).item()
        True
    """

    expmap = compiled(PoincareBall.expmap)
    logmap = compiled(PoincareBall.logmap)

    def _denominator(self, name: str, z: Array) -> Array:
        below = super()._denominator(name, z)
        return jnp.where(below > 0, below, jnp.nan)  # where nothing can raise, no number comes out either


class Hyperboloid(LorentzHyperboloid[Array], SpaceForm):
    r"""Hyperbolic space :math:`H^d` as the hyperboloid :math:`(z, \sqrt{1 + |z|^2})`, z in R^d.

    :math:`G(z) = (I - z z^\top / (1 + |z|^2)) / |K|`, K the curvature; at K = -1 ``|z| = sinh r`` at distance r from
    the origin. The chart does not depend on K. It is not conformal, so the Ito drift of Brownian motion does not
    vanish: it is :math:`|K| d z / 2`.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.numpyro.manifolds import Hyperboloid
        >>> metric = Hyperboloid(2)
        >>> round(metric.dist(jnp.zeros(2), jnp.array([1.0, 0.0])).item(), 4)  # asinh(1)
        0.8814
    """

    expmap = compiled(LorentzHyperboloid.expmap)
    logmap = compiled(LorentzHyperboloid.logmap)


class HalfSpace(LogHalfSpace[Array], SpaceForm):
    r"""Hyperbolic space :math:`H^d` as the upper half-space with the logarithm of the height as last coordinate.

    :math:`ds^2 = (e^{-2h} |dx|^2 + dh^2) / |K|` at ``z = (x, h)`` in R^d, K the curvature. The drift of Brownian motion
    is :math:`-|K| (d - 1) / 2` in h and 0 in x.

    Args:
        dim: dimension d.
        curvature: K, a negative number; :class:`pyro_riemann.numpyro.manifolds.ScaledMetric` has one that is learned.

    Raises:
        ValueError: if ``dim`` is less than 1, or ``curvature`` not negative and finite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> from pyro_riemann.numpyro.manifolds import HalfSpace
        >>> metric = HalfSpace(3)
        >>> round(metric.dist(jnp.zeros(3), jnp.array([0.0, 0.0, 2.0])).item(), 4)  # straight up
        2.0
    """

    expmap = compiled(LogHalfSpace.expmap)
    logmap = compiled(LogHalfSpace.logmap)
    squared_dist = compiled(LogHalfSpace.squared_dist)
    log_van_vleck = compiled(LogHalfSpace.log_van_vleck)


class SPD(PositiveDefinite[Array], ClosedForm):
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
        >>> z = spd.from_matrix(jnp.eye(2))
        >>> y = spd.from_matrix(jnp.array([[2.0, 0.0], [0.0, 0.5]]))
        >>> round(spd.dist(z, y).item(), 4)  # sqrt 2 log 2
        0.9803
        >>> spd.to_matrix(spd.expmap(z, 0.5 * spd.logmap(z, y))).round(3).tolist()  # half-way
        [[1.4140000343322754, 0.0], [0.0, 0.7070000171661377]]
    """

    kernels = ExactKernels()

    metric = jax.jit(PositiveDefinite.metric)
    christoffel = jax.jit(PositiveDefinite.christoffel)
    expmap = jax.jit(PositiveDefinite.expmap)
    expmap_log_van_vleck = jax.jit(PositiveDefinite.expmap_log_van_vleck)
    logmap = jax.jit(PositiveDefinite.logmap)
    squared_dist = jax.jit(PositiveDefinite.squared_dist)
    log_van_vleck = jax.jit(PositiveDefinite.log_van_vleck)

    def __repr__(self) -> str:
        return f"SPD(size={self.size})"
