"""The moves of the house for any log density on a box: ``init``, then ``step`` from state to state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.unit_mixture import log_mean
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState, Moves, move
from pyro_riemann._formulas.unit_tempering import NUM_MOVES, TemperedInfo, TemperedState, advance, begin
from pyro_riemann.numpyro._checks import check_array, check_key, holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.sampling._runtime import RUNTIME

LogDensity = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class HamiltonianKernel:
    r"""Hamiltonian Monte Carlo for any log density on a box, all chains in one batch.

    The particle bounces off the walls of the box, so that no proposal is lost. The law need not be normalised. The
    interface is that of BlackJAX: a state goes in, a state and information about the move come out; ``jax.jit``
    takes both methods.

    Args:
        log_density: log density with respect to dz, maps points ``(n, d)`` to ``(n,)``, row by row; differentiable.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        scale: length scale of the density in each coordinate, ``(d)``; the mass is ``scale ** -2``. By default the
            widths of the box.
        step_size: of the leapfrog, in units of ``scale``.
        num_leapfrog: leapfrog steps in a move.
        jitter: each chain shortens its steps by a random share of up to this much.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Neal (2011), *MCMC using Hamiltonian dynamics*, section 5.5.1 for the walls.

    Example:
        >>> kernel = HamiltonianKernel(lambda z: 2 * z.sum(-1), -jnp.ones(2), jnp.ones(2), step_size=0.1)
        >>> state, step = kernel.init(jnp.zeros((2000, 2))), jax.jit(kernel.step)
        >>> for key in jax.random.split(jax.random.key(0), 20):
        ...     state, info = step(key, state)
        >>> mean = 1 / jnp.tanh(2.0) - 1 / 2  # of a truncated exponential law
        >>> bool(abs(state.position.mean(0) - mean).max() < 0.05), bool(info.acceptance.mean() > 0.8)
        (True, True)
    """

    log_density: LogDensity
    low: Array
    high: Array
    scale: Array | None = None
    step_size: float = 0.1
    num_leapfrog: int = 10
    jitter: float = 0.4

    def __post_init__(self) -> None:
        _check_corners(self.low, self.high)

    def init(self, position: Array) -> HamiltonianState:
        """The state of chains.

        Args:
            position: where they are, ``(n, d)`` in the box.

        Raises:
            TypeError: if ``position`` has another dtype or none.
            ValueError: if a chain is known to start outside the box.
        """
        _check_inside("position", "(n", position, self.low, self.high)
        return HamiltonianState(position, *_slopes(self.log_density)(position))

    def step(self, key: Array, state: HamiltonianState) -> tuple[HamiltonianState, HamiltonianInfo]:
        """One move of every chain.

        Args:
            key: of the random numbers.
            state: from :meth:`init` or the last step.

        Raises:
            TypeError: if ``key`` is no key.
        """
        scale = self.high - self.low if self.scale is None else self.scale
        moves = Moves(self.low, self.high, scale, jnp.asarray(self.step_size, scale.dtype))
        slopes = _slopes(self.log_density)
        return move(RUNTIME, slopes, moves, check_key(key), state, self.num_leapfrog, self.jitter)


@dataclass(frozen=True, eq=False)
class TemperedKernel:
    r"""Sequential Monte Carlo from any law that can be drawn from to any log density, both on a box.

    Populations follow :math:`p_0^{1 - b} p^b`. A step raises b as far as 70 % of the particles of every island allow,
    resamples systematically, and moves the particles on by Hamiltonian Monte Carlo; at b = 1 they are draws of p. The
    islands are independent of each other: their spread is the error of :meth:`log_integral`.

    Args:
        log_start: log density of the start with respect to dz, normalised on the box; maps ``(n, d)`` to ``(n,)``.
        log_density: log density of the target with respect to dz, not normalised; likewise.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        num_moves: Hamiltonian moves at each temperature.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.

    Example:
        >>> kernel = TemperedKernel(lambda z: 0 * z[:, 0], lambda z: 20 * z.sum(-1), jnp.zeros(3), jnp.ones(3))
        >>> state, step = kernel.init(jax.random.uniform(jax.random.key(0), (8, 128, 3))), jax.jit(kernel.step)
        >>> while state.temperature < 1:
        ...     state, info = step(jax.random.fold_in(jax.random.key(1), int(state.stage)), state)
        >>> value, error = kernel.log_integral(state)
        >>> bool(abs(value - 3 * jnp.log(jnp.expm1(20.0) / 20)) < 4 * error), state.particles.shape
        (True, (8, 128, 3))
    """

    log_start: LogDensity
    log_density: LogDensity
    low: Array
    high: Array
    num_moves: int = NUM_MOVES

    def __post_init__(self) -> None:
        _check_corners(self.low, self.high)

    def init(self, particles: Array) -> TemperedState:
        """The state of draws of the start.

        Args:
            particles: the draws, ``(num_islands, n, d)`` in the box.

        Raises:
            TypeError: if ``particles`` has another dtype or none.
            ValueError: if a particle is known to lie outside the box, or there are fewer than two islands.
        """
        _check_inside("particles", "(num_islands, n", particles, self.low, self.high)
        if len(particles) < 2:
            raise ValueError("`particles` has one island: the error of the integral needs two at least.")
        return begin(jnp, particles, jnp.zeros(len(particles), particles.dtype))

    def step(self, key: Array, state: TemperedState) -> tuple[TemperedState, TemperedInfo]:
        """One rise of the temperature.

        Args:
            key: of the random numbers.
            state: from :meth:`init` or the last step; at ``temperature`` 1 it has arrived.

        Raises:
            TypeError: if ``key`` is no key.
        """
        start, target = _slopes(self.log_start), _slopes(self.log_density)
        return advance(RUNTIME, start, target, check_key(key), state, self.low, self.high, self.num_moves)

    def log_integral(self, state: TemperedState) -> Estimate:
        """Log of the integral of the target with respect to dz over the box, and its standard error, scalars.

        Args:
            state: at ``temperature`` 1.

        Raises:
            ValueError: if it is known to be short of that.
        """
        if not holds(state.temperature >= 1):
            raise ValueError(f"`state` is at temperature {float(state.temperature):.2g}: step on until it is 1.")
        return Estimate(*log_mean(RUNTIME, state.log_mass))


def _slopes(log_density: LogDensity) -> Callable[[Array], tuple[Array, Array]]:
    def slopes(z: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(log_density, z)
        return value, pull(jnp.ones_like(value))[0]

    return slopes


def _check_corners(low: Array, high: Array) -> None:
    low, high = check_array("low", low), check_array("high", high)
    if low.ndim != 1 or low.shape != high.shape or not holds(low < high):
        raise ValueError(
            f"`low` and `high` must be corners (d,), `low` strictly below `high`, got {low.shape} and {high.shape}."
        )


def _check_inside(name: str, shape: str, points: Array, low: Array, high: Array) -> None:
    points = check_array(name, points)
    if points.ndim != shape.count(",") + 2 or points.shape[-1] != len(low):
        raise ValueError(f"`{name}` must have shape {shape}, {len(low)}), got {points.shape}.")
    inside = ((points >= low) & (points <= high)).all(-1)
    if not holds(inside):
        raise ValueError(f"`{name}` has {int((~inside).sum())} points outside the box.")
