"""Draws of the Riemannian normal from wrapped normals, by a program of fixed shape."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from pyro_riemann._formulas.tangent_rule import sobol_normal
from pyro_riemann.numpyro.distributions._tangent import spread_out, tangent_vectors, within_cut_locus
from pyro_riemann.numpyro.metrics import RiemannianMetric

_INFLATIONS = (1.0, 1.1, 1.25, 1.5, 2.0)
_PILOT_POINTS = 256
_BIAS = 1e-4  # bound on the total-variation error of independence Metropolis, from which its length follows
_MAX_STEPS = 512


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled: by independence Metropolis from a wrapped normal.

    Attributes:
        inflation: variance of the proposal relative to ``scale**2``, ``(*batch)``.
        efficiency: effective share of independent proposals, ``(*batch)``.
        num_steps: proposals for each draw, the largest number that one of the batch needs.

    Example:
        >>> report = RiemannianNormal(jnp.zeros(2), 0.5, EuclideanMetric(2)).sampling_report
        >>> report.efficiency.shape
        ()
    """

    inflation: Array
    efficiency: Array
    num_steps: Array


@jax.jit
def pilot(metric: RiemannianMetric, loc: Array, variance: Array) -> SamplingReport:
    """Choose the inflation from 256 fixed points around every ``loc``.

    With the target :math:`f = e^{-|x|^2/2} / V` in whitened coordinates and the proposal
    :math:`N(0, c I)`, weights f / N. All proposals are judged on one set of points, drawn from the widest.
    """
    widest = max(_INFLATIONS)
    nodes = sobol_normal(metric.dim, _PILOT_POINTS, seed=0)
    _, log_v, minimal = spread_out(metric, loc, widest * variance, nodes)
    radius = widest * jnp.square(jnp.asarray(nodes, loc.dtype)).sum(-1)
    squared = radius.reshape(-1, *(1,) * (loc.ndim - 1))
    log_target = jnp.where(minimal, -0.5 * squared - log_v, -jnp.inf)
    log_count = math.log(_PILOT_POINTS)

    def log_proposal(inflation: float) -> Array:
        return -0.5 * squared / inflation - 0.5 * metric.dim * math.log(inflation)

    mass = logsumexp(log_target - log_proposal(widest), axis=0) - log_count
    # on negative curvature 1/V outgrows any Gaussian that is not wider than its own
    positive = jnp.where(minimal, log_v, 0.0).min(0) >= -1e-6
    efficiencies, bounds = [], []
    for inflation in _INFLATIONS:
        log_weight = log_target - log_proposal(inflation)
        second = logsumexp(log_weight + log_target - log_proposal(widest), axis=0) - log_count
        efficiency = jnp.minimum(1.0, jnp.exp(2 * mass - second))
        efficiencies.append(efficiency if inflation > 1 else jnp.where(positive, efficiency, 0.0))
        bounds.append(jnp.maximum(1.01, jnp.exp(log_weight.max(0) - mass)))
    best = jnp.argmax(jnp.stack(efficiencies), 0)
    bound = jnp.choose(best, bounds, mode="clip")
    steps = jnp.ceil(math.log(_BIAS) / jnp.log1p(-1 / bound)).max(initial=0)
    return SamplingReport(
        jnp.asarray(_INFLATIONS, loc.dtype)[best],
        jnp.choose(best, efficiencies, mode="clip"),
        jnp.clip(steps, 8, _MAX_STEPS).astype(int),
    )


@partial(jax.jit, static_argnames="shape")
def sample_normal(
    metric: RiemannianMetric, loc: Array, variance: Array, report: SamplingReport, key: Array, shape: tuple[int, ...]
) -> Array:
    """Draws of shape ``(*sample, *batch, d)``: each the last state of a chain of independence Metropolis.

    Not differentiable: the number of steps is a value, not a shape.
    """
    metric, loc, variance, report = jax.lax.stop_gradient((metric, loc, variance, report))

    def propose(key: Array) -> tuple[Array, Array]:
        """Proposals and their log weights, -inf past the cut locus."""
        noise = jax.random.normal(key, shape, loc.dtype)
        spread = report.inflation * variance
        centre, v = jnp.broadcast_to(loc, shape), tangent_vectors(metric, loc, spread, noise)
        z, log_v = metric.expmap_log_van_vleck(centre, v)
        squared = jnp.square(noise).sum(-1)
        minimal = within_cut_locus(metric, centre, z, jnp.sqrt(spread * squared))
        return z, jnp.where(minimal, -0.5 * (report.inflation - 1) * squared - log_v, -jnp.inf)

    def step(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        z, current = state
        for_proposal, for_choice = jax.random.split(jax.random.fold_in(key, index))
        proposal, log_weight = propose(for_proposal)
        luck = jax.random.uniform(for_choice, current.shape, current.dtype)
        accept = (jnp.log(luck) < log_weight - current) | jnp.isneginf(current)
        return jnp.where(accept[..., None], proposal, z), jnp.where(accept, log_weight, current)

    start = propose(jax.random.fold_in(key, _MAX_STEPS))
    z, _ = jax.lax.fori_loop(0, report.num_steps, step, start)
    return z
