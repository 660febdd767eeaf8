"""Draws of a law on the unit box by the samplers that a user can choose, chains beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas import Array, table
from pyro_riemann._formulas.runtime import Key, Runtime
from pyro_riemann._formulas.unit_mixture import UnitMixture, weigh
from pyro_riemann._formulas.unit_moves import LEAPS, Moves, Slopes, moved, tuned
from pyro_riemann._formulas.unit_tempering import systematic

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


def proposals_needed(length: int, efficiency: float) -> int:
    """Draws of a proposal from which ``length`` are resampled."""
    return math.ceil(2 * length / max(efficiency, LOWEST))


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
) -> tuple[Weighed, int]:
    """Hamiltonian moves of every draw, tuned on some of them; and at how many points they took the gradient."""
    if num_moves == 0:
        return drawn, 0
    flat = drawn.chains.reshape(-1, drawn.chains.shape[-1])
    moves = Moves.in_unit_box(runtime.xp, scale)
    moves, _ = tuned(runtime, slopes, moves, runtime.fold(key, 2), flat[:: max(1, len(flat) // 256)])
    flat, rate = moved(runtime, slopes, moves, runtime.fold(key, 3), flat, num_moves)
    points = num_moves * len(flat) * (LEAPS + 1)
    return drawn._replace(chains=flat.reshape(drawn.chains.shape), acceptance=rate), points


def interleaved(chains: Array, count: int) -> Array:
    """The first ``count`` draws, chain by chain in turn, ``(count, d)``."""
    return chains.swapaxes(0, 1).reshape(-1, chains.shape[-1])[:count]
