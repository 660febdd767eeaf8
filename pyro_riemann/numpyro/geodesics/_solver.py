"""Boundary-value geodesics: Newton and quasi-Newton iterations on splines, all pairs in one compiled program."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.solver_settings import SolverSettings, for_training
from pyro_riemann._work import announced
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro._checks import check_finite, check_point
from pyro_riemann.numpyro._interface import AllSettings, Metric, Solver
from pyro_riemann.numpyro.geodesics import _graph, _spline
from pyro_riemann.numpyro.geodesics._curve import Geodesic, SplineCurve
from pyro_riemann.numpyro.geodesics._path import by_curves, energies, least_energy, search, shortest_path
from pyro_riemann.numpyro.geodesics._pieces import Piece, gather, judged, known, pieces


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GeodesicSolver(SolverSettings[Metric, Array]):
    """Settings of the boundary-value solver, and the solver itself.

    The curve is a cubic spline with ``num_knots`` intervals whose energy is discretised with
    ``num_segments`` chords (pullbacks) or quadrature points (other metrics). Damped Newton
    iterations with the tangential Hessian find the minimum, iterations with the full Hessian polish it.

    A curve has converged when Newton's method has and an independent rule, at nodes of its own, puts the error of the
    distance below 0.1 %. Those that have not are tried again with two, four and eight times the knots and chords, at a
    pace that follows the curve and from other starts. Where a metric knows nothing but itself (no surface, table or
    landmarks), ways that bend off the straight line challenge what was found: a geodesic that another curve undercuts
    is replaced. What is left is reported. Across the kinks of an immersion, as a decoder with ReLU has them, where no
    gradient vanishes, curves are measured by 1,024 chords and Gauss nodes, and have converged where bubbles of three
    sizes could save next to nothing. All this needs known points: under ``jit``, ``vmap`` and ``scan`` nothing is
    tried again, measured, challenged or reported, but the ``converged`` of a curve is there.

    Everything here works under ``jit``, ``vmap``, ``grad``, ``jvp`` and ``lax.scan``, except ``init="graph"``, whose
    shortest paths on a graph are found outside JAX: it needs known points, but works under ``grad`` and ``jvp``.

    Args:
        num_knots: intervals of the spline.
        num_segments: chords or quadrature points; even, at least twice ``num_knots``.
        max_iterations: bound on the iterations with the tangential Hessian.
        max_polish: bound on the iterations with the full Hessian; 0 for approximate distances.
        tolerance: relative error of the energy, bounded by the Newton decrement.
        richardson: extrapolate the chord energy, so that its error falls with the fourth power
            of ``num_segments`` instead of the second.
        init: ``"line"`` or ``"graph"``.
        constant_hessian: precondition the gradient by the metric in the middle of the curve alone, in place of the
            tangential Hessian: many cheap iterations for few dear ones, for rough distances in many dimensions.
        graph_resolution: nodes per axis (d = 2) of the table and graph behind ``init="graph"``.
        on_failure: what a distance, curve or ``logmap`` does about pairs that did not converge: ``"warn"`` says how
            many, ``"raise"`` is an error, and ``"ignore"`` neither checks distances nor tries again, for distances
            that are meant to be rough.

    Raises:
        ValueError: for settings out of range.
        RuntimeError: by its methods, where pairs did not converge and ``on_failure="raise"``.

    Source: curves, energy and start as in Kalatzis et al. 2020, appendix B; Newton's method in place of their gradient
    descent.

    Example:
        >>> GeodesicSolver(num_knots=16, num_segments=64).num_segments
        64
    """

    def replace(self, **settings: Unpack[AllSettings]) -> GeodesicSolver:
        """A copy with other settings."""
        return dataclasses.replace(self, **settings)

    def starts(self, metric: Metric, z: Array, y: Array) -> Array | None:
        """Where to begin: None for the straight line, or interior control points ``(S, P, num_knots + 1, d)``.

        Args:
            metric: any metric.
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.

        Raises:
            ValueError: for ``init="graph"`` where the points or the metric are not known.
        """
        if self.init == "line" or z.shape[0] == 0:
            return None
        metric, z, y = jax.lax.stop_gradient((metric, z, y))
        if not known(metric, z, y):
            raise ValueError(
                'init="graph" looks for shortest paths outside JAX and cannot run under `jit`, `vmap` or `scan`: use '
                'init="line" there, or a compiled function of curves that were found before.'
            )
        return _graph.starts(self, metric, z, y)

    def control_points(self, metric: Metric, z: Array, y: Array) -> Array:
        """Control points ``(P, num_knots + 3, d)`` of the geodesics between two lists of points.

        They depend on ``z``, ``y`` and the metric as the implicit function theorem says, to every order.

        Args:
            metric: any metric.
            z: starts, ``(P, d)``.
            y: ends, ``(P, d)``.
        """
        return _control_points(self, metric, z, y, self.starts(metric, z, y))

    # ---------------------------------------------------------------- results

    @announced
    def solve(self, metric: Metric, z: Array, y: Array) -> Geodesic:
        z, y, shape = flat_pairs(metric, z, y)
        found = pieces(self, metric, z, y, checked=True)
        if len(found) == 1 and found[0].solver is self:  # not known: solved and judged in one program
            return _solve(self, metric, z, y, found[0].starts, shape)
        finest = max(piece.solver.num_knots for piece in found)

        def curves(piece: Piece, z: Array, y: Array) -> Array:
            control = _spline.with_ends(piece.starts[0], z, y)  # type: ignore[index]
            return jnp.asarray(splines.refinement(piece.solver.num_knots, finest), z.dtype) @ control

        def halves(piece: Piece, z: Array, y: Array) -> Array:
            return _squared_dist(piece.solver, metric, z, y, piece.starts, piece.guide) / 2

        order = np.argsort(np.concatenate([piece.rows for piece in found]))
        length = jnp.asarray(np.concatenate([piece.length for piece in found])[order], z.dtype)
        converged = jnp.asarray(np.concatenate([piece.converged for piece in found])[order])
        energy, control = gather(found, halves, z, y), gather(found, curves, z, y)
        curve = SplineCurve(finest, control.reshape(*shape, *control.shape[1:]))
        return Geodesic(
            curve(jnp.linspace(0, 1, self.num_segments + 1, dtype=z.dtype)),
            _alive(length, energy).reshape(shape),
            energy.reshape(shape),
            converged.reshape(shape),
            curve,
        )

    @announced
    def squared_dist(self, metric: Metric, z: Array, y: Array) -> Array:
        """Squared geodesic distance, twice the least energy, ``(*batch)``, differentiable to every order.

        At the optimum the energy does not change with the interior of the curve, so its derivative in
        the ends and in the metric's parameters is that of the energy of a fixed curve.

        Args:
            metric: any metric.
            z: starts, ``(*batch, d)``.
            y: ends, ``(*batch, d)``.

        Raises:
            TypeError, ValueError: as :meth:`solve`.
        """
        z, y, shape = flat_pairs(metric, z, y)

        def squares(piece: Piece, z: Array, y: Array) -> Array:
            return _squared_dist(piece.solver, metric, z, y, piece.starts, piece.guide)

        return gather(pieces(self, metric, z, y), squares, z, y).reshape(shape)

    @announced
    def logmap(self, metric: Metric, z: Array, y: Array) -> Array:
        z, y, shape = flat_pairs(metric, z, y)

        def velocities(piece: Piece, z: Array, y: Array) -> Array:
            return _logmap(piece.solver, metric, z, y, piece.starts, piece.guide)

        return gather(pieces(self, metric, z, y), velocities, z, y).reshape(*shape, metric.dim)


def training_solver(dim: int) -> GeodesicSolver:
    """A cheap, deterministic solver for the thousands of steps of a training.

    Distances are lengths of a spline with few knots after few iterations, and gradients those of that spline. How far
    off they are on the decoders of the benchmarks stands in ``docs/benchmarks.md``. Nothing is checked and nobody
    warns: set the default back, or another :class:`GeodesicSolver`, before you evaluate.

    Args:
        dim: dimension of the metric.

    Source: the energy that is minimised is that of Kalatzis et al. 2020, appendix B.

    Example:
        >>> metric = PullbackMetric(lambda z: jnp.concatenate([z, jnp.sin(z)], -1), 2)
        >>> metric.solver = training_solver(metric.dim)  # for SVI
        >>> prior = RiemannianHeatKernel(jnp.zeros(2), 0.5, metric)
        >>> metric.solver = GeodesicSolver()  # for evaluation
    """
    return GeodesicSolver(**for_training(dim))


# ---------------------------------------------------------------- compiled


@jax.jit
def _control_points(solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None) -> Array:
    return _spline.with_ends(shortest_path(solver, metric, z, y, starts, None), z, y)


@jax.jit
def _squared_dist(
    solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, guide: Array | None
) -> Array:
    return 2 * least_energy(solver, metric, z, y, starts, guide)


@jax.jit
def _logmap(solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, guide: Array | None) -> Array:
    control = _spline.with_ends(shortest_path(solver, metric, z, y, starts, guide), z, y)
    momentum = -by_curves(solver, metric, lambda e, c: e.first_order(c)[1][:, 0], metric.energy(solver, guide), control)
    return _linalg.solve_vector(metric.metric(z), momentum)


@partial(jax.jit, static_argnums=5)
def _solve(
    solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, shape: tuple[int, ...]
) -> Geodesic:
    energy = metric.energy(solver)
    interior, converged = jax.lax.stop_gradient(search(solver, *jax.lax.stop_gradient((metric, z, y, starts))))
    control = _spline.with_ends(interior, z, y)
    value = energies(solver, metric, energy, control)
    length, _, passed, _ = jax.lax.stop_gradient(
        judged(solver, *jax.lax.stop_gradient((metric, z, y, interior)), converged == 1)
    )
    points = _spline.follow(_spline.uniform_basis(solver.num_knots, solver.num_segments, control), control)
    return Geodesic(
        jnp.moveaxis(points, 1, 0).reshape(solver.num_segments + 1, *shape, metric.dim),
        _alive(length, value).reshape(shape),
        value.reshape(shape),
        passed.reshape(shape),
        SplineCurve(solver.num_knots, control.reshape(*shape, *control.shape[1:])),
    )


def _alive(length: Array, energy: Array) -> Array:
    """The length, with the derivative of ``sqrt(2 E)``."""
    rests = energy <= 0
    still = jax.lax.stop_gradient(jnp.where(rests, 1.0, energy))
    return length * jnp.sqrt(jnp.where(rests, 1.0, energy) / still)


def flat_pairs(metric: Metric, z: Array, y: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """Check, broadcast and flatten two batches of points."""
    z = check_finite("z", check_point("z", z, metric.dim))
    y = check_finite("y", check_point("y", y, metric.dim))
    try:
        shape = jnp.broadcast_shapes(z.shape, y.shape)
    except ValueError as error:
        raise ValueError(f"`z` {z.shape} and `y` {y.shape} do not broadcast.") from error
    dtype = jnp.promote_types(z.dtype, y.dtype)
    flat = [jnp.broadcast_to(p, shape).reshape(math.prod(shape[:-1]), metric.dim).astype(dtype) for p in (z, y)]
    return flat[0], flat[1], shape[:-1]
