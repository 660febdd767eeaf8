"""Rejection whose bound rises to heavier proposals that have mass: rays in random directions, or points of a mixture.

Source: Caffo, Booth & Davis (2002), *Empirical supremum rejection sampling*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from pyro_riemann._formulas import densities, ray_rule
from pyro_riemann._formulas.chart_draws import Pair, WeighedDraws
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._memo import is_known
from pyro_riemann.numpyro.distributions._rays import RayRule, cast_rays
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._runtime import RUNTIME

Propose: TypeAlias = Callable[[Array], tuple[Array, Array]]


def efficiency_of(seen: Array) -> Array:
    """Acceptance rates ``(*b)`` after proposals with log weights ``(N, *b)``."""
    mean, bound = _mean_and_bound(seen)
    return jnp.exp(mean - bound)


def by_rays(metric: RiemannianMetric, loc: Array, variance: Array, seen: Array, key: Array, count: int) -> Array:
    """Draws ``(count, b, d)``: a direction by rejection from the uniform one, a radius by its law on that ray.

    NaN where none is accepted in 1000 rounds.

    Args:
        metric: any metric.
        loc: centres, ``(b, d)``.
        variance: ``(b,)``.
        seen: log masses of other rays, ``(N, b)``.
        key: of ``jax.random``.
        count: draws of each law.
    """
    return _said(seen, partial(_by_rays, metric, loc, variance, seen, key, count))


def by_points(
    metric: RiemannianMetric, loc: Array, variance: Array, draws: WeighedDraws, key: Array, count: int
) -> Array:
    """Draws ``(count, d)`` of one law from the proposal of weighed draws; NaN as for rays."""
    assert draws.proposal is not None
    seen, proposal = jnp.asarray(draws.log_weights, loc.dtype), draws.proposal.on(jnp, loc)
    return _said(seen, partial(_by_points, metric, loc, variance, proposal, seen, key, count))


def _said(seen: Array, run: Callable[[], tuple[Array, Array, Array]]) -> Array:
    """Draws, with warnings of what is known of them."""
    dear = _say_if_dear(efficiency_of(seen))
    z, efficiency, effective = run()
    if is_known(effective) and effective.size:
        if not dear:
            _say_if_dear(efficiency)
        if said := ray_rule.complaint_of_draws(float(effective.min()), len(seen)):
            warn(said)
    return z


def _say_if_dear(efficiency: Array) -> bool:
    """Warn if few proposals are accepted; whether it was said."""
    if not is_known(efficiency) or not efficiency.size:
        return False
    said = ray_rule.complaint_of_efficiency(float(efficiency.min()))
    if said:
        warn(said)
    return said is not None


@partial(jax.jit, static_argnames="count")
def _by_rays(
    metric: RiemannianMetric, loc: Array, variance: Array, seen: Array, key: Array, count: int
) -> tuple[Array, Array, Array]:
    def follow(key: Array) -> tuple[Array, Array]:
        for_noise, for_radius = jax.random.split(key)
        noise = jax.random.normal(for_noise, (count, *loc.shape), loc.dtype)
        white = noise / jnp.linalg.norm(noise, axis=-1, keepdims=True)
        rule = cast_rays(metric, loc, variance, white, 1.0, check=False)
        logs = rule.log_integrand(variance, 1.0)
        return _along(rule, logs, for_radius), logsumexp(logs, 0)

    return _reject(follow, seen, (count, *loc.shape), key)


@partial(jax.jit, static_argnames="count")
def _by_points(
    metric: RiemannianMetric, loc: Array, variance: Array, proposal: Pair, seen: Array, key: Array, count: int
) -> tuple[Array, Array, Array]:
    def draw(key: Array) -> tuple[Array, Array]:
        z = proposal.place(RUNTIME, jax.random.uniform(key, (count, metric.dim + 2), loc.dtype))
        squared = metric.squared_dist(jnp.broadcast_to(loc, z.shape), z)
        log_density = densities.short_time(jnp, metric.dim, variance, squared, metric.logdet(z))
        return z, log_density - proposal.log_prob(RUNTIME, z)

    return _reject(draw, seen, (count, metric.dim), key)


def _mean_and_bound(seen: Array) -> tuple[Array, Array]:
    """Log of the mean weight, and above the log weight of all that were seen, ``(N, *b)``."""
    mean, largest = logsumexp(seen, 0) - math.log(len(seen)), seen.max(0)
    return mean, largest + ray_rule.MARGIN * jnp.clip(largest - mean, 0.01, 1.0)


def _reject(propose: Propose, seen: Array, shape: tuple[int, ...], key: Array) -> tuple[Array, Array, Array]:
    """Draws ``(count, *b, d)``, the last acceptance rate and the effective number of all proposals, ``(*b)``.

    Where proposals above the bound have more than a hundredth of the mass they raise it, and thin what was accepted
    before.

    Args:
        propose: from a key as many points as there are draws, and their log weights ``(count, *b)``.
        seen: log weights of earlier ones, ``(N, *b)``.
        shape: of the draws.
        key: of ``jax.random``.
    """
    mean, first = _mean_and_bound(seen)

    def step(carry: Any) -> Any:
        number, z, done, bound, whole, squares, lost = carry
        for_points, for_choice, for_thinning = jax.random.split(jax.random.fold_in(key, number), 3)
        points, weight = propose(for_points)
        weight = jnp.where(weight < jnp.inf, weight, -jnp.inf)  # of a point at which nothing is known
        share = jnp.exp(weight - first)
        whole, squares = whole + share.sum(0), squares + (share**2).sum(0)
        lost = lost + jnp.maximum(share - jnp.exp(bound - first), 0.0).sum(0)
        heavier = (weight > bound) & (lost > ray_rule.LOST * whole)
        raised = jnp.maximum(bound, jnp.where(heavier, weight + ray_rule.MARGIN, -jnp.inf).max(0))
        choice, thinning = (
            jnp.log(jax.random.uniform(one, weight.shape, weight.dtype)) for one in (for_choice, for_thinning)
        )
        stays = done & (thinning < bound - raised)
        accept = ~stays & (choice < weight - raised)
        z = jnp.where(accept[..., None], points, z)
        return number + 1, z, stays | accept, raised, whole, squares, jnp.where(raised > bound, 0.0, lost)

    before = jnp.exp(seen - first)
    sums = before.sum(0), (before**2).sum(0), jnp.zeros_like(first)
    start = (0, jnp.zeros(shape, seen.dtype), jnp.zeros(shape[:-1], bool), first, *sums)
    end = jax.lax.while_loop(lambda carry: (carry[0] < ray_rule.MAX_ROUNDS) & ~carry[2].all(), step, start)
    _, z, done, bound, whole, squares, _ = end
    return jnp.where(done[..., None], z, jnp.nan), jnp.exp(mean - bound), whole**2 / squares


def _along(rule: RayRule, logs: Array, key: Array) -> Array:
    """A point on every ray, ``(R, b, d)``, by the inverse of the distribution function of the radius."""
    size = ray_rule.PANEL
    panels = logs.reshape(-1, size, *logs.shape[1:])
    mass = jnp.cumsum(jax.nn.softmax(logsumexp(panels, 1), 0), 0)
    luck, goal = jax.random.uniform(key, (2, *mass.shape[1:]), mass.dtype)
    chosen = (mass[:-1] < luck).sum(0)

    def pick(table: Array) -> Array:  # (k, size, R, b, ...) at the chosen panels: (R, b, size, ...)
        first, second = jnp.arange(chosen.shape[0])[:, None], jnp.arange(chosen.shape[1])
        return table[chosen, :, first, second]

    density = pick(panels)
    density = jnp.exp(density - density.max(-1, keepdims=True)) / jnp.asarray(ray_rule.panel()[1], logs.dtype)
    powers, order = jnp.asarray(ray_rule.panel_polynomials(), logs.dtype), jnp.arange(size)
    growth = density @ powers / (order + 1)  # coefficients of the running integral, from the first power up
    goal = goal * growth.sum(-1)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        below = (growth * middle[..., None] ** (order + 1)).sum(-1) < goal
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(goal), jnp.ones_like(goal)))
    basis = (low[..., None] ** order) @ powers.T
    return (basis[..., None] * pick(rule.point.reshape(-1, size, *rule.point.shape[1:]))).sum(-2)
