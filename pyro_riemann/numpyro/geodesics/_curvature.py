"""Scalar curvature, and the Van Vleck-Morette determinant of the solved boundary-value problem."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import calculus
from pyro_riemann._work import announced
from pyro_riemann.numpyro import _calculus
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro._interface import Energy, Immersed, Metric, Solver
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._path import by_curves, shortest_path
from pyro_riemann.numpyro.geodesics._pieces import Piece, gather, pieces
from pyro_riemann.numpyro.geodesics._solver import GeodesicSolver, flat_pairs


@announced
def scalar_curvature(metric: Metric, z: Array) -> Array:
    """Scalar curvature R(z); :math:`d(d-1)` on the unit sphere, twice the Gauss curvature if d = 2.

    Pullback metrics use :func:`gauss_curvature`, which needs second derivatives of the immersion only; other
    metrics use :func:`riemann_curvature`. Both agree on a pullback.

    Args:
        metric: any pytree with the interface of ``RiemannianMetric``.
        z: points, ``(*batch, d)``.

    Returns:
        Shape ``(*batch)``.

    Raises:
        TypeError, ValueError: if ``z`` is not a floating array ``(*batch, d)``.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 4, and chapter 6, section 2 (Gauss equation).

    Example:
        >>> class HalfPlane(RiemannianMetric):
        ...     dim = 2
        ...     def metric(self, z):
        ...         return z[..., 1:, None] ** -2 * jnp.eye(2)
        >>> round(HalfPlane().scalar_curvature(jnp.array([0.3, 2.0])).item(), 4)
        -2.0
    """
    z = check_point("z", z, metric.dim)
    surface = metric.immersed()
    return riemann_curvature(metric, z) if surface is None else gauss_curvature(surface, z)


@jax.jit
def gauss_curvature(metric: Immersed, z: Array) -> Array:
    """Scalar curvature of a pullback metric, ``(*batch)``, by the Gauss equation."""
    return calculus.gauss_curvature(_calculus, metric.embed_jacobian, z, metric.dim)


@jax.jit
def riemann_curvature(metric: Metric, z: Array) -> Array:
    """Scalar curvature of any metric, ``(*batch)``, from the first and second derivatives of G."""
    return calculus.riemann_curvature(_calculus, metric.metric_jacobian, z, metric.dim)


class _Solved(Metric, Protocol):
    """A metric that says how its boundary-value problems are solved."""

    @property
    def solver(self) -> GeodesicSolver: ...


@announced
def log_van_vleck(metric: _Solved, z: Array, y: Array) -> Array:
    r"""Log of :math:`V = |\det(-\partial_z \partial_y\, l^2/2)| / \sqrt{\det G(z) \det G(y)}`, shape ``(*batch)``.

    The mixed derivative of the least energy is a Schur complement of the full Hessian of the
    discrete energy, the interior of the curve eliminated; the Gauss-Newton Hessian would be wrong
    here, even on a cylinder. 0 where ``z == y``; infinite at conjugate points.
    Differentiable in both ends and in the metric's parameters.

    Args:
        metric: any metric.
        z: start, ``(*batch, d)``.
        y: end, ``(*batch, d)``.

    Raises:
        ValueError: for points of the wrong shape, or with NaN.
        TypeError: for points that are not floating arrays.
        RuntimeError: if a pair has no converged geodesic and ``on_failure="raise"``.

    Source: Morette (1951), *On the definition and approximation of Feynman's path integrals*.

    Example:
        >>> class Sphere2(RiemannianMetric):  # stereographic chart
        ...     dim = 2
        ...     def metric(self, z):
        ...         return 4 / (1 + (z * z).sum(-1))[..., None, None] ** 2 * jnp.eye(2)
        >>> z, y = jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0])
        >>> round(Sphere2().log_van_vleck(z, y).item(), 3)  # log(l / sin l), l = pi / 2
        0.452
    """
    z, y, shape = flat_pairs(metric, z, y)

    def volumes(piece: Piece, z: Array, y: Array) -> Array:
        return _log_van_vleck(piece.solver, metric, z, y, piece.starts, piece.guide)

    return gather(pieces(metric.solver, metric, z, y), volumes, z, y).reshape(shape)


@jax.jit
def _log_van_vleck(
    solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, guide: Array | None
) -> Array:
    control = _spline.with_ends(shortest_path(solver, metric, z, y, starts, guide), z, y)
    mixed = by_curves(solver, metric, _log_mixed, metric.energy(solver, guide), control)
    return mixed - 0.5 * (metric.logdet(z) + metric.logdet(y))


def _log_mixed(energy: Energy, control: Array) -> Array:
    """Log determinant of the least energy's mixed derivative in the ends."""
    dim, hessian = control.shape[-1], energy.exact_system(control).hessian
    inner = hessian[:, dim:-dim, dim:-dim]
    mixed = hessian[:, :dim, -dim:] - hessian[:, :dim, dim:-dim] @ jnp.linalg.solve(inner, hessian[:, dim:-dim, -dim:])
    return jnp.linalg.slogdet(mixed)[1]
