"""Moves of particles in the manner of BlackJAX: ``init``, then ``step`` from state to state; the faces add arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from pyro_riemann._formulas import Array, table
from pyro_riemann._formulas.runtime import Key, Runtime
from pyro_riemann._formulas.unit_mixture import log_mean
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState, Moves, Slopes, move
from pyro_riemann._formulas.unit_tempering import NUM_MOVES, TemperedInfo, TemperedState, advance, begin

LogDensity: TypeAlias = Callable[[Array], Array]


class Face(Runtime, Protocol):
    """A runtime that differentiates, and checks what a user hands over."""

    def slopes(self, log_density: LogDensity) -> Slopes:
        """The function with its gradient."""
        ...

    def check_key(self, key: Key) -> Key:
        """Raise unless it is one."""
        ...

    def check_like(self, name: str, value: Array, like: Array) -> Array:
        """Raise unless ``value`` is a floating array of the kind of ``like``."""
        ...

    def holds(self, mask: Array) -> bool:
        """Whether ``mask`` is true everywhere, as far as that is known."""
        ...


@dataclass(frozen=True, eq=False)
class Box:
    """What the kernels share: a face, and a box that is one."""

    face: ClassVar[Face]

    def _set_box(self, low: Array, high: Array) -> None:
        """Keep ``low`` and ``high`` as arrays of the face; raise unless they are corners ``(d)``."""
        low = self.face.check_like("low", low, low)
        high = self.face.check_like("high", high, low)
        if low.ndim != 1 or low.shape != high.shape or not self.face.holds(low < high):
            raise ValueError(
                f"`low` and `high` must be corners (d,), `low` strictly below `high`, got {tuple(low.shape)} and "
                f"{tuple(high.shape)}."
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _check_inside(self, name: str, axes: tuple[str, ...], points: Array, low: Array, high: Array) -> None:
        """Raise unless ``points (*axes, d)`` lie in the box."""
        self.face.check_like(name, points, low)
        if points.ndim != len(axes) + 1 or points.shape[-1] != len(low):
            raise ValueError(f"`{name}` must have shape ({', '.join(axes)}, {len(low)}), got {tuple(points.shape)}.")
        inside = ((points >= low) & (points <= high)).all(-1)
        if not self.face.holds(inside):
            raise ValueError(f"`{name}` has {int((~inside).sum())} points outside the box.")


@dataclass(frozen=True, eq=False)
class Hamiltonian(Box):
    """See the kernels of the faces."""

    log_density: LogDensity
    low: Array
    high: Array
    scale: Array | None = None
    step_size: float = 0.1
    num_leapfrog: int = 10
    jitter: float = 0.4

    def __post_init__(self) -> None:
        self._set_box(self.low, self.high)
        if self.scale is not None:
            object.__setattr__(self, "scale", self.face.check_like("scale", self.scale, self.low))

    def init(self, position: Array) -> HamiltonianState:
        """The state of chains.

        Args:
            position: where they are, ``(n, d)`` in the box.

        Raises:
            TypeError, ValueError: if that is no such array, or a chain is known to start outside the box.
        """
        self._check_inside("position", ("n",), position, self.low, self.high)
        return HamiltonianState(position, *self.face.slopes(self.log_density)(position))

    def step(self, key: Key, state: HamiltonianState) -> tuple[HamiltonianState, HamiltonianInfo]:
        """One move of every chain.

        Args:
            key: of the random numbers: a generator of torch or None, the global one; a key of JAX.
            state: from :meth:`init` or the last step.

        Raises:
            TypeError: if ``key`` is none of these.
        """
        scale = self.high - self.low if self.scale is None else self.scale
        moves = Moves(self.low, self.high, scale, table(self.face.xp, self.step_size, scale))
        slopes, key = self.face.slopes(self.log_density), self.face.check_key(key)
        return move(self.face, slopes, moves, key, state, self.num_leapfrog, self.jitter)


@dataclass(frozen=True, eq=False)
class Tempered(Box):
    """See the kernels of the faces."""

    log_start: LogDensity
    log_density: LogDensity
    low: Array
    high: Array
    num_moves: int = NUM_MOVES

    def __post_init__(self) -> None:
        self._set_box(self.low, self.high)

    def init(self, particles: Array) -> TemperedState:
        """The state of draws of the start.

        Args:
            particles: the draws, ``(num_islands, n, d)`` in the box.

        Raises:
            TypeError, ValueError: if that is no such array, a particle is known to lie outside the box, or there is one
                island alone.
        """
        self._check_inside("particles", ("num_islands", "n"), particles, self.low, self.high)
        if len(particles) < 2:
            raise ValueError("`particles` has one island: the error of the integral needs two at least.")
        return begin(self.face.xp, particles, 0 * particles[:, 0, 0])

    def step(self, key: Key, state: TemperedState) -> tuple[TemperedState, TemperedInfo]:
        """One rise of the temperature.

        Args:
            key: of the random numbers: a generator of torch or None, the global one; a key of JAX.
            state: from :meth:`init` or the last step; at ``temperature`` 1 it has arrived.

        Raises:
            TypeError: if ``key`` is none of these.
        """
        start, target = self.face.slopes(self.log_start), self.face.slopes(self.log_density)
        return advance(self.face, start, target, self.face.check_key(key), state, self.low, self.high, self.num_moves)

    def _integral(self, state: TemperedState) -> tuple[Array, Array]:
        """The log integral and its error."""
        if not self.face.holds(state.temperature >= 1):
            raise ValueError(f"`state` is at temperature {float(state.temperature):.2g}: step on until it is 1.")
        return log_mean(self.face, state.log_mass)
