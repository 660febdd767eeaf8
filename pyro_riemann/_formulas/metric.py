"""What follows from the tensor G(z) of a metric alone, for the metrics of both faces."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Generic

from pyro_riemann._formulas import densities, memory, smooth
from pyro_riemann._formulas.calculus import A, Calculus, Surface
from pyro_riemann._formulas.memory import MAX_MEMORY
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._formulas.radial import RadialLaw


class MetricAlgebra(Generic[A]):
    """The generic version of what a metric knows or computes at points, from ``dim``, ``metric(z)`` and derivatives.

    The metrics of a face are built on it; each rewrites what it has a closed form for.
    """

    face: ClassVar[Calculus]
    dim: int
    solver: Any
    flow_steps: int = 16
    landmarks: A | None = None
    is_symmetric: bool = False
    is_uniquely_geodesic: bool | None = None
    max_memory: int = MAX_MEMORY

    def metric(self, z: A) -> A:
        """Metric tensor G(z): ``(*batch, d) -> (*batch, d, d)``, symmetric positive definite."""
        raise NotImplementedError(f"{type(self).__name__} must implement `metric(z)`.")

    # each face solves for these in its own way
    def expmap(self, z: A, v: A) -> A:
        """Point ``(*batch, d)`` that the geodesic from ``z`` with initial velocity ``v`` reaches after unit time."""
        raise NotImplementedError

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        """``y = expmap(z, v)``, ``(*batch, d)``, and ``log V(z, y)``, ``(*batch)``, along that geodesic.

        ``-log V`` is the log Jacobian determinant of the exponential map between the
        orthonormal frames of ``T_z`` and ``T_y``, from Jacobi fields.
        """
        raise NotImplementedError

    def scalar_curvature(self, z: A) -> A:
        """Scalar curvature R(z), shape ``(*batch)``; ``d (d - 1)`` on the unit sphere."""
        raise NotImplementedError

    def energy(self, settings: Any, guide: A | None = None) -> Any:
        """The discrete energy that the solver minimises: by quadrature along a spline, which is right for any metric.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        raise NotImplementedError

    def immersed(self) -> Surface[A] | None:
        """The metric as that of an immersed surface, if it is one."""
        return None

    def footprint(self, order: int) -> int:
        """Numbers that are held at one point while G (``order`` 0) or its derivatives of this order are computed.

        Every routine takes as many points at a time as :attr:`max_memory` bytes have room for; -1 is for the images
        alone of an immersion. A metric of one's own that holds more than a few matrices at a point says so here.

        Args:
            order: of the derivatives, -1 to 2.
        """
        return memory.footprint(self.dim, order)

    def cholesky(self, z: A) -> A:
        """Lower Cholesky factor of G(z), ``(*batch, d, d)``.

        Raises:
            ValueError: if G is not positive definite at one of the points; under ``jax.jit`` the factor is NaN there.
        """
        factor, definite = self.face.cholesky(self.metric(z))
        if not self.face.holds(definite):
            shape, failed = definite.shape, ~definite
            where = self.face.xp.broadcast_to(z, (*shape, self.dim))[failed][0].tolist()
            raise ValueError(
                f"{type(self).__name__}.metric(z) is not positive definite at {int(failed.sum())} of "
                f"{math.prod(shape)} points, for instance z = {where}. Add a multiple of the identity to it "
                "(`jitter` of a PullbackMetric, `regularization` of a KernelMetric), or use float64."
            )
        return factor

    def logdet(self, z: A) -> A:
        """``log det G(z)``, shape ``(*batch)``; twice the log volume element."""
        xp = self.face.xp
        return 2 * xp.log(xp.linalg.diagonal(self.cholesky(z))).sum(-1)

    def logdet_gradient(self, z: A) -> A:
        """Coordinate gradient of :meth:`logdet` at ``z``, ``(*batch, d)``."""
        return self.face.jacobian(self.logdet, z, self.dim)[1]

    def inner(self, z: A, u: A, v: A) -> A:
        """Inner product ``u^T G(z) v``, shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            u: tangent vectors at ``z``, ``(*batch, d)``.
            v: tangent vectors at ``z``, ``(*batch, d)``.
        """
        return self.face.xp.einsum("...i,...ij,...j->...", u, self.metric(z), v)

    def norm(self, z: A, v: A) -> A:
        """Riemannian length ``sqrt(v^T G(z) v)`` of vectors ``v`` at ``z``, shape ``(*batch)``; gradient 0 at v = 0."""
        return smooth.root(self.face.xp, self.inner(z, v, v))

    def on_floor(self, z: A) -> A | None:
        """Where G(z) is hardly more than a constant put in for safety (a jitter, a regularisation), ``(*batch)``.

        There the metric knows nothing of data or model, and a random walk or a uniform draw goes anywhere. None
        for a metric without such a floor, as this base class has none; a metric that rewrites another passes it on.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    def covers(self, z: A) -> A | None:
        """Where G is known, ``(*batch)`` bool; None, as here, if everywhere.

        False outside the box of a table that has forgotten the metric it was made of. What is computed there would not
        be of this metric; a metric that rewrites another passes it on.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    def coverage(self, codes: A) -> A | float | None:
        """Share of ``codes``, ``(..., d)``, where G is not just its floor; None, as here, where that is not told."""
        return None

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        """What to do with points of a wrong ``shape`` that the metric recognises; empty, as here, where it does not."""
        return ""

    def peaks(self) -> Peaks | None:
        r"""Where the volume is known to be, without gradient: bumps of :math:`\sqrt{\det G}`, or None.

        Tops ``loc (m, d)`` and covariances ``covariance (m, d, d)``, or variances ``(m, d)``, of Gaussians that look
        like the bumps. Integrals over the volume are sure to see these; what is not listed has to be searched for. A
        metric that is built on another one passes on what that one knows, in its own coordinates.
        """
        return None

    def metric_jacobian(self, z: A) -> tuple[A, A]:
        """``G(z)``, ``(*batch, d, d)``, and ``dG[..., i, j, k] = d G_ij / d z_k``, ``(*batch, d, d, d)``."""
        return self.face.jacobian(self.metric, z, self.dim)

    def metric_derivatives(self, z: A, v: A) -> tuple[A, A, A]:
        """``G(z)``, ``d (G v)_i / d z_j`` and the derivative of G along ``v``; each ``(*batch, d, d)``.

        All that geodesics need of the metric's first derivatives.
        """
        metric, slope = self.metric_jacobian(z)
        xp = self.face.xp
        return metric, xp.einsum("...ikj,...k->...ij", slope, v), xp.einsum("...ikj,...j->...ik", slope, v)

    def speed_hessian(self, z: A, v: A) -> A:
        """Second derivative in z of ``v^T G(z) v / 2`` at constant ``v``, ``(*batch, d, d)``."""

        def force(at: A) -> A:
            slope = self.metric_derivatives(at, v)[1]
            return self.face.xp.einsum("...ji,...j->...i", slope, v) / 2

        return self.face.jacobian(force, z, self.dim)[1]

    def christoffel(self, z: A, v: A) -> A:
        r"""Contraction :math:`\Gamma^i_{jk} v^j v^k` of the Christoffel symbols, ``(*batch, d)``.

        Geodesics satisfy ``z'' = -christoffel(z, z')``.
        """
        metric, slope, _ = self.metric_derivatives(z, v)
        xp = self.face.xp
        force = xp.einsum("...ij,...j->...i", slope, v) - 0.5 * xp.einsum("...ji,...j->...i", slope, v)
        return self.face.solve(metric, force)

    def drift(self, z: A) -> A:
        r"""Ito drift of Brownian motion at ``z``, :math:`-\tfrac12 g^{jk}\Gamma^i_{jk}`, ``(*batch, d)``."""
        metric, slope = self.metric_jacobian(z)
        xp = self.face.xp
        inverse = xp.linalg.inv(metric)
        divergence = xp.einsum("...jk,...ijk->...i", inverse, slope)
        log_volume = 0.5 * xp.einsum("...jk,...jki->...i", inverse, slope)
        return -0.5 * xp.einsum("...ij,...j->...i", inverse, divergence - log_volume)

    def radial_law(self) -> RadialLaw | None:
        """What is known of the volume around every point: constant curvature, or None.

        Normalising constants and draws of radial laws are then exact. Wrappers pass on what their base knows.
        """
        return None

    def injectivity_radius(self, z: A) -> A | None:
        """Distance from ``z`` up to which geodesics are the shortest, ``(*batch)``, infinite where all are.

        None, as here, where it is not known.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        r"""Log density at ``y`` of ``expmap(z, v)`` with :math:`v \sim N(0, t\,G(z)^{-1})`, all geodesics counted.

        With respect to dM, shape ``(*batch)``. None, as here, where they are not all known in closed form.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            time: variance t of the tangent vectors, ``(*batch)``.
        """
        return None

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
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

    def _log_carried_normal(self, z: A, y: A, factor: A) -> A:
        """The same by the shortest geodesic alone."""
        xp, log_van_vleck = self.face.xp, self.log_van_vleck(z, y)
        noise = xp.square(self.face.solve(factor, self.logmap(z, y))).sum(-1)
        log_det = self.face.log_abs_det(factor)
        return densities.tangent_normal(xp, self.dim, noise, log_det, self.logdet(z), log_van_vleck)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log transition density of Brownian motion with respect to dM, ``(*batch)``, where it has a closed form.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: where it has none, as here; ``RiemannianHeatKernel`` is its short-time expansion.
        """
        raise NotImplementedError(f"The heat kernel of {type(self).__name__} is not known in closed form.")

    def squared_dist(self, z: A, y: A) -> A:
        """Squared geodesic distance of ``z`` and ``y``, both ``(*batch, d)``; shape ``(*batch)``.

        Differentiable in both ends and in the metric's parameters (envelope theorem);
        0 with gradient 0 where ``z == y``.
        """
        return self.solver.squared_dist(self, z, y)

    def dist(self, z: A, y: A) -> A:
        """Geodesic distance of ``z`` and ``y``, both ``(*batch, d)``; its shape is ``(*batch)``.

        The gradient is set to 0 where ``z == y``.
        """
        return smooth.root(self.face.xp, self.squared_dist(z, y))

    def logmap(self, z: A, y: A) -> A:
        """Initial velocity of the shortest geodesic from ``z`` to ``y``, ``(*batch, d)``."""
        return self.solver.logmap(self, z, y)

    def log_van_vleck(self, z: A, y: A) -> A:
        """Log of the Van Vleck-Morette determinant V(z, y), shape ``(*batch)``; 0 at ``z == y``."""
        raise NotImplementedError
