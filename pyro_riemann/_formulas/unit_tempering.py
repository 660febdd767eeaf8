"""Tempered sequences of particle populations: from a law that can be drawn from to one that cannot."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas import Array, Namespace, table
from pyro_riemann._formulas.runtime import HOST, Key, Runtime
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean
from pyro_riemann._formulas.unit_moves import LEAPS, HamiltonianState, Moves, Slopes, move

NUM_MOVES = 3
_KEEP = 0.7  # effective sample size that a change of temperature may cost
_RISES = np.logspace(-6, 0, 97)  # changes of temperature among which one is chosen, of what remains
_STAGES = 200
_CHECK = 16, 64, 2, 2**17  # islands, particles, moves and points of a second opinion


class TemperedState(NamedTuple):
    """Particles on their way along ``start^(1 - b) target^b``.

    Attributes:
        particles: ``(num_islands, n, d)``, of equal weight.
        log_mass: log integral that each island estimates, ``(num_islands)``; independent of each other.
        temperature: b, a scalar.
        step: step size of the moves, in standard deviations of the particles, a scalar.
        acceptance: rate of the last moves, a scalar.
        stage: temperatures used, a scalar.
        evaluations: points at which the target was asked for, gradients included, a scalar.
        short: whether a budget cut the sequence short, a scalar.

    Example:
        >>> from pyro_riemann.sampling import TemperedKernel
        >>> kernel = TemperedKernel(lambda z: 0 * z[:, 0], lambda z: z[:, 0], torch.zeros(1), torch.ones(1))
        >>> state = kernel.init(torch.rand(8, 64, 1))
        >>> state.temperature, state.particles.shape
        (tensor(0.), torch.Size([8, 64, 1]))
    """

    particles: Array
    log_mass: Array
    temperature: Array
    step: Array
    acceptance: Array
    stage: Array
    evaluations: Array
    short: Array


class TemperedInfo(NamedTuple):
    """What became of one rise of the temperature.

    Attributes:
        ancestors: which particle of its island each new one stems from, ``(num_islands, n)``.
        acceptance: acceptance rate of the moves, a scalar.

    Example:
        >>> from pyro_riemann.sampling import TemperedKernel
        >>> kernel = TemperedKernel(lambda z: 0 * z[:, 0], lambda z: z[:, 0], torch.zeros(1), torch.ones(1))
        >>> _, info = kernel.step(None, kernel.init(torch.rand(8, 64, 1)))
        >>> info.ancestors.shape
        torch.Size([8, 64])
    """

    ancestors: Array
    acceptance: Array


def begin(xp: Namespace, particles: Array, log_mass: Array) -> TemperedState:
    """The start of a sequence: draws ``(num_islands, n, d)``, and the log mass of the start in each island's view."""
    zero = table(xp, 0.0, particles)
    return TemperedState(particles, log_mass, zero, zero + 0.5, zero + 1, zero, zero, zero > 0)


def flat(state: TemperedState) -> Array:
    """All particles, ``(num_islands * n, d)``."""
    return state.particles.reshape(-1, state.particles.shape[-1])


def deviations(xp: Namespace, z: Array) -> Array:
    """Standard deviation of each coordinate of ``(n, d)``."""
    return xp.sqrt(((z - z.mean(0)) ** 2).mean(0))


def advance(
    runtime: Runtime,
    start: Slopes,
    target: Slopes,
    key: Key,
    now: TemperedState,
    low: Array,
    high: Array,
    num_moves: int = NUM_MOVES,
    budget: float = math.inf,
) -> tuple[TemperedState, TemperedInfo]:
    """One rise of the temperature.

    The rise is the largest that leaves 70 % of every island effective. Resampling is systematic; moves are
    Hamiltonian. Where the next stage would take more than ``budget`` points, one jump to the end takes its
    place: right, and as inaccurate as the islands then differ.
    """
    risen = _risen(runtime, start, target, now, num_moves, budget)
    return _moved_on(runtime, start, target, key, now, risen, low, high, num_moves)


