"""Damped Newton iterations for many curves at once, in loops of fixed shape.

A loop works on a fixed number of curves at a time, picked from those that are not done: its cost is that of the
iterations that are needed, however unevenly they are spread, and its memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._interface import Energy, System


class Solution(NamedTuple):
    """Curves after the last iteration."""

    control: Array  # (P, C, d)
    converged: Array  # (P,) bool
    iterations: Array  # (P,) int32
    settled: Array  # (P,) bool: converged, or no more than a distance may err from where Newton's method would end


_LIST = 1024  # curves that wait in one list
DAMPING = 0.25  # of the first step with the Hessian of a constant metric
SETTLED = 1e-3  # Newton decrement, in energies, that moves a length by 0.05 %


class _Descent(NamedTuple):
    control: Array  # the best curve so far
    trial: Array  # the curve to look at next
    model: System  # at the best curve, interior control points only
    definite: Array  # the trial comes from a positive definite Hessian
    damping: Array
    done: Array
    iterations: Array
    rows: Array  # which of the curves


class _Polish(NamedTuple):
    control: Array
    model: System
    own: Array  # the Hessian is that of this very curve
    stale: Array  # the Hessian must be evaluated anew
    damping: Array
    done: Array
    iterations: Array
    rows: Array  # which of the curves


def descend(
    energy: Energy,
    control: Array,
    max_iterations: int,
    tolerance: float,
    chunk: int,
    damping: float = 1.0,
    constant: bool = False,
) -> Solution:
    """Newton's method with the tangential Hessian: from far away, always downhill.

    A step solves ``(hessian + damping * stiffening) step = -gradient``; the damping of a curve shrinks
    when its energy falls and grows when it does not. A curve is done when the Newton decrement,
    which bounds the relative error of its energy, is below ``tolerance``: the gradient of a distance
    is a first-order quantity, so stopping on small changes of the energy would bias it.

    With ``constant`` the Hessian is that of a constant metric: an iteration needs one Jacobian a curve.
    ``chunk`` is the number of curves in work at a time.
    """
    tolerance, slack = precision(control, tolerance)

    def advance(state: _Descent) -> _Descent:
        own = energy.rows(state.rows)
        new = interior((own.constant_system if constant else own.system)(state.trial))
        better = state.definite & (new.energy <= state.model.energy * (1 + slack))
        control = choose(better, state.trial, state.control)
        model = System(*(choose(better, after, before) for after, before in zip(new, state.model, strict=True)))
        alpha = jnp.where(better, 0.3 * state.damping, jnp.maximum(4 * state.damping, 1.0))
        alpha = jnp.where(state.iterations == 0, state.damping, alpha)
        step, decrement, definite, _ = newton_step(model, alpha)
        # close enough: the step lands well within the tolerance, no need to look
        done = definite & (decrement <= 2 * tolerance * model.energy) & (alpha < 0.5)
        trial = control + choose(definite, step, jnp.zeros_like(step))
        control = choose(done, trial, control)
        return _Descent(control, trial, model, definite, alpha, done, state.iterations + 1, state.rows)

    definite, alpha, done, iterations = flags(control, True, damping, False, 0)
    state = _Descent(control, control, no_model(control), definite, alpha, done, iterations, every(control))
    state = work(advance, state, chunk, lambda now: (~now.done & (now.iterations <= max_iterations), None))
    return Solution(state.control, state.done, state.iterations, state.done)


def leap(energy: Energy, control: Array, tolerance: float) -> Solution:
    """One iteration of :func:`descend` with the Hessian of a constant metric, for all curves."""
    tolerance, slack = precision(control, tolerance)
    model = interior(energy.constant_system(control))
    step, decrement, definite, _ = newton_step(model, jnp.full_like(model.energy, DAMPING))
    trial = control + step
    better = definite & (energy.value(trial) <= model.energy * (1 + slack))
    done = definite & (decrement <= 2 * tolerance * model.energy)
    return Solution(choose(better, trial, control), done, jnp.ones_like(done, jnp.int32), done)


def polish(
    energy: Energy, control: Array, max_iterations: int, tolerance: float, chunk: int, enough: float | None = None
) -> Solution:
    """Newton's method with the full Hessian, which it evaluates as rarely as it can.

    A Hessian serves as long as each step with it shrinks the decrement tenfold; such steps need only
    the gradient. Definiteness of the last Hessian certifies a strict local minimum. A curve that has
    used up its iterations counts as converged where the decrement is below the tolerance ``enough``. Where an
    immersion has kinks, as a decoder with ReLU has, the minimum may lie on one, the gradient jumps there, and a curve
    is settled at best.
    """
    tolerance, slack = precision(control, tolerance)

    def refresh(state: _Polish) -> _Polish:
        """Evaluate the Hessian."""
        yes = jnp.ones_like(state.own)
        return state._replace(model=interior(energy.rows(state.rows).exact_system(state.control)), own=yes, stale=~yes)

    def attempt(state: _Polish) -> _Polish:
        """Try a step with the Hessian at hand."""
        step, decrement, definite, again = newton_step(state.model, state.damping)
        trial = state.control + step
        value, gradient = energy.rows(state.rows).first_order(trial)
        better = definite & (value <= state.model.energy * (1 + slack))
        gradient = gradient[:, 1:-1]
        contracts = better & (again(gradient)[1] <= 0.1 * decrement)
        # a step that fails with a Hessian of this very point needs damping, otherwise a fresh Hessian
        damped = jnp.where(better | ~state.own, 0.1 * state.damping, jnp.maximum(4 * state.damping, 0.05))
        return _Polish(
            choose(better, trial, state.control),
            state.model._replace(
                energy=jnp.where(better, value, state.model.energy),
                gradient=choose(better, gradient, state.model.gradient),
            ),
            own=state.own & ~better,
            stale=~contracts & (better | ~state.own),
            damping=jnp.where(damped < 1e-3, 0.0, damped),
            done=state.done,
            iterations=state.iterations + 1,
            rows=state.rows,
        )

    def advance(state: _Polish, refreshing: Array) -> _Polish:
        state = jax.lax.cond(refreshing, refresh, attempt, state)
        step, decrement, definite, _ = newton_step(state.model, state.damping)
        small = definite & (decrement <= 2 * tolerance * state.model.energy)
        done = small & (state.damping < 0.5) & ~state.stale
        return state._replace(control=choose(done, state.control + step, state.control), done=done)

    def queue(state: _Polish) -> tuple[Array, Array]:
        """Curves whose Hessian is good come first; when there are none left, Hessians are evaluated together."""
        wanted = ~state.done & (state.iterations < max_iterations)
        ready = wanted & ~state.stale
        refreshing = ~ready.any()
        return jnp.where(refreshing, wanted, ready), refreshing

    own, stale, damping, done, iterations = flags(control, False, True, 0.0, False, 0)
    state = _Polish(control, no_model(control), own, stale, damping, done, iterations, every(control))
    state = work(advance, state, chunk, queue)
    _, decrement, definite, _ = newton_step(state.model, jnp.zeros_like(state.damping))
    done, settled = (
        state.done | (definite & (decrement <= 2 * share * state.model.energy)) for share in (enough or 0.0, SETTLED)
    )
    return Solution(state.control, done, state.iterations, settled)


class Waiting(Protocol):
    """Curves in work."""

    @property
    def done(self) -> Array:
        """Which are done, ``(P,)``."""
        ...

    @property
    def iterations(self) -> Array:
        """Of each, ``(P,)``."""
        ...


State = TypeVar("State", bound=Waiting)


def work(
    advance: Callable[..., State], state: State, chunk: int, queue: Callable[[State], tuple[Array, Array | None]]
) -> State:
    """Advance curves that wait in the queue, ``chunk`` at a time, until none does; the least advanced come first.

    To find them takes time in proportion to the list: a long one is cut into lists that are worked off in turn.
    """
    count, most = state.done.shape[0], max(_LIST, 16 * chunk)
    if count > most:
        lists = -(-count // most)
        index = jnp.arange(lists * -(-count // lists))
        done = state.done[jnp.minimum(index, count - 1)] | (index >= count)  # what fills the last list up

        def cut(whole: Array) -> Array:
            return whole[jnp.minimum(index, count - 1)].reshape(lists, -1, *whole.shape[1:])

        parts = jax.tree.map(cut, state)._replace(done=done.reshape(lists, -1))
        found = jax.lax.map(lambda part: work(advance, part, chunk, queue), parts)
        joined: State = jax.tree.map(lambda part: jax.lax.collapse(part, 0, 2)[:count], found)
        return joined

    def waiting(state: State) -> Array:
        return queue(state)[0].any()

    def body(state: State) -> State:
        mask, *mode = (part for part in queue(state) if part is not None)
        if chunk >= count:
            return _put_where(mask, advance(state, *mode), state)
        order = jnp.where(mask, state.iterations, jnp.iinfo(jnp.int32).max)
        rows = jnp.argsort(order)[:chunk]
        old = jax.tree.map(lambda whole: whole[rows], state)
        new = _put_where(mask[rows], advance(old, *mode), old)
        return jax.tree.map(lambda whole, part: whole.at[rows].set(part, unique_indices=True), state, new)

    return jax.lax.while_loop(waiting, body, state) if count else state


def _put_where(mask: Array, new: State, old: State) -> State:
    return jax.tree.map(lambda after, before: choose(mask, after, before), new, old)


def choose(mask: Array, new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def flags(control: Array, *values: jax.typing.ArrayLike) -> list[Array]:
    """One number a curve, for each value: a flag, a count (int32) or a float in the dtype of the curves."""
    dtypes = {bool: jnp.bool_, int: jnp.int32, float: control.dtype}
    return [jnp.full(control.shape[0], value, dtypes[type(value)]) for value in values]


def every(control: Array) -> Array:
    return jnp.arange(control.shape[0], dtype=jnp.int32)


def no_model(control: Array) -> System:
    """Where nothing is known yet, the energy is infinite: whatever comes is better."""
    count, coefficients, dim = control.shape
    size = (coefficients - 2) * dim
    zeros = jnp.zeros((count, size, size), control.dtype)
    return System(
        jnp.full(count, jnp.inf, control.dtype), jnp.zeros((count, coefficients - 2, dim), control.dtype), zeros, zeros
    )


def interior(system: System) -> System:
    """The model without the two ends, which stay."""
    dim = system.gradient.shape[-1]
    return System(
        system.energy,
        system.gradient[:, 1:-1],
        system.hessian[:, dim:-dim, dim:-dim],
        system.stiffening[:, dim:-dim, dim:-dim],
    )


def factorise(model: System, damping: Array) -> tuple[Callable[[Array], Array], Array]:
    """The inverse of the damped Hessian, ``(P, n) -> (P, n)``, that of the identity where it is not definite."""
    matrix = model.hessian + damping[:, None, None] * model.stiffening
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    definite = jnp.isfinite(factor).all((-1, -2))
    factor = choose(definite, factor, jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape))

    def solve(right: Array) -> Array:
        half = jax.lax.linalg.triangular_solve(factor, right[..., None], left_side=True, lower=True)
        whole = jax.lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)
        return whole[..., 0]

    return solve, definite


def newton_step(model: System, damping: Array) -> tuple[Array, Array, Array, Callable[[Array], tuple[Array, Array]]]:
    """Step of all control points (the ends stay), Newton decrement, definiteness, and both for another gradient."""
    solve, definite = factorise(model, damping)

    def newton(gradient: Array) -> tuple[Array, Array]:
        flat = jax.lax.collapse(gradient, 1)
        moved = solve(flat)
        return jnp.pad(-moved.reshape(gradient.shape), ((0, 0), (1, 1), (0, 0))), (flat * moved).sum(-1)

    return *newton(model.gradient), definite, newton


def precision(control: Array, tolerance: float) -> tuple[float, float]:
    """The tolerance that the dtype can reach, and the rounding of an energy."""
    eps = float(jnp.finfo(control.dtype).eps)
    return max(tolerance, 4 * eps), 4 * eps
