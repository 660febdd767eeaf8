"""Uniform laws by a mixture proposal: importance sampling for the volume, independence Metropolis for the draws."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp
from scipy.stats import qmc

from pyro_riemann.numpyro.distributions._box import SamplerReport, VolumeRule, effective_share
from pyro_riemann.numpyro.distributions._box_mixture import MixtureProposal, weigh
from pyro_riemann.numpyro.distributions._box_moves import BoxMoves, moved, tuned
from pyro_riemann.numpyro.metrics import RiemannianMetric

_REPLICATES = 16  # of randomised quasi Monte Carlo: their spread is the error
_BIAS = 0.005  # total variation left by the independence Metropolis chain
_MAX_STEPS = 512
_NUM_MOVES = 2
_TRIAL_CHAINS = 256


class MixtureLaw(NamedTuple):
    """Importance sampling from a mixture; draws by independence Metropolis and Hamiltonian moves.

    Attributes:
        rule: the importance rule.
        log_volume: its value.
        proposal: the mixture.
        moves: the Hamiltonian moves that end a draw.
        cumulative: cumulative probability of the nodes of the rule, ``(N)``.
        efficiency: effective sample size per proposal.
        steps: proposals for each draw.
    """

    rule: VolumeRule
    log_volume: Array
    proposal: MixtureProposal
    moves: BoxMoves
    cumulative: Array
    efficiency: Array
    steps: Array

    @property
    def report(self) -> SamplerReport:
        """How well the law is sampled."""
        return SamplerReport("mixture", self.efficiency, self.moves.acceptance, self.steps)


def build_mixture(metric: RiemannianMetric, proposal: MixtureProposal, num_points: int) -> MixtureLaw:
    """Volume, length of the chains and step of the moves, from ``num_points`` points in each of the replicates."""
    return _build(metric, proposal, jnp.asarray(_sobol(metric.dim + 1, num_points), proposal.low.dtype))


@jax.jit
def _build(metric: RiemannianMetric, proposal: MixtureProposal, uniform: Array) -> MixtureLaw:
    low, high = proposal.low, proposal.high
    z = proposal.place(uniform)
    log_weight = weigh(metric, proposal, z)
    value = logsumexp(log_weight) - math.log(len(z))
    replicates = logsumexp(log_weight.reshape(_REPLICATES, -1), axis=1) - math.log(len(z) // _REPLICATES)
    error = jnp.exp(replicates - value).std(ddof=1) / math.sqrt(_REPLICATES)
    inside = jnp.isfinite(log_weight)
    log_base = jnp.where(inside, -proposal.log_prob(z), -jnp.inf) - math.log(len(z)) - jnp.log(high - low).sum()
    rule = VolumeRule((z - low) / (high - low), log_base, error)

    cumulative = jax.nn.softmax(log_weight).cumsum()
    start = _picked(z, cumulative, (jnp.arange(_TRIAL_CHAINS) + 0.5) / _TRIAL_CHAINS)
    one = jnp.ones((), low.dtype)
    moves = BoxMoves(low, high, proposal.scale(), 0.5 * one, one)
    moves = tuned(lambda point: 0.5 * metric.logdet(point), moves, start, jax.random.key(0))
    steps = steps_to_forget(log_weight - value)
    return MixtureLaw(rule, value, proposal, moves, cumulative, effective_share(log_weight), steps)


def steps_to_forget(log_weight: Array) -> Array:
    """Steps after which an independence chain, started at any of its proposals, is close to its law.

    The chain leaves a point of weight w (mean 1) with probability at least 1/w a step.

    Args:
        log_weight: log importance weights of mean 1, ``(n)``.
    """
    share = jax.nn.softmax(log_weight)
    stay = jnp.where(jnp.isneginf(log_weight), 0.0, 1 - jnp.exp(-jnp.maximum(log_weight, 0.0)))
    candidates = [4 * 2**k for k in range(int(math.log2(_MAX_STEPS // 4)) + 1)]
    left = jnp.stack([(share * stay**steps).sum() for steps in candidates])
    enough = jnp.argmax(left <= _BIAS)
    return jnp.where((left <= _BIAS).any(), jnp.asarray(candidates)[enough], _MAX_STEPS)


@partial(jax.jit, static_argnames="count")
def draw_from_mixture(law: MixtureLaw, metric: RiemannianMetric, key: Array, count: int) -> Array:
    """``(count, d)`` draws: each the end of a chain of its own."""
    proposal, dtype = law.proposal, law.proposal.low.dtype

    def step(index: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, current, _ = state
        luck = jax.random.uniform(jax.random.fold_in(key, index), (count, proposal.low.shape[0] + 2), dtype)
        fresh = proposal.place(luck[:, 1:])
        log_weight = weigh(metric, proposal, fresh)
        # a chain that has met no point of the box yet takes what comes
        accept = (jnp.log(luck[:, 0]) < log_weight - current) | jnp.isneginf(current)
        return jnp.where(accept[:, None], fresh, z), jnp.where(accept, log_weight, current), luck[:, 0]

    nowhere = jnp.full((count,), -jnp.inf, dtype)
    start = (jnp.zeros((count, proposal.low.shape[0]), dtype), nowhere, nowhere)
    draws, log_weight, luck = jax.lax.fori_loop(0, law.steps, step, start)
    # too rare to matter: a chain that never met one starts from a point of the kept rule
    known = proposal.low + (proposal.high - proposal.low) * _picked(law.rule.nodes, law.cumulative, luck)
    draws = jnp.where(jnp.isneginf(log_weight)[:, None], known, draws)
    return moved(lambda z: 0.5 * metric.logdet(z), law.moves, draws, jax.random.fold_in(key, _MAX_STEPS), _NUM_MOVES)


def _picked(points: Array, cumulative: Array, luck: Array) -> Array:
    """The points among ``(n, d)`` at which their cumulative probabilities pass the uniform numbers ``luck (m)``."""
    return points[jnp.searchsorted(cumulative, luck * cumulative[-1], side="right").clip(max=len(points) - 1)]


@cache
def _sobol(dim: int, num_points: int) -> np.ndarray[Any, Any]:
    """Scrambled quasi-random sets in the unit cube, one after another."""
    engines: list[Any] = [
        qmc.Sobol(dim, scramble=True, seed=np.random.default_rng(seed)) for seed in range(_REPLICATES)
    ]
    return np.concatenate([engine.random_base2((num_points - 1).bit_length()) for engine in engines])
