"""Hamiltonian Monte Carlo in a box, all chains in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from pyro_riemann._formulas import Array, Namespace, table
from pyro_riemann._formulas.runtime import Key, Runtime

# log density (n) and gradient (n, d) at points (n, d); moves are right whatever the gradient, which only guides them
Slopes: TypeAlias = Callable[[Array], tuple[Array, Array]]

LEAPS, JITTER = 5, 0.4
_WELL = 0.65, 0.95  # acceptance at which a step is kept


class HamiltonianState(NamedTuple):
    """Chains and what is known of the density where they are.

    Attributes:
        position: ``(n, d)``.
        log_density: ``(n)``.
        gradient: of the log density, ``(n, d)``.

    Example:
        >>> from pyro_riemann.sampling import HamiltonianKernel
        >>> kernel = HamiltonianKernel(lambda z: -z.square().sum(-1), -torch.ones(1), torch.ones(1))
        >>> kernel.init(torch.full((1, 1), 0.5))
        HamiltonianState(position=tensor([[0.5000]]), log_density=tensor([-0.2500]), gradient=tensor([[-1.]]))
    """

    position: Array
    log_density: Array
    gradient: Array


class HamiltonianInfo(NamedTuple):
    """What became of one move of every chain.

    Attributes:
        acceptance: probability with which it was accepted, ``(n)``.
        accepted: whether it was, ``(n)``.

    Example:
        >>> from pyro_riemann.sampling import HamiltonianKernel
        >>> kernel = HamiltonianKernel(lambda z: 0 * z.sum(-1), -torch.ones(1), torch.ones(1))
        >>> kernel.step(None, kernel.init(torch.zeros(1, 1)))[1]
        HamiltonianInfo(acceptance=tensor([1.]), accepted=tensor([True]))
    """

    acceptance: Array
    accepted: Array


class Moves(NamedTuple):
    """Leapfrog moves that bounce off the walls of a box.

    The free flight of a particle with a diagonal mass in a box is a straight line folded at the walls: exact,
    reversible and volume preserving, so that the acceptance rule is the usual one and no chain is ever stuck outside.

    Attributes:
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        scale: length scale of the target in each coordinate, ``(d)``; the mass is ``scale ** -2``.
        step: step size in units of ``scale``, a scalar.
    """

    low: Array
    high: Array
    scale: Array
    step: Array

    @classmethod
    def in_unit_box(cls, xp: Namespace, scale: Array) -> Moves:
        """Moves in the unit box."""
        return cls(0 * scale, 0 * scale + 1, scale, table(xp, 0.5, scale))


def move(
    runtime: Runtime,
    slopes: Slopes,
    moves: Moves,
    key: Key,
    state: HamiltonianState,
    leaps: int = LEAPS,
    jitter: float = JITTER,
) -> tuple[HamiltonianState, HamiltonianInfo]:
    """One move of every chain.

    Each chain shortens its steps by a random share of up to ``jitter``: with equal steps a Gaussian coordinate whose
    period is the length of the move comes back to where it was, and never mixes.
    """
    xp, z = runtime.xp, state.position
    momentum, luck = runtime.kick(key, z)
    width, stride = moves.high - moves.low, moves.step * (1 - jitter * luck[:, :1])

    def leap(_: int, now: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        point, speed, _, slope = now
        speed = speed + 0.5 * stride * moves.scale * slope
        phase = xp.remainder((point + stride * moves.scale * speed - moves.low) / width, 2)
        bounced = phase > 1
        point, speed = moves.low + width * xp.where(bounced, 2 - phase, phase), xp.where(bounced, -speed, speed)
        value, slope = slopes(point)
        return point, speed + 0.5 * stride * moves.scale * slope, value, slope

    point, speed, value, slope = runtime.repeat(leaps, leap, (z, momentum, state.log_density, state.gradient))
    gain = value - state.log_density - 0.5 * (speed**2 - momentum**2).sum(-1)
    gain = xp.where(xp.isnan(gain), -math.inf, gain)
    taken = xp.log(luck[:, 1]) < gain
    new = HamiltonianState(
        xp.where(taken[:, None], point, z),
        xp.where(taken, value, state.log_density),
        xp.where(taken[:, None], slope, state.gradient),
    )
    return new, HamiltonianInfo(xp.exp(xp.clip(gain, None, 0)), taken)


def moved(runtime: Runtime, slopes: Slopes, moves: Moves, key: Key, z: Array, count: int) -> tuple[Array, Array]:
    """Chains ``(n, d)`` after ``count`` moves, and the acceptance rate of the last."""

    def one(number: int, now: tuple[HamiltonianState, Array]) -> tuple[HamiltonianState, Array]:
        state, info = move(runtime, slopes, moves, runtime.fold(key, number), now[0])
        return state, info.acceptance.mean()

    state, rate = runtime.repeat(count, one, (HamiltonianState(z, *slopes(z)), table(runtime.xp, 1.0, z)))
    return state.position, rate


def tuned(
    runtime: Runtime, slopes: Slopes, moves: Moves, key: Key, z: Array, leaps: int = LEAPS, rounds: int = 8
) -> tuple[Moves, Array, Array]:
    """Moves with a step size that is accepted about four times in five, that rate, and how many points were asked."""
    xp = runtime.xp

    def unfinished(now: tuple[Array, Moves, Array, HamiltonianState]) -> Array:
        turn, _, rate, _ = now
        return (turn < rounds) & ((turn == 0) | (rate < _WELL[0]) | (rate > _WELL[1]))

    def attempt(now: tuple[Array, Moves, Array, HamiltonianState]) -> tuple[Array, Moves, Array, HamiltonianState]:
        turn, moves, rate, state = now
        change = xp.where(turn == 0, 1.0, xp.where(rate > _WELL[1], 1.5, 0.6))
        moves = moves._replace(step=moves.step * change)
        state, info = move(runtime, slopes, moves, runtime.fold(key, turn), state, leaps)
        return turn + 1, moves, info.acceptance.mean(), state

    zero = table(xp, 0.0, z)
    turns, moves, rate, _ = runtime.loop(unfinished, attempt, (zero, moves, zero, HamiltonianState(z, *slopes(z))))
    return moves, rate, len(z) * (1 + turns * leaps)