class _Risen(NamedTuple):
    """A temperature that is chosen, before the particles follow; values ``(n)`` and gradients ``(n, d)`` at them."""

    log_weight: Array  # (num_islands, n)
    temperature: Array
    log_mass: Array
    evaluations: Array
    short: Array
    of_start: tuple[Array, Array]
    of_target: tuple[Array, Array]


def _risen(
    runtime: Runtime, start: Slopes, target: Slopes, now: TemperedState, num_moves: int, budget: float
) -> _Risen:
    xp, (islands, count, _) = runtime.xp, now.particles.shape
    z = flat(now)
    of_start, of_target = start(z), target(z)
    log_ratio = (of_target[0] - of_start[0]).reshape(islands, count)
    cost = islands * count * (1 + num_moves * LEAPS)
    short = now.evaluations + 2 * cost > budget  # no stage would fit after this one
    remaining = 1 - now.temperature
    rise = xp.where(short, remaining, remaining * _rise(runtime, remaining * log_ratio))
    heat = xp.where(rise >= remaining, xp.ones_like(remaining), now.temperature + rise)
    log_mass = now.log_mass + runtime.logsumexp(rise * log_ratio, 1) - math.log(count)
    return _Risen(rise * log_ratio, heat, log_mass, now.evaluations + cost, short, of_start, of_target)


def _moved_on(
    runtime: Runtime,
    start: Slopes,
    target: Slopes,
    key: Key,
    now: TemperedState,
    risen: _Risen,
    low: Array,
    high: Array,
    num_moves: int,
) -> tuple[TemperedState, TemperedInfo]:
    xp, (islands, count, dim) = runtime.xp, now.particles.shape
    heat = risen.temperature
    shift = runtime.uniform(runtime.fold(key, 0), (islands, 1), risen.log_weight)
    weights = xp.exp(risen.log_weight - xp.amax(risen.log_weight, 1)[:, None])
    chosen = systematic(xp, weights, count, shift)
    rows = (chosen + count * table(xp, np.arange(islands), chosen)[:, None]).reshape(-1)

    def mixed(of_start: tuple[Array, Array], of_target: tuple[Array, Array]) -> tuple[Array, Array]:
        (other, push), (own, pull) = of_start, of_target
        return heat * own + (1 - heat) * other, heat * pull + (1 - heat) * push

    def between(point: Array) -> tuple[Array, Array]:
        return mixed(start(point), target(point))

    def one(number: int, state: tuple[HamiltonianState, Array, Array]) -> tuple[HamiltonianState, Array, Array]:
        chains, step, _ = state
        chains, info = move(runtime, between, moves._replace(step=step), runtime.fold(key, 1 + number), chains)
        rate = info.acceptance.mean()
        change = xp.where(rate > 0.9, 1.3, xp.where(rate < 0.6, 0.6, 1.0))
        return chains, step * change, rate

    z, (value, slope) = flat(now)[rows], mixed(risen.of_start, risen.of_target)
    moves = Moves(low, high, deviations(xp, z), now.step)
    begun = HamiltonianState(z, value[rows], slope[rows])
    chains, step, rate = runtime.repeat(num_moves, one, (begun, now.step, now.acceptance))
    particles = chains.position.reshape(islands, count, dim)
    state = TemperedState(particles, risen.log_mass, heat, step, rate, now.stage + 1, risen.evaluations, risen.short)
    return state, TemperedInfo(chosen, rate)


def temper(
    runtime: Runtime,
    slopes: Slopes,
    proposal: UnitMixture,
    islands: int,
    particles: int,
    key: Key,
    num_moves: int = NUM_MOVES,
    budget: float = math.inf,
) -> TemperedState:
    """Sequential Monte Carlo in the unit box from a proposal to ``slopes``; short of b = 1 after 200 stages.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.
    """

    def start(point: Array) -> tuple[Array, Array]:
        return proposal.slopes(runtime, point)

    def stage(now: TemperedState) -> TemperedState:
        in_stage = runtime.fold(key, now.stage + 1)
        return advance(runtime, start, slopes, in_stage, now, low, low + 1, num_moves, budget)[0]

    first = _first(runtime, proposal, islands, particles, runtime.fold(key, 0))
    low = 0 * first.particles[0, 0]
    now: TemperedState = runtime.loop(lambda now: (now.temperature < 1) & (now.stage < _STAGES), stage, first)
    return now


