"""Hamiltonian Monte Carlo in a box, all chains in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_NUM_LEAPFROG = 5
LogDensity = Callable[[Array], Array]


class BoxMoves(NamedTuple):
    """Leapfrog moves that bounce off the walls of a box.

    The free flight of a particle with a diagonal mass in a box is a straight line folded at the walls: exact,
    reversible and volume preserving, so that the acceptance rule is the usual one and no chain is ever stuck
    outside.

    Attributes:
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        scale: length scale of the target in each coordinate, ``(d)``; the mass is ``scale ** -2``.
        step: step size in units of ``scale``.
        acceptance: rate at which that step was accepted when it was tuned.
    """

    low: Array
    high: Array
    scale: Array
    step: Array
    acceptance: Array


def move(log_density: LogDensity, moves: BoxMoves, z: Array, key: Array) -> tuple[Array, Array]:
    """One move of every chain ``(n, d)``; the chains and the mean acceptance probability.

    ``log_density`` maps ``(n, d)`` to ``(n)``, row by row.
    """
    low, width = moves.low, moves.high - moves.low
    noise = jax.random.normal(key, (len(z), z.shape[1] + 2), z.dtype)

    def fly(point: Array, momentum: Array, time: Array) -> tuple[Array, Array]:
        phase = jnp.mod((point + time * moves.scale * momentum - low) / width, 2)
        bounced = phase > 1
        return low + width * jnp.where(bounced, 2 - phase, phase), jnp.where(bounced, -momentum, momentum)

    def leap(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        # half a flight, a kick, half a flight: one gradient, in one place of the program
        point, momentum = fly(*state, moves.step / 2)
        value, pull = jax.vjp(log_density, point)
        momentum = momentum + moves.step * moves.scale * pull(jnp.ones_like(value))[0]
        return fly(point, momentum, moves.step / 2), None

    start = (z, noise[:, 2:])
    (point, momentum), _ = jax.lax.scan(leap, start, length=_NUM_LEAPFROG)
    change = log_density(point) - log_density(z)
    gain = change - 0.5 * (jnp.square(momentum) - jnp.square(noise[:, 2:])).sum(-1)
    luck = -0.5 * jnp.square(noise[:, :2]).sum(-1)  # the log of a uniform number
    accepted = luck < gain  # false where the gain is NaN
    rate = jnp.exp(jnp.minimum(jnp.nan_to_num(gain, nan=-jnp.inf), 0.0)).mean()
    return jnp.where(accepted[:, None], point, z), rate


def moved(log_density: LogDensity, moves: BoxMoves, z: Array, key: Array, count: int) -> Array:
    """The chains after ``count`` moves."""
    return jax.lax.fori_loop(0, count, lambda k, z: move(log_density, moves, z, jax.random.fold_in(key, k))[0], z)


def tuned(log_density: LogDensity, moves: BoxMoves, z: Array, key: Array, rounds: int = 8) -> BoxMoves:
    """Moves with a step size that is accepted about four times in five."""

    def unfinished(state: tuple[Array, BoxMoves, Array]) -> Array:
        turn, moves, _ = state
        return (turn < rounds) & ((turn == 0) | (moves.acceptance < 0.65) | (moves.acceptance > 0.95))

    def try_out(state: tuple[Array, BoxMoves, Array]) -> tuple[Array, BoxMoves, Array]:
        turn, moves, z = state
        change = jnp.where(moves.acceptance > 0.95, 1.5, 0.6).astype(moves.step.dtype)
        moves = moves._replace(step=moves.step * jnp.where(turn == 0, jnp.ones_like(change), change))
        z, rate = move(log_density, moves, z, jax.random.fold_in(key, turn))
        return turn + 1, moves._replace(acceptance=rate), z

    return jax.lax.while_loop(unfinished, try_out, (jnp.zeros((), int), moves, z))[1]
