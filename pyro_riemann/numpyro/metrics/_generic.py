"""A generic numerical version of every method of a metric, from ``dim`` and ``metric(z)`` alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints

from pyro_riemann._formulas import memory
from pyro_riemann._formulas.memory import MAX_MEMORY
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import guarded_metric, holds
from pyro_riemann.numpyro._interface import Discretisation, Energy, Immersed, Metric, Settings, Tabulated
from pyro_riemann.numpyro._memory import bound_memory
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import (
    Geodesic,
    GeodesicSolver,
    expmap,
    expmap_log_van_vleck,
    log_van_vleck,
    scalar_curvature,
)
from pyro_riemann.numpyro.geodesics._energy import QuadratureEnergy

Corner = float | Sequence[float] | np.ndarray | Array


@bound_memory
class GenericMetric(Pytree):
    """Everything that follows from ``dim`` and ``metric(z)``; its public face is :class:`RiemannianMetric`.

    Tables and conformal metrics, which every metric can make of itself, are built on this class.
    """

    dim: int
    solver: GeodesicSolver = GeodesicSolver()
    flow_steps: int = 16
    landmarks: Array | None = None
    support: constraints.Constraint = constraints.real_vector
    is_symmetric: bool = False
    is_uniquely_geodesic: bool | None = None
    max_memory: int = MAX_MEMORY

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        bound_memory(cls)
        guarded_metric(cls)

    def footprint(self, order: int) -> int:
        """Numbers that are held at one point while G (``order`` 0) or its derivatives of this order are computed.

        Every routine takes as many points at a time as :attr:`max_memory` bytes have room for; -1 is for the images
        alone of an immersion. A metric of one's own that holds more than a few matrices at a point says so here.

        Args:
            order: of the derivatives, -1 to 2.
        """
        return memory.footprint(self.dim, order)

    def metric(self, z: Array) -> Array:
        """Metric tensor G(z): ``(*batch, d) -> (*batch, d, d)``, symmetric positive definite."""
        raise NotImplementedError(f"{type(self).__name__} must implement `metric(z)`.")

    # ---------------------------------------------------------------- pointwise algebra

    def cholesky(self, z: Array) -> Array:
        """Lower Cholesky factor of G(z), ``(*batch, d, d)``.

        Raises:
            ValueError: if G is not positive definite at one of the points; under ``jit`` the factor is NaN there.
        """
        factor = jnp.linalg.cholesky(self.metric(z))
        definite = jnp.isfinite(factor).all((-2, -1))
        if not holds(definite):
            where = np.broadcast_to(z, (*definite.shape, self.dim))[~np.asarray(definite)][0].tolist()
            raise ValueError(
                f"{type(self).__name__}.metric(z) is not positive definite at {int((~definite).sum())} of "
                f"{definite.size} points, for instance z = {where}. Add a multiple of the identity to it "
                "(`jitter` of a PullbackMetric, `regularization` of a KernelMetric), or use float64."
            )
        return factor

    def logdet(self, z: Array) -> Array:
        """``log det G(z)``, shape ``(*batch)``; twice the log volume element."""
        return 2 * jnp.log(jnp.diagonal(self.cholesky(z), axis1=-2, axis2=-1)).sum(-1)

    def logdet_gradient(self, z: Array) -> Array:
        """Coordinate gradient of :meth:`logdet` at ``z``, ``(*batch, d)``."""
        return _autodiff.jacobian(self.logdet, z, self.dim)[1]

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        """Inner product ``u^T G(z) v``, shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            u: tangent vectors at ``z``, ``(*batch, d)``.
            v: tangent vectors at ``z``, ``(*batch, d)``.
        """
        return jnp.einsum("...i,...ij,...j->...", u, self.metric(z), v)

    def norm(self, z: Array, v: Array) -> Array:
        """Riemannian length ``sqrt(v^T G(z) v)`` of vectors ``v`` at ``z``, shape ``(*batch)``; gradient 0 at v = 0."""
        return _safe_sqrt(self.inner(z, v, v))

    def on_floor(self, z: Array) -> Array | None:
        """Where G(z) is hardly more than a constant put in for safety (a jitter, a regularisation), ``(*batch)``.

        There the metric knows nothing of data or model, and a random walk or a uniform draw goes anywhere. None
        for a metric without such a floor, as this base class has none; a metric that rewrites another passes it on.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    def covers(self, z: Array) -> Array | None:
        """Where G is known, ``(*batch)`` bool; None, as here, if everywhere.

        False outside the box of a table that has forgotten the metric it was made of. What is computed there would not
        be of this metric; a metric that rewrites another passes it on.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    def coverage(self, codes: Array) -> Array | float | None:
        """Share of ``codes``, ``(..., d)``, where G is not just its floor; None, as here, where that is not told."""
        return None

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        """What to do with points of a wrong ``shape`` that the metric recognises; empty, as here, where it does not."""
        return ""

    # ---------------------------------------------------------------- where the volume is

    def peaks(self) -> Peaks | None:
        r"""Where the volume is known to be, without gradient: bumps of :math:`\sqrt{\det G}`, or None.

        Tops ``loc (m, d)`` and covariances ``covariance (m, d, d)`` of Gaussians that look like the bumps. Integrals
        over the volume are sure to see these; what is not listed has to be searched for. A metric that is built on
        another one passes on what that one knows, in its own coordinates.
        """
        return None

    # ---------------------------------------------------------------- first derivatives

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        """``G(z)``, ``(*batch, d, d)``, and ``dG[..., i, j, k] = d G_ij / d z_k``, ``(*batch, d, d, d)``."""
        return _autodiff.jacobian(self.metric, z, self.dim)

    def metric_derivatives(self, z: Array, v: Array) -> tuple[Array, Array, Array]:
        """``G(z)``, ``d (G v)_i / d z_j`` and the derivative of G along ``v``; each ``(*batch, d, d)``.

        All that geodesics need of the metric's first derivatives.
        """
        metric, slope = self.metric_jacobian(z)
        return metric, jnp.einsum("...ikj,...k->...ij", slope, v), jnp.einsum("...ikj,...j->...ik", slope, v)

    def speed_hessian(self, z: Array, v: Array) -> Array:
        """Second derivative in z of ``v^T G(z) v / 2`` at constant ``v``, ``(*batch, d, d)``."""

        def force(at: Array) -> Array:
            slope = self.metric_derivatives(at, v)[1]
            return 0.5 * (slope.mT @ v[..., None])[..., 0]

        return _autodiff.jacobian(force, z, self.dim)[1]

    def christoffel(self, z: Array, v: Array) -> Array:
        r"""Contraction :math:`\Gamma^i_{jk} v^j v^k` of the Christoffel symbols, ``(*batch, d)``.

        Geodesics satisfy ``z'' = -christoffel(z, z')``.
        """
        metric, slope, _ = self.metric_derivatives(z, v)
        force = jnp.einsum("...ij,...j->...i", slope, v) - 0.5 * jnp.einsum("...ji,...j->...i", slope, v)
        return jnp.linalg.solve(metric, force[..., None])[..., 0]

    def drift(self, z: Array) -> Array:
        r"""Ito drift of Brownian motion at ``z``, :math:`-\tfrac12 g^{jk}\Gamma^i_{jk}`, ``(*batch, d)``."""
        metric, slope = self.metric_jacobian(z)
        inverse = jnp.linalg.inv(metric)
        divergence = jnp.einsum("...jk,...ijk->...i", inverse, slope)
        log_volume = 0.5 * jnp.einsum("...jk,...jki->...i", inverse, slope)
        return -0.5 * jnp.einsum("...ij,...j->...i", inverse, divergence - log_volume)

    def scalar_curvature(self, z: Array) -> Array:
        """Scalar curvature R(z), shape ``(*batch)``; ``d (d - 1)`` on the unit sphere."""
        return scalar_curvature(self, z)

    def radial_law(self) -> RadialLaw | None:
        """What is known of the volume around every point: constant curvature, or None.

        Normalising constants and draws of radial laws are then exact. Wrappers pass on what their base knows.
        """
        return None

    def injectivity_radius(self, z: Array) -> Array | None:
        """Distance from ``z`` up to which geodesics are the shortest, ``(*batch)``, infinite where all are.

        None, as here, where it is not known.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    # ---------------------------------------------------------------- initial-value problem

    def expmap(self, z: Array, v: Array) -> Array:
        """Point ``(*batch, d)`` that the geodesic from ``z`` with initial velocity ``v`` reaches after unit time."""
        return expmap(self, z, v, self.flow_steps)

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        """``y = expmap(z, v)``, ``(*batch, d)``, and ``log V(z, y)``, ``(*batch)``, along that geodesic.

        ``-log V`` is the log Jacobian determinant of the exponential map between the
        orthonormal frames of ``T_z`` and ``T_y``, from Jacobi fields.
        """
        return expmap_log_van_vleck(self, z, v, self.flow_steps)

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        r"""Log density at ``y`` of ``expmap(z, v)`` with :math:`v \sim N(0, t\,G(z)^{-1})`, all geodesics counted.

        With respect to dM, shape ``(*batch)``. None, as here, where they are not all known in closed form.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            time: variance t of the tangent vectors, ``(*batch)``.
        """
        return None

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        r"""Log density at ``y`` of ``expmap(z, factor @ x)``, x standard normal, all geodesics counted.

        With respect to dM, shape ``(*batch)``. None, as here, where they are not all known in closed form.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: where geodesics are known to meet again, and their sum is not.
        """
        return None

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log transition density of Brownian motion with respect to dM, ``(*batch)``, where it has a closed form.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: where it has none, as here; ``RiemannianHeatKernel`` is its short-time expansion.
        """
        raise NotImplementedError(f"The heat kernel of {type(self).__name__} is not known in closed form.")

    # ---------------------------------------------------------------- boundary-value problem

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        """The discrete energy that the solver minimises: by quadrature along a spline, which is right for any metric.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        return QuadratureEnergy(self, settings.num_knots, settings.num_segments, guide)

    def immersed(self) -> Immersed | None:
        """This metric with the immersion whose pullback it is; None, as here, where none is known."""
        return None

    def tabulated(self) -> Tabulated | None:
        """This metric with its table, if it is one (a :class:`GridMetric`); else None."""
        return None

    @property
    def condensed(self) -> Metric:
        """A metric with the same energies that costs less to evaluate, for searches; itself if there is none."""
        return self

    @abstractmethod
    def tabulate(self, low: Corner, high: Corner, resolution: int) -> Tabulated:
        """A table of this metric on a box of the chart; d <= 3."""

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        """Shortest curve from ``z`` to ``y``, batches broadcast.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            init: ``"line"`` starts from the straight line, ``"graph"`` from the better of the
                line and a shortest path on a graph, which finds the global minimum more often.
            **settings: override fields of :attr:`solver` for this call.

        Raises:
            ValueError: for an unknown ``init``, or settings out of range.
        """
        return self.solver.replace(init=init, **settings).solve(self, z, y)

    def squared_dist(self, z: Array, y: Array) -> Array:
        """Squared geodesic distance of ``z`` and ``y``, both ``(*batch, d)``; shape ``(*batch)``.

        Differentiable in both ends and in the metric's parameters (envelope theorem);
        0 with gradient 0 where ``z == y``.
        """
        return self.solver.squared_dist(self, z, y)

    def dist(self, z: Array, y: Array) -> Array:
        """Geodesic distance of ``z`` and ``y``, both ``(*batch, d)``; its shape is ``(*batch)``.

        The gradient is set to 0 where ``z == y``.
        """
        return _safe_sqrt(self.squared_dist(z, y))

    def logmap(self, z: Array, y: Array) -> Array:
        """Initial velocity of the shortest geodesic from ``z`` to ``y``, ``(*batch, d)``."""
        return self.solver.logmap(self, z, y)

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        """Log of the Van Vleck-Morette determinant V(z, y), shape ``(*batch)``; 0 at ``z == y``."""
        return log_van_vleck(self, z, y)


def _safe_sqrt(value: Array) -> Array:
    """Square root with gradient 0, not infinity, at 0; a NaN stays one."""
    flat = value <= 0
    return jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, value)))


guarded_metric(GenericMetric)
