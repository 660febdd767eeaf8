r"""Expectations over a Gaussian in the tangent space at ``loc``.

Every normalising constant here is one: with :math:`z = \exp_\mu(v)` the volume element is
:math:`dM = dv_\perp / V(\mu, z)`, so that
:math:`\int h\,e^{-\ell^2 / 2t}\,dM = (2 \pi t)^{d/2}\, E[h(z) / V(\mu, z)]` over
:math:`v \sim N(0, t\,G(\mu)^{-1})` within the cut locus. No boundary value is solved for the integrand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp
from jax.scipy.linalg import solve_triangular

from pyro_riemann._formulas.tangent_rule import MAX_PRODUCT_DIM, joined_rule, tangent_rule
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric

_CUT_TOLERANCE = 0.01  # a shorter way by more than 1 %, above the solver's own discretisation error


def tangent_vectors(metric: RiemannianMetric, loc: Array, variance: Array, white: Array) -> Array:
    """Map standard normal ``white (*sample, *batch, d)`` to ``v ~ N(0, variance G(loc)^{-1})``."""
    factor = jnp.broadcast_to(metric.cholesky(loc), (*white.shape, metric.dim))
    v = solve_triangular(factor, white[..., None], trans=1, lower=True)[..., 0]
    return jnp.sqrt(variance)[..., None] * v


def is_closed_form(metric: RiemannianMetric) -> bool:
    """Whether distances need no solver (in other coordinates, scaled, or in a product either)."""
    # not just any metric with a `base`: that of a user may be another one
    while isinstance(metric, WarpedMetric | ScaledMetric):
        metric = metric.base
    if isinstance(metric, ProductMetric):
        return all(map(is_closed_form, metric.factors))
    return type(metric).squared_dist is not RiemannianMetric.squared_dist


def within_cut_locus(metric: RiemannianMetric, loc: Array, z: Array, radius: Array) -> Array:
    """True where the geodesic of length ``radius`` from ``loc`` to ``z`` is a shortest one.

    Any shorter curve refutes that, so that a few rough iterations of the solver will do.
    """
    metric, loc, z, radius = jax.lax.stop_gradient((metric, loc, z, radius))
    if is_closed_form(metric):
        length = metric.dist(loc, z)
    else:
        solver: Any = metric.solver.replace(
            init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore"
        )
        length = jnp.sqrt(solver.squared_dist(metric, loc, z))
    return length >= (1 - _CUT_TOLERANCE) * radius


def spread_out(metric: RiemannianMetric, loc: Array, variance: Array, nodes: Any) -> tuple[Array, Array, Array]:
    """Carry white ``nodes (n, d)`` to the manifold around every ``loc (*batch, d)``.

    Returns:
        Points ``(n, *batch, d)``, ``log V`` there, and whether each lies within the cut locus.
    """
    table = jnp.asarray(nodes, loc.dtype).reshape(-1, *(1,) * (loc.ndim - 1), metric.dim)
    white = jnp.broadcast_to(table, (len(table), *loc.shape))
    v = tangent_vectors(metric, loc, variance, white)
    centre = jnp.broadcast_to(loc, v.shape)
    z, log_v = metric.expmap_log_van_vleck(centre, v)
    return z, log_v, within_cut_locus(metric, centre, z, jnp.sqrt(variance) * jnp.linalg.norm(table, axis=-1))


def log_tangent_expectation(
    metric: RiemannianMetric,
    loc: Array,
    variance: Array,
    num_nodes: int,
    log_integrand: Callable[[Array, Array], Array],
) -> Estimate:
    """Log of ``E[exp(log_integrand(z, log V))]`` within the cut locus, ``(*batch)``, differentiable in all."""
    nodes, log_weights = tangent_rule(metric.dim, num_nodes)
    # one batch: on a metric without closed forms the flow costs much the same for 50 nodes as for 150
    z, log_v, minimal = spread_out(metric, loc, variance, np.concatenate(nodes))
    values = jnp.where(minimal, log_integrand(z, jnp.where(minimal, log_v, 0.0)), -jnp.inf)
    ends = np.cumsum([len(group) for group in nodes])[:-1]
    logs = jnp.stack(
        [
            logsumexp(group + along_first(weights, group), axis=0)
            for group, weights in zip(jnp.split(values, ends), log_weights, strict=True)
        ]
    )
    if metric.dim <= MAX_PRODUCT_DIM:
        return Estimate(logs[0], jax.lax.stop_gradient(jnp.abs(logs[1] - logs[0])))
    value = logsumexp(logs, axis=0) - math.log(len(nodes))
    return Estimate(value, jax.lax.stop_gradient(logs.std(0, ddof=1)) / math.sqrt(len(nodes)))


@partial(jax.jit, static_argnames=("num_nodes", "power"))
def chart_moments(
    metric: RiemannianMetric, loc: Array, variance: Array, num_nodes: int, power: float
) -> tuple[Array, Array]:
    r"""Euclidean mean and variance in the chart, ``(*batch, d)``, of the density :math:`V^{1 - p}\,N(v)` wrt dM.

    ``power`` p is 0 for the wrapped normal, whose folds past the cut locus count, 1 for the Riemannian normal and
    1/2 for the heat kernel to second order in time.
    """
    nodes, log_weights = joined_rule(metric.dim, num_nodes)
    z, log_v, minimal = spread_out(metric, loc, variance, nodes)
    logits = jnp.broadcast_to(along_first(log_weights, log_v), log_v.shape)
    if power > 0:
        logits = jnp.where(minimal, logits - power * log_v, -jnp.inf)
    weights = jax.nn.softmax(logits, 0)[..., None]
    mean = (weights * z).sum(0)
    return mean, (weights * (z - mean) ** 2).sum(0)


def along_first(values: Any, like: Array) -> Array:
    """A table ``(n,)`` as an array that broadcasts along the first axis of ``like (n, *batch)``."""
    return jnp.asarray(values, like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
