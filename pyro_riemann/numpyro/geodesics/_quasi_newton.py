"""Quasi-Newton iterations for many curves at once, where gradients cost much less than Hessians."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.quasi_newton import PAIRS, damped, direction, patience, told
from pyro_riemann.numpyro._interface import Energy, System
from pyro_riemann.numpyro.geodesics._newton import (
    SETTLED,
    Solution,
    choose,
    every,
    factorise,
    flags,
    interior,
    newton_step,
    no_model,
    precision,
    work,
)


class _State(NamedTuple):
    control: Array
    model: System  # at these curves, interior control points only; its Hessian is older
    steps: Array  # the last steps, the last first, (P, 6, n)
    changes: Array  # of the gradient, (P, 6, n)
    weights: Array  # 1 / (step . change), 0 where nothing was told, (P, 6)
    fresh: Array  # the Hessian is that of this very curve
    stale: Array  # the Hessian must be evaluated anew
    since: Array  # steps since the decrement was looked at
    mark: Array  # the decrement that it was
    damping: Array
    step: Array  # of all control points (the ends stay)
    decrement: Array
    definite: Array  # the damped Hessian is
    done: Array
    iterations: Array
    rows: Array  # which of the curves

    def look(self) -> _State:
        """With the step that is tried next."""
        solve, definite = factorise(self.model, self.damping)
        gradient = self.model.gradient
        flat = jax.lax.collapse(gradient, 1)
        moved = direction(solve, self.steps, self.changes, self.weights, flat)
        step = jnp.pad(-moved.reshape(gradient.shape), ((0, 0), (1, 1), (0, 0)))
        return self._replace(step=step, decrement=jnp.abs((flat * moved).sum(-1)), definite=definite)  # rounding


def quasi_newton(
    energy: Energy,
    control: Array,
    max_iterations: int,
    tolerance: float,
    chunk: int,
    damping: float = 1.0,
    enough: float | None = None,
) -> Solution:
    """L-BFGS with a tangential Hessian that is evaluated as rarely as it can be.

    A step costs one gradient. The Hessian, damped as in :func:`~pyro_riemann.numpyro.geodesics._newton.descend`, is
    what the remembered steps correct; it is evaluated anew, and they are forgotten, where a step does not lower the
    energy or as many steps as one evaluation pays for have not shrunk the decrement tenfold. The damping follows what
    the energy fell, beside what the model had promised. Curves are done, and judged where they are not, as by Newton's
    method.
    With the tangential Hessian no end tells a minimum from a saddle: begin off any symmetry.
    """
    tolerance, slack = precision(control, tolerance)

    def refresh(state: _State) -> _State:
        """Evaluate the Hessian."""
        yes = jnp.ones_like(state.fresh)
        model = interior(energy.rows(state.rows).system(state.control))
        weights, since, mark = jnp.zeros_like(state.weights), 0 * state.since, jnp.full_like(state.mark, jnp.inf)
        return state._replace(model=model, weights=weights, since=since, mark=mark, fresh=yes, stale=~yes)

    def attempt(state: _State) -> _State:
        """Try a step with what is known."""
        step, decrement, old = state.step, state.decrement, state.model
        trial = state.control + step
        value, gradient = energy.rows(state.rows).first_order(trial)
        gradient = gradient[:, 1:-1]
        better = state.definite & (value <= old.energy * (1 + slack))
        moved, change = (jax.lax.collapse(part, 1) for part in (step[:, 1:-1], gradient - old.gradient))
        mask, weight = told(jnp, moved, change, better)
        pairs = zip((moved, change, weight), (state.steps, state.changes, state.weights), strict=True)
        memory = [choose(mask, jnp.concatenate([new[:, None], known[:, :-1]], 1), known) for new, known in pairs]
        since = state.since + 1
        due = since >= patience(control.shape[-1])
        model = old._replace(
            energy=jnp.where(better, value, old.energy), gradient=choose(better, gradient, old.gradient)
        )
        return state._replace(
            control=choose(better, trial, state.control),
            model=model,
            steps=memory[0],
            changes=memory[1],
            weights=memory[2],
            fresh=state.fresh & ~better,
            stale=(~better | (due & (decrement > 0.1 * state.mark))) & (better | ~state.fresh),
            since=jnp.where(due, 0, since),
            mark=jnp.where(due | jnp.isinf(state.mark), decrement, state.mark),
            damping=damped(jnp, state.damping, better, old.energy - value, decrement, old.energy),
            iterations=state.iterations + 1,
        )

    def advance(state: _State, refreshing: Array) -> _State:
        state = jax.lax.cond(refreshing, refresh, attempt, state).look()
        small = state.definite & (state.decrement <= 2 * tolerance * state.model.energy)
        done = small & (state.damping < 0.5) & ~state.stale
        return state._replace(control=choose(done, state.control + state.step, state.control), done=done)

    def queue(state: _State) -> tuple[Array, Array]:
        """Curves that need no Hessian come first; when there are none left, Hessians are evaluated together."""
        wanted = ~state.done & (state.iterations < max_iterations)
        ready = wanted & ~state.stale
        refreshing = ~ready.any()
        return jnp.where(refreshing, wanted, ready), refreshing

    count, size = control.shape[0], (control.shape[1] - 2) * control.shape[2]
    empty = jnp.zeros((count, PAIRS, size), control.dtype)
    fresh, stale, since, mark, alpha, done, iterations = flags(control, False, True, 0, float("inf"), damping, False, 0)
    state = _State(
        control=control,
        model=no_model(control),
        steps=empty,
        changes=empty,
        weights=empty[..., 0],
        fresh=fresh,
        stale=stale,
        since=since,
        mark=mark,
        damping=alpha,
        step=jnp.zeros_like(control),
        decrement=mark,
        definite=done,
        done=done,
        iterations=iterations,
        rows=every(control),
    )
    state = work(advance, state, chunk, queue)
    _, decrement, definite, _ = newton_step(state.model, jnp.zeros_like(state.damping))
    done, settled = (
        state.done | (definite & (decrement <= 2 * share * state.model.energy)) for share in (enough or 0.0, SETTLED)
    )
    return Solution(state.control, done, state.iterations, settled)
