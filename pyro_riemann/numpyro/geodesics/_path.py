"""The shortest path as a function of its ends and of the metric, with exact derivatives of every order.

The loop that finds a path is never differentiated. The path's derivative is that of the implicit function theorem; that
of its energy is the derivative at a fixed path (envelope theorem), so that a first derivative costs one gradient
of the energy and second derivatives see the path move.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from pyro_riemann._formulas import memory
from pyro_riemann._formulas.quasi_newton import bend
from pyro_riemann.numpyro._interface import Energy, Metric, Solver
from pyro_riemann.numpyro._memory import in_pieces
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._newton import DAMPING, Solution, descend, leap, polish
from pyro_riemann.numpyro.geodesics._quasi_newton import quasi_newton

R = TypeVar("R")

_FEWEST = 8  # curves in work at one time


# ---------------------------------------------------------------- the search


@custom_vmap
def search(solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None) -> tuple[Array, Array]:
    """Shortest paths between two lists ``(P, d)`` of points.

    The search begins at the straight line, or at each of several paths ``starts``, ``(S, P, K + 1, d)``, the best
    end of which is kept; a single start is the answer where the solver has no iterations. Returns interior control
    points ``(P, K + 1, d)`` and 1 where the search converged, 1/2 where it settled, else 0.
    """
    if starts is not None and starts.shape[0] == 1 and solver.max_iterations == solver.max_polish == 0:
        return starts[0], jnp.ones_like(z[:, 0])
    metric = metric.condensed  # the same metric through fewer outputs, if there is one
    energy = metric.energy(solver)
    if starts is None:
        control, damping = _spline.line(solver.num_knots, z, y), 1.0
    else:
        # a single start is a solution on a table already: the first step may be the last
        tries, damping = starts.shape[0], 0.3 if starts.shape[0] == 1 else 1.0
        control = jax.vmap(_spline.with_ends, (0, None, None))(starts, z, y)
        control = control.reshape(-1, *control.shape[2:])
    found = _minimise(solver, metric, energy, control, damping)
    interior, converged = found.control[:, 1:-1], (found.converged.astype(z.dtype) + found.settled) / 2
    if starts is None or tries == 1:
        return interior, converged
    values = jnp.nan_to_num(energies(solver, metric, energy, found.control), nan=jnp.inf, posinf=jnp.inf).reshape(
        tries, -1
    )
    best = jnp.argmin(values, axis=0) * z.shape[0] + jnp.arange(z.shape[0])
    return interior[best], converged[best]


@search.def_vmap
def _search_many(
    size: int, batched: Any, solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """Under ``vmap`` the curves join the list, so that one loop serves them all; other metrics need other loops."""
    _, metric_batched, z_batched, y_batched, starts_batched = batched
    axes = jax.tree.map(lambda flag: 0 if flag else None, (metric_batched, z_batched, y_batched, starts_batched))
    if any(jax.tree.leaves(metric_batched)):
        one = partial(search.fun, solver)
        return jax.vmap(one, axes, axis_size=size)(metric, z, y, starts), (True, True)

    def join(value: Array, flag: bool, axis: int) -> Array:
        whole = jnp.moveaxis(value, 0, axis) if flag else jnp.repeat(jnp.expand_dims(value, axis), size, axis)
        return jax.lax.collapse(whole, axis, axis + 2)

    joined = None if starts is None else join(starts, starts_batched, 1)
    interior, converged = search(solver, metric, join(z, z_batched, 0), join(y, y_batched, 0), joined)
    pairs = converged.shape[0] // size
    return (interior.reshape(size, pairs, *interior.shape[1:]), converged.reshape(size, pairs)), (True, True)


def _minimise(solver: Solver, metric: Metric, energy: Energy, control: Array, damping: float) -> Solution:
    chunk = chunk_size(solver, metric, control)
    damping = min(damping, DAMPING) if solver.constant_hessian else damping
    if solver.max_polish == 0 and solver.max_iterations == 1 and solver.constant_hessian:
        return by_curves(solver, metric, lambda e, c: leap(e, c, solver.tolerance), energy, control)
    if solver.max_polish == 0:
        return descend(
            energy, control, solver.max_iterations, solver.tolerance, chunk, damping, solver.constant_hessian
        )
    if energy.frugal and not solver.constant_hessian:
        iterations = solver.max_iterations + solver.max_polish
        return quasi_newton(energy, _bent(control), iterations, solver.tolerance, chunk, damping)
    # the tangential Hessian converges linearly near the end: hand over early to the full one
    rough = descend(
        energy, control, solver.max_iterations, max(solver.tolerance, 1e-3), chunk, damping, solver.constant_hessian
    )
    fine = polish(energy, rough.control, solver.max_polish, solver.tolerance, chunk)
    return fine._replace(iterations=rough.iterations + fine.iterations)


def _bent(control: Array) -> Array:
    way = jnp.linalg.norm(control[:, -1] - control[:, 0], axis=-1)
    off = jnp.pad(bend(control.shape[1] - 2, control.shape[2]).astype(control.dtype), ((1, 1), (0, 0)))
    return control + way[:, None, None] * off


def chunk_size(solver: Solver, metric: Metric, control: Array) -> int:
    """Curves in work at one time: as many as keep their Jacobians in a processor's cache, more on other devices."""
    numbers, share = (2**18, _FEWEST) if jax.default_backend() == "cpu" else (2**27, 32 * _FEWEST)
    surface = metric.immersed()
    width = metric.dim**2 if surface is None else jax.eval_shape(surface.embed, control[:1, 0]).shape[-1]
    room = numbers // (width * (solver.num_segments + 1) * (metric.dim + 1))
    return min(curve_room(solver, metric, control), max(_FEWEST, min(room, max(share, control.shape[0] // 4))))


def curve_room(solver: Solver, metric: Metric, control: Array, order: int = 0) -> int:
    """Curves that memory has room for: with Jacobians at the nodes of an immersed one, or with images alone (-1)."""
    # what metrics that are not immersed hold at a node is bounded by themselves
    point = 4 * metric.dim**3 if metric.immersed() is None else metric.footprint(order)
    numbers = memory.curves(point, metric.dim, solver.num_knots, solver.num_segments + 1)
    return memory.room(metric.max_memory, numbers, control.dtype.itemsize)


def by_curves(
    solver: Solver, metric: Metric, work: Callable[..., R], energy: Energy, control: Array, *more: Array, order: int = 0
) -> R:
    """``work(energy, control, *more)``, with one result a curve, for as many curves at a time as memory allows."""
    count, rows = control.shape[0], curve_room(solver, metric, control, order)
    if count <= rows:
        return work(energy, control, *more)
    return in_pieces(lambda at: work(energy.rows(at), control[at], *(part[at] for part in more)), count, rows)


def energies(solver: Solver, metric: Metric, energy: Energy, control: Array) -> Array:
    """Energies ``(P,)`` of curves, as many at a time as memory allows."""
    return by_curves(solver, metric, lambda energy, control: energy.value(control), energy, control, order=-1)


# ---------------------------------------------------------------- derivatives


@jax.custom_jvp
def shortest_path(
    solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, guide: Array | None
) -> Array:
    """Interior control points ``(P, K + 1, d)`` of the shortest paths, differentiable in ``metric``, ``z``, ``y``.

    A ``guide`` is for paths that were found before, at its pace.
    """
    return search(solver, metric, z, y, starts)[0]


def _shortest_path_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    solver, metric, z, y, starts, guide = primals
    interior = shortest_path(solver, metric, z, y, starts, guide)

    def gradient(metric: Metric, z: Array, y: Array) -> Array:
        def of(energy: Energy, control: Array) -> Array:
            return energy.first_order(control)[1][:, 1:-1]

        return by_curves(solver, metric, of, metric.energy(solver, guide), _spline.with_ends(interior, z, y))

    _, moved = _push(gradient, (metric, z, y), tangents[1:4])
    control = _spline.with_ends(interior, z, y)
    return interior, -by_curves(solver, metric, _newton, metric.energy(solver, guide), control, moved)


def _newton(energy: Energy, control: Array, moved: Array) -> Array:
    dim = control.shape[-1]
    hessian = energy.exact_system(control).hessian[:, dim:-dim, dim:-dim]
    return jnp.linalg.solve(hessian, moved.reshape(*hessian.shape[:2], 1)).reshape(moved.shape)


shortest_path.defjvp(_shortest_path_jvp, symbolic_zeros=True)


@jax.custom_jvp
def least_energy(
    solver: Solver, metric: Metric, z: Array, y: Array, starts: Array | None, guide: Array | None
) -> Array:
    """Energy ``(P,)`` of the shortest paths."""
    interior = shortest_path(solver, metric, z, y, starts, guide)
    return energies(solver, metric, metric.energy(solver, guide), _spline.with_ends(interior, z, y))


def _least_energy_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    solver, metric, z, y, starts, guide = primals
    interior = shortest_path(solver, metric, z, y, starts, guide)

    def value(metric: Metric, z: Array, y: Array) -> Array:
        return energies(solver, metric, metric.energy(solver, guide), _spline.with_ends(interior, z, y))

    return _push(value, (metric, z, y), tangents[1:4])


least_energy.defjvp(_least_energy_jvp, symbolic_zeros=True)


def _push(function: Callable[..., Array], primals: Any, tangents: Any) -> tuple[Array, Array]:
    """``jax.jvp`` that leaves out the arguments whose tangent is zero: nobody asked for their derivative."""
    leaves, tree = jax.tree.flatten(primals)
    slopes = jax.tree.leaves(tangents)
    moving = [index for index, slope in enumerate(slopes) if not isinstance(slope, SymbolicZero)]

    def restricted(*parts: Array) -> Array:
        merged = list(leaves)
        for index, part in zip(moving, parts, strict=True):
            merged[index] = part
        return function(*jax.tree.unflatten(tree, merged))

    if not moving:
        value = restricted()
        return value, jnp.zeros_like(value)
    return jax.jvp(restricted, [leaves[index] for index in moving], [slopes[index] for index in moving])
