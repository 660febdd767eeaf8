"""Uniform laws where no proposal fits: a tempered sequence of particle populations."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from pyro_riemann.numpyro.distributions._box import SamplerReport, VolumeRule, in_pieces, rows_at_once
from pyro_riemann.numpyro.distributions._box_mixture import MixtureProposal, weigh
from pyro_riemann.numpyro.distributions._box_moves import BoxMoves, moved, tuned
from pyro_riemann.numpyro.metrics import RiemannianMetric

_ISLANDS = 8  # independent populations: the spread of their volumes is the error
_PARTICLES = 512
_NUM_MOVES = 3
_KEEP = 0.7  # effective sample size that a change of temperature may cost
_MAX_STAGES = 200
_POINTS_A_MOVE = 6  # gradients and values


class TemperedLaw(NamedTuple):
    """Sequential Monte Carlo from a proposal to the law, along ``proposal^(1 - b) density^b``.

    Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*. A draw is a random particle of the last
    population, moved on by Hamiltonian Monte Carlo; draws of one law share that population, so
    that its error (that of the volume) does not average out over draws.

    Attributes:
        rule: the particles, equally weighted.
        log_volume: its value; NaN if the sequence did not arrive.
        moves: the Hamiltonian moves that end a draw.
        efficiency: effective share of the particles.
    """

    rule: VolumeRule
    log_volume: Array
    moves: BoxMoves
    efficiency: Array

    @property
    def report(self) -> SamplerReport:
        """How well the law is sampled."""
        return SamplerReport("tempered", self.efficiency, self.moves.acceptance, jnp.ones((), int))


class _Sequence(NamedTuple):
    stage: Array
    heat: Array
    particles: Array  # (islands * particles, d)
    log_mass: Array  # (islands)
    moves: BoxMoves


@partial(jax.jit, static_argnames="budget")
def build_tempered(metric: RiemannianMetric, proposal: MixtureProposal, budget: int = 2**22) -> TemperedLaw:
    """Run the sequence, by random numbers of its own.

    Where the next stage would take more than ``budget`` points, one jump to the end takes its place: right, and as
    inaccurate as the islands then differ.
    """
    stages = min(_MAX_STAGES, max(1, budget // (_ISLANDS * _PARTICLES * _POINTS_A_MOVE * (_NUM_MOVES + 1))))
    low, high, dim = proposal.low, proposal.high, proposal.low.shape[0]
    key, count = jax.random.key(0), _ISLANDS * _PARTICLES
    # the mass inside the box is an estimate too: each island has its own, or the islands would share its error
    uniform = jax.random.uniform(jax.random.fold_in(key, 0), (_ISLANDS, 4 * _PARTICLES, dim + 1), low.dtype)
    z = jax.vmap(proposal.place)(uniform)
    inside = ((z >= low) & (z <= high)).all(-1)
    order = jnp.argsort(~inside, axis=1, stable=True)  # those inside first, again and again if they are too few
    rows = jnp.arange(_PARTICLES) % jnp.maximum(inside.sum(1, keepdims=True), 1)
    start = jnp.take_along_axis(z, jnp.take_along_axis(order, rows, 1)[..., None], 1).reshape(count, dim)
    one = jnp.ones((), low.dtype)
    moves = BoxMoves(low, high, start.std(0), 0.5 * one, one)

    def stage(now: _Sequence) -> _Sequence:
        for_choice, for_tuning, for_moves = jax.random.split(jax.random.fold_in(key, now.stage), 3)
        log_ratio = weigh(metric, proposal, now.particles).reshape(_ISLANDS, -1)
        rise = jnp.where(now.stage >= stages, 1 - now.heat, _next_rise(log_ratio, 1 - now.heat))
        heat = jnp.where(rise >= 1 - now.heat, one, now.heat + rise)
        log_mass = now.log_mass + logsumexp(rise * log_ratio, axis=1) - math.log(_PARTICLES)
        z = _resampled(now.particles, jax.nn.softmax(rise * log_ratio, axis=1), for_choice)

        def target(point: Array) -> Array:
            def piece(p: Array) -> Array:
                return (1 - heat) * proposal.log_prob(p) + heat * 0.5 * metric.logdet(p)

            return in_pieces(piece, rows_at_once(metric), point)

        # acceptance 1 lets the step grow again, should the new temperature allow it
        moves = tuned(target, now.moves._replace(scale=z.std(0), acceptance=one), z[::8], for_tuning, rounds=3)
        z = moved(target, moves, z, for_moves, _NUM_MOVES)
        return _Sequence(now.stage + 1, heat, z, log_mass, moves)

    def unfinished(now: _Sequence) -> Array:
        return (now.heat < 1) & (now.stage <= stages)

    begin = jnp.log(inside.mean(1)).astype(low.dtype)
    end = jax.lax.while_loop(unfinished, stage, _Sequence(jnp.ones((), int), 0 * one, start, begin, moves))
    value = logsumexp(end.log_mass) - math.log(_ISLANDS)
    relative = jnp.exp(end.log_mass - value).std(ddof=1)
    element = in_pieces(lambda p: 0.5 * metric.logdet(p), rows_at_once(metric), end.particles)
    volume = jnp.log(high - low).sum()
    log_base = value - element - volume - math.log(count)
    rule = VolumeRule((end.particles - low) / (high - low), log_base, relative / math.sqrt(_ISLANDS))
    value = jnp.where(end.heat < 1, jnp.nan, value)
    return TemperedLaw(rule, value, end.moves, 1 / (1 + _PARTICLES * jnp.square(relative)))


def _resampled(particles: Array, weights: Array, key: Array) -> Array:
    """Systematic resampling within each island; ``weights`` ``(islands, particles)`` sum to 1 along the last axis."""
    shift = jax.random.uniform(key, (_ISLANDS, 1), weights.dtype)
    marks = (jnp.arange(_PARTICLES) + shift) / _PARTICLES
    chosen = jax.vmap(jnp.searchsorted)(weights.cumsum(1), marks).clip(max=_PARTICLES - 1)
    grouped = particles.reshape(_ISLANDS, _PARTICLES, -1)
    return jnp.take_along_axis(grouped, chosen[..., None], 1).reshape(particles.shape)


def _next_rise(log_ratio: Array, remaining: Array) -> Array:
    """Largest change of temperature that keeps the effective sample size of every island at ``_KEEP``."""

    def keeps(rise: Array) -> Array:
        log_weight = rise * log_ratio
        size = 2 * logsumexp(log_weight, axis=1) - logsumexp(2 * log_weight, axis=1) - math.log(log_ratio.shape[1])
        return jnp.exp(size).min() >= _KEEP

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        below, above = bounds
        middle = 0.5 * (below + above)
        good = keeps(middle)
        return jnp.where(good, middle, below), jnp.where(good, above, middle)

    below, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(remaining), remaining))
    return jnp.where(keeps(remaining), remaining, jnp.maximum(below, 1e-6))


@partial(jax.jit, static_argnames="count")
def draw_from_particles(law: TemperedLaw, metric: RiemannianMetric, key: Array, count: int) -> Array:
    """``(count, d)`` draws: particles, moved on."""
    for_choice, for_moves = jax.random.split(key)
    chosen = jax.random.randint(for_choice, (count,), 0, len(law.rule.nodes))
    draws = law.moves.low + (law.moves.high - law.moves.low) * law.rule.nodes[chosen]
    return moved(lambda z: 0.5 * metric.logdet(z), law.moves, draws, for_moves, 2 * _NUM_MOVES)
