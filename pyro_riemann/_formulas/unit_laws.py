"""Laws on the unit box once they are set up: a rule for integrals, and what draws are made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import scipy

from pyro_riemann._formulas import Array, Namespace, table
from pyro_riemann._formulas.climbs import Vector
from pyro_riemann._formulas.runtime import Key, Runtime
from pyro_riemann._formulas.unit_mixture import UnitMixture, effective_share, log_mean, weigh
from pyro_riemann._formulas.unit_moves import Moves, Slopes, tuned
from pyro_riemann._formulas.unit_tempering import TemperedState, deviations, flat, temper

REPLICATES = 16  # of randomised quasi Monte Carlo: their spread is the error
BIAS, MAX_STEPS = 0.005, 512  # total variation left by an independence chain, and its steps at most
LAST_MOVES = 2  # Hamiltonian moves that end a draw of a mixture
_TRIALS = 256  # chains by which moves are tuned
_ISLANDS, _PARTICLES = 16, 256


class SamplerReport(NamedTuple):
    """How well a sampler of a Riemannian uniform works.

    Attributes:
        method: ``"exact"`` (a flat metric), ``"table"`` (rejection from a cell table), ``"mixture"`` (independence
            Metropolis from a Gaussian mixture) or ``"tempered"`` (a tempered sequence of particle populations).
        efficiency: in (0, 1]: acceptance rate of the table, effective sample size per proposal of the
            mixture, effective share of the particles of the tempered sequence. An array where JAX traces, like the
            next two.
        acceptance: acceptance rate of the Hamiltonian moves that end a draw; 1 where none are made.
        steps: proposals spent on one draw.
        reason: how the proposal came about, and what the volume does not count, in words; empty under a trace.
        on_floor: share of the law's mass where the metric is only what keeps it from being singular: the floor of a
            kernel metric, the jitter of a pullback; None where it has nothing of the kind, or arrays are traced.

    Example:
        >>> law = RiemannianUniform(EuclideanMetric(1), 0.0, 1.0)
        >>> law.reports[0].method
        'exact'
    """

    method: str
    efficiency: float
    acceptance: float
    steps: int
    reason: str = ""
    on_floor: float | None = None


class Rule(NamedTuple):
    """An integral over the box, and means under the law, as a weighted sum.

    Attributes:
        log_volume: log of the integral of the density that is not normalised, a scalar.
        standard_error: its error.
        nodes: ``(N, d)``.
        log_weight: log of weights that sum to 1, ``(N)``; minus infinity for nodes that do not count.
    """

    log_volume: Array
    standard_error: Array
    nodes: Array
    log_weight: Array


class FlatLaw(NamedTuple):
    """The uniform law itself; two nodes have its mean and variances."""

    rule: Rule
    efficiency: Array
    acceptance: Array
    steps: Array


class MixtureLaw(NamedTuple):
    """Importance sampling from a mixture; draws by independence Metropolis and Hamiltonian moves.

    Attributes:
        rule: the importance rule.
        efficiency: effective sample size per proposal.
        acceptance: of the moves.
        steps: proposals for each draw.
        proposal: the mixture.
        moves: the Hamiltonian moves that end a draw.
    """

    rule: Rule
    efficiency: Array
    acceptance: Array
    steps: Array
    proposal: UnitMixture
    moves: Moves


class TemperedLaw(NamedTuple):
    """A tempered population; draws are random particles, moved on by Hamiltonian Monte Carlo.

    Draws of one law share that population, so that its error (that of the volume) does not average out over draws.

    Attributes:
        rule: the particles, equally weighted.
        efficiency: effective share of the particles.
        acceptance: of the moves.
        steps: 1.
        moves: the Hamiltonian moves that end a draw.
        short: whether a budget cut the sequence short.
    """

    rule: Rule
    efficiency: Array
    acceptance: Array
    steps: Array
    moves: Moves
    short: Array


class CellLaw(NamedTuple):
    """A table of cells: quadrature, and rejection from a step function.

    Attributes:
        rule: the quadrature.
        efficiency: acceptance rate.
        acceptance: 1.
        steps: 1.
        bound: log of the step function, ``(cells ** d)``.
        rows: cumulative probability of each row of the table, ``(r)``.
        columns: the same within each row, ``(r, c)``.
    """

    rule: Rule
    efficiency: Array
    acceptance: Array
    steps: Array
    bound: Array
    rows: Array
    columns: Array


Law: TypeAlias = FlatLaw | CellLaw | MixtureLaw | TemperedLaw
METHODS: dict[type, str] = {FlatLaw: "exact", CellLaw: "table", MixtureLaw: "mixture", TemperedLaw: "tempered"}


def flat_law(xp: Namespace, log_volume: Array, like: Array) -> FlatLaw:
    """The law of a constant density; ``like`` is a point ``(d)``."""
    one, half = xp.ones_like(log_volume), 12**-0.5
    nodes = 0.5 + 0 * like + table(xp, [[-half], [half]], like)
    return FlatLaw(Rule(log_volume, 0 * one, nodes, 0 * nodes[:, 0] - math.log(2)), one, one, one)


@cache
def quasi_random(dim: int, num_points: int) -> Vector:
    """Scrambled quasi-random sets in the unit cube, one after another, ``(16 * num_points, dim)``."""
    engines = [
        scipy.stats.qmc.Sobol(dim, scramble=True, seed=np.random.default_rng(seed)) for seed in range(REPLICATES)
    ]
    return np.concatenate([engine.random_base2((num_points - 1).bit_length()) for engine in engines])


def mixture_law(
    runtime: Runtime,
    value: Callable[[Array], Array],
    slopes: Slopes,
    proposal: UnitMixture,
    uniform: Array,
    key: Key,
) -> MixtureLaw:
    """Volume, length of the chains and step of the moves, from :func:`quasi_random` numbers ``(N, d + 1)``."""
    xp = runtime.xp
    z = proposal.place(runtime, uniform)
    log_weight = weigh(runtime, value, proposal, z)
    total = runtime.logsumexp(log_weight, 0)
    mean, each = total - math.log(len(z)), len(z) // REPLICATES
    replicates = xp.exp(runtime.logsumexp(log_weight.reshape(REPLICATES, each), 1) - math.log(each) - mean)
    error = xp.sqrt(((replicates - replicates.mean()) ** 2).sum() / (REPLICATES - 1) / REPLICATES)
    nodes = xp.where((log_weight > -math.inf)[:, None], z, 0.5)
    rule = Rule(mean, error, nodes, log_weight - total)
    begin = picked(xp, rule, table(xp, (np.arange(_TRIALS) + 0.5) / _TRIALS, z))
    moves, rate, _ = tuned(runtime, slopes, Moves.in_unit_box(xp, proposal.scale(runtime)), key, begin)
    steps = steps_to_forget(runtime, log_weight - mean)
    return MixtureLaw(rule, effective_share(runtime, log_weight), rate, steps, proposal, moves)


def steps_to_forget(runtime: Runtime, log_weight: Array, bias: float = BIAS, most: int = MAX_STEPS) -> Array:
    """Steps after which an independence chain, started at any of its proposals, is within ``bias`` of its law.

    The chain leaves a point of weight w (mean 1) with probability at least 1/w a step.

    Args:
        runtime: of the arrays.
        log_weight: log importance weights of mean 1, ``(n)``.
        bias: total variation.
        most: steps at most.
    """
    xp = runtime.xp
    share = xp.exp(log_weight - runtime.logsumexp(log_weight, 0))
    stay = 1 - xp.exp(-xp.clip(log_weight, 0, None))
    steps = table(xp, [4 * 2**k for k in range(int(math.log2(most // 4)) + 1)], log_weight)
    left = xp.stack([(share * stay ** int(4 * 2**k)).sum() for k in range(len(steps))])
    return xp.amin(xp.where(left <= bias, steps, most))


def picked(xp: Namespace, rule: Rule, luck: Array) -> Array:
    """Nodes of a rule, at which its cumulative weights pass the uniform numbers ``luck (m)``; ``(m, d)``."""
    cumulative = xp.exp(rule.log_weight).cumsum(0)
    index = xp.searchsorted(cumulative, luck * cumulative[-1], side="right")
    return rule.nodes[xp.clip(index, 0, len(rule.nodes) - 1)]


def tempered_law(runtime: Runtime, slopes: Slopes, proposal: UnitMixture, key: Key, budget: float) -> TemperedLaw:
    """Run the sequence from a proposal, of at most ``budget`` points."""
    return law_of(runtime, temper(runtime, slopes, proposal, _ISLANDS, _PARTICLES, key, budget=budget))


def law_of(runtime: Runtime, end: TemperedState) -> TemperedLaw:
    """The law of a population; its volume is NaN if that has not arrived."""
    xp, z = runtime.xp, flat(end)
    value, error = log_mean(runtime, end.log_mass)
    rule = Rule(xp.where(end.temperature < 1, math.nan, value), error, z, 0 * z[:, 0] - math.log(len(z)))
    moves = Moves.in_unit_box(xp, deviations(xp, z))._replace(step=end.step)
    return TemperedLaw(rule, efficiency(end, error), end.acceptance, xp.ones_like(value), moves, end.short)


def efficiency(end: TemperedState, error: Array) -> Array:
    """Share of the particles that independent draws as good as these would need."""
    return 1 / (1 + end.particles.shape[0] * end.particles.shape[1] * error**2)
