"""The samplers that a user can choose, on the unit box: chains, and what is known of the volume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from pyro_riemann._formulas import Array, table
from pyro_riemann._formulas.runtime import Key, Runtime
from pyro_riemann._formulas.unit_fit import Landscape, UnitFit
from pyro_riemann._formulas.unit_laws import CellLaw, efficiency
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean, weigh
from pyro_riemann._formulas.unit_moves import LEAPS, Moves, Slopes, moved, tuned
from pyro_riemann._formulas.unit_setup import SetUp
from pyro_riemann._formulas.unit_tempering import TemperedState, systematic

CHAINS = 8  # independent populations where a sampler has none of its own
LOWEST = 1e-2  # efficiency assumed where less was measured: bounds the work


class Weighed(NamedTuple):
    """Chains and the importance weights behind them.

    Attributes:
        chains: ``(chains, length, d)``.
        log_weight: of all proposals, ``(chains, proposals)``.
        acceptance: of what was moved or proposed, a scalar.
    """

    chains: Array
    log_weight: Array
    acceptance: Array


def resampled(
    runtime: Runtime,
    value: Callable[[Array], Array],
    proposal: UnitMixture,
    shape: tuple[int, int, int],
    key: Key,
) -> Weighed:
    """Independent populations of draws of a proposal, each resampled systematically by its weights.

    Args:
        runtime: of the arrays.
        value: log density.
        proposal: the mixture.
        shape: populations, draws of the proposal in each, and how many of these are kept.
        key: of the random numbers.
    """
    xp, (populations, each, length) = runtime.xp, shape
    dim, like = proposal.loc.shape[1], proposal.log_share
    z = proposal.place(runtime, runtime.uniform(runtime.fold(key, 0), (populations * each, dim + 1), like))
    log_weight = weigh(runtime, value, proposal, z).reshape(populations, each)
    weights = xp.exp(log_weight - xp.amax(log_weight, 1)[:, None])
    chosen = systematic(xp, weights, length, runtime.uniform(runtime.fold(key, 1), (populations, 1), like))
    first = each * table(xp, np.arange(populations), chosen)[:, None]
    return Weighed(z[(chosen + first).reshape(-1)].reshape(populations, length, dim), log_weight, xp.ones_like(z[0, 0]))


def spread(
    runtime: Runtime, slopes: Slopes, drawn: Weighed, scale: Array, num_moves: int, key: Key
) -> tuple[Weighed, Array]:
    """Hamiltonian moves of every draw, tuned on some of them; and at how many points they took the gradient."""
    if num_moves == 0:
        return drawn, table(runtime.xp, 0.0, scale)
    flat = drawn.chains.reshape(-1, drawn.chains.shape[-1])
    moves = Moves.in_unit_box(runtime.xp, scale)
    moves, _, tries = tuned(runtime, slopes, moves, runtime.fold(key, 2), flat[:: max(1, len(flat) // 256)])
    flat, rate = moved(runtime, slopes, moves, runtime.fold(key, 3), flat, num_moves)
    points = len(flat) * (1 + num_moves * LEAPS)
    return drawn._replace(chains=flat.reshape(drawn.chains.shape), acceptance=rate), tries + points


class Target(Protocol):
    """A law on the unit box that a face samples."""

    @property
    def runtime(self) -> Runtime:
        """Of its arrays."""
        ...

    @property
    def land(self) -> Landscape:
        """The function as the host sees it."""
        ...

    def table(self) -> SetUp | None:
        """A table of cells, where one resolves the function."""
        ...

    def proposal(self) -> UnitFit:
        """The fitted mixture."""
        ...

    def resampled(self, shape: tuple[int, int, int], num_moves: int, key: Key) -> tuple[Weighed, Array]:
        """:func:`resampled` from the proposal, then :func:`spread`."""
        ...

    def population(self, islands: int, particles: int, num_moves: int, key: Key) -> TemperedState:
        """The end of a tempered sequence from the proposal."""
        ...

    def accepted(self, law: CellLaw, count: int, key: Key) -> Array:
        """Draws ``(count, d)`` by rejection from a table."""
        ...


@dataclass(frozen=True, eq=False)
class Volume:
    """A log volume, whose error is yet to be compared with another route where there is one.

    Attributes:
        own: the log volume and its own error.
        land: the function.
        fitted: the proposal, which knows another route.
        weighed: whether the volume is a mean of importance weights.
        unchanged: whether the function is still the one that was drawn from; None where it cannot change.
    """

    own: tuple[float, float]
    land: Landscape
    fitted: UnitFit | None = None
    weighed: bool = False
    unchanged: Callable[[], bool] | None = None

    def numbers(self) -> tuple[float, float]:
        """The log volume with the larger of its own error and the difference from another route."""
        (value, error), fitted = self.own, self.fitted
        if fitted is not None:
            if fitted.tempered is None and self.unchanged is not None and not self.unchanged():
                raise RuntimeError(
                    "the metric has changed since the draws were made, so that the error of its volume then can no "
                    "longer be found: read `log_volume` before the metric changes, or draw again."
                )
            error = fitted.checked(self.land.slopes, value, error, self.weighed)[0]
        return value, max(error, 4 * self.land.epsilon * max(1.0, abs(value)))


class Drawn(NamedTuple):
    """What a sampler has done.

    Attributes:
        method: its name.
        reason: in words.
        chains: in the unit box, ``(chains, length, d)``.
        efficiency: effective draws for each proposal, particle or state.
        acceptance: of what was proposed or moved.
        volume: the log volume.
        evaluations: of the function.
    """

    method: str
    reason: str
    chains: Array
    efficiency: float
    acceptance: float
    volume: Volume
    evaluations: int


def check_count(name: str, value: int, least: int = 1) -> int:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int, got {type(value).__name__}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    return value


def choose(target: Target) -> str:
    """The sampler that fits best: the only decision between importance sampling and tempering is ``UnitFit.fits``."""
    if target.table() is not None:
        return "table"
    return "importance" if target.proposal().fits else "tempered"


def from_table(target: Target, num_samples: int, key: Key) -> Drawn:
    """Independent draws from a table."""
    dim = target.land.dim
    if dim > 2:
        raise ValueError(f'method "table" needs d <= 2, the metric has dimension {dim}.')
    setup = target.table()
    if setup is None or not isinstance(setup.law, CellLaw):
        raise ValueError('method "table" does not resolve this metric: it varies within the smallest cells.')
    law, length = setup.law, -(-num_samples // CHAINS)
    unit, rate = target.accepted(law, CHAINS * length, key), float(law.efficiency)
    reason = f"dimension {dim}: rejection from a table of cells, {rate:.2g} accepted"
    own = float(law.rule.log_volume), float(law.rule.standard_error)
    chains = unit.reshape(CHAINS, length, dim)
    return Drawn("table", reason, chains, rate, 1.0, Volume(own, target.land), round(len(unit) / rate))


def importance(
    target: Target, num_samples: int, num_populations: int, num_proposals: int | None, num_moves: int, key: Key
) -> Drawn:
    """Draws of the proposal, resampled by their weights."""
    check_count("num_populations", num_populations)
    check_count("num_moves", num_moves, 0)
    fitted, length = target.proposal(), -(-num_samples // num_populations)
    if num_proposals is None:
        each = math.ceil(2 * length / max(fitted.efficiency, LOWEST))
    else:
        each = -(-check_count("num_proposals", num_proposals, num_populations) // num_populations)
    drawn, extra = target.resampled((num_populations, each, length), num_moves, key)
    if not bool((drawn.log_weight > -math.inf).any(1).all()):
        raise RuntimeError(
            f"No draw of the proposal lies in the box in one of {num_populations} populations of {each}: raise "
            "`num_proposals`, or widen the box."
        )
    return by_weights(target, "importance", f"{num_populations * each} proposals", drawn, extra)


def by_weights(target: Target, method: str, how: str, drawn: Weighed, extra: Array) -> Drawn:
    """What weights say of the draws and of the volume."""
    weights, fitted = drawn.log_weight.reshape(-1), target.proposal()
    value, error = log_mean(target.runtime, weights)
    volume = Volume((float(value), float(error)), target.land, fitted, weighed=True)
    share, reason = float(effective_share(target.runtime, weights)), f"{fitted.reason}; {how}"
    return Drawn(method, reason, drawn.chains, share, float(drawn.acceptance), volume, len(weights) + int(extra))


def tempered(
    target: Target, num_samples: int, num_islands: int, num_particles: int | None, num_moves: int, key: Key
) -> Drawn:
    """The last populations of a tempered sequence."""
    check_count("num_islands", num_islands, 2)
    check_count("num_moves", num_moves)
    length = -(-num_samples // num_islands)
    if num_particles is None:
        num_particles = max(256, length)
    elif check_count("num_particles", num_particles) < length:
        raise ValueError(
            f"`num_particles` is {num_particles} on {num_islands} islands, too few for {num_samples} draws: at least "
            f"{length} are needed."
        )
    fitted, end = target.proposal(), target.population(num_islands, num_particles, num_moves, key)
    if end.temperature < 1:
        raise RuntimeError(
            f"The tempered sequence reached only {float(end.temperature):.2e} of the way from the proposal to the "
            "uniform law in 200 stages: `metric` varies too fast in the box. Use a smaller box or a smoother metric."
        )
    value, error = log_mean(target.runtime, end.log_mass)
    volume, share = Volume((float(value), float(error)), target.land, fitted), float(efficiency(end, error))
    reason, evaluations = f"{fitted.reason}; {int(end.stage)} temperatures", int(end.evaluations)
    return Drawn("tempered", reason, end.particles, share, float(end.acceptance), volume, evaluations)


def interleaved(chains: Array, count: int) -> Array:
    """``count`` draws, chain by chain in turn, spaced where the chains are longer than that; ``(count, d)``."""
    every = chains.shape[1] // -(-count // len(chains))
    return chains[:, ::every].swapaxes(0, 1).reshape(-1, chains.shape[-1])[:count]