def _first(runtime: Runtime, proposal: UnitMixture, islands: int, particles: int, key: Key) -> TemperedState:
    """Draws of a proposal inside the box."""
    xp, dim = runtime.xp, proposal.loc.shape[1]
    # the mass inside the box is an estimate too: each island has its own, or the islands would share its error
    z = proposal.place(runtime, runtime.uniform(key, (4 * particles * islands, dim + 1), proposal.loc))
    inside = ((z >= 0) & (z <= 1)).all(-1).reshape(islands, -1)
    order = xp.argsort(1 - inside * 1, axis=1, stable=True)  # those inside first, again and again if they are too few
    number = table(xp, np.arange(particles), order) % xp.clip(inside.sum(1), 1, None)[:, None]
    rows = table(xp, np.arange(islands), order)[:, None]
    first = z[(order[rows, number] + 4 * particles * rows).reshape(-1)].reshape(islands, particles, dim)
    return begin(xp, first, xp.log(inside.sum(1) / table(xp, 4.0 * particles, z)))


def tempered_log_integral(slopes: Slopes, proposal: UnitMixture, seed: int = 1) -> tuple[float, float]:
    """A second opinion of a log integral over the unit box, and its standard error; infinite if cut short.

    The moves of the last temperature do not change it, and are left out.

    Args:
        slopes: log f ``(n)`` and its gradient ``(n, d)`` at points ``(n, d)``, arrays of NumPy.
        proposal: where the sequence starts, wide of all other proposals.
        seed: of its random numbers.
    """

    def start(point: Array) -> tuple[Array, Array]:
        return proposal.slopes(HOST, point)

    (islands, particles, num_moves, budget), key = _CHECK, np.random.default_rng(seed)
    now = _first(HOST, proposal, islands, particles, key)
    low = 0 * now.particles[0, 0]
    for _ in range(_STAGES):
        risen = _risen(HOST, start, slopes, now, num_moves, budget)
        if risen.temperature >= 1:
            break
        now = _moved_on(HOST, start, slopes, key, now, risen, low, low + 1, num_moves)[0]
    value, error = log_mean(HOST, risen.log_mass)
    return float(value), math.inf if risen.short or risen.temperature < 1 else float(error)


def systematic(xp: Namespace, weights: Array, count: int, shift: Array) -> Array:
    """Indices ``(rows, count)``, in order, by systematic resampling of ``weights (rows, n)``.

    Args:
        xp: namespace of the arrays.
        weights: not normalised, ``(rows, n)``.
        count: how many of each row.
        shift: uniform numbers, ``(rows, 1)``.
    """
    rows, length = weights.shape
    edges = weights.cumsum(1)
    above = table(xp, np.arange(rows), weights)[:, None]  # the rows one after another: one search serves all
    ticks = (table(xp, np.arange(count), weights) + shift) / count + above
    found = xp.searchsorted((edges / edges[:, -1:] + above).reshape(-1), ticks.reshape(-1), side="right")
    first = table(xp, length * np.arange(rows), found)[:, None]
    return xp.clip(found.reshape(rows, count) - first, 0, length - 1)


def _rise(runtime: Runtime, log_ratio: Array) -> Array:
    """Largest share of what remains that keeps the effective sample size of every island; of ``(num_islands, n)``."""
    xp = runtime.xp
    shares = table(xp, _RISES, log_ratio)
    sizes = effective_share(runtime, shares[:, None, None] * log_ratio)  # (shares, islands)
    return xp.amax(xp.where(xp.amin(sizes, 1) >= _KEEP, shares, shares[0]))
