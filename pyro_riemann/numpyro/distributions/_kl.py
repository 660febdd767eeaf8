r"""Kullback-Leibler divergences, registered with ``numpyro.distributions.kl.kl_divergence``.

================================================  ===========================================================
pair (p, q)                                       method
================================================  ===========================================================
both Gaussian (constant metric, normal)           closed form
both uniform, one metric object                   ``log Vol(q) - log Vol(p)``, infinite unless p lies in q
p of full support, q uniform                      infinite
p wrapped or Riemannian normal, d <= 3            Gauss-Hermite rule of 5^d nodes in the tangent space of p
p Riemannian normal, d > 3                        importance sampling from 512 quasi-random points
every other pair with a distribution from here    ``NotImplementedError``: draws need a key
================================================  ===========================================================

All are differentiable in the parameters of both. Where ``kl_divergence`` is not implemented, ``TraceMeanField_ELBO``
takes its own draws; elsewhere call :func:`monte_carlo_kl`.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Delta, Distribution, ExpandedDistribution, Independent, MultivariateNormal, Normal
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._formulas.tangent_rule import MAX_PRODUCT_DIM, joined_rule
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import RiemannianDistribution, check_key
from pyro_riemann.numpyro.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.numpyro.distributions._normal import RiemannianNormal
from pyro_riemann.numpyro.distributions._tangent import along_first, spread_out
from pyro_riemann.numpyro.distributions._uniform import RiemannianUniform
from pyro_riemann.numpyro.distributions._vamp_prior import VampPrior
from pyro_riemann.numpyro.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.numpyro.metrics import ConstantMetric

NUM_SAMPLES = 32
NUM_NODES = 5
NUM_QUASI_RANDOM = 64  # times eight replicates


def monte_carlo_kl(p: Distribution, q: Distribution, key: Array, num_samples: int = NUM_SAMPLES) -> Estimate:
    """Monte Carlo estimate of KL(p || q) from draws of p, and its standard error, ``(*batch)``.

    The average of ``log p - log q``, signed. Differentiable: through the draws where p is reparametrised, otherwise
    by a score-function term that is 0 in value.

    Args:
        p: any distribution; batch shapes broadcast.
        q: any distribution on the same space.
        key: key of ``jax.random``.
        num_samples: number of draws.

    Raises:
        ValueError: if ``num_samples`` is less than 2.
        TypeError: if ``key`` is no key of ``jax.random``.

    Source: Mohamed, Rosca, Figurnov & Mnih (2020), *Monte Carlo gradient estimation in machine learning*, sections 4
    and 5.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianWrappedNormal, monte_carlo_kl
        >>> p = RiemannianWrappedNormal(jnp.zeros(2), 0.1, EuclideanMetric(2))
        >>> q = RiemannianWrappedNormal(jnp.zeros(2), 0.2, EuclideanMetric(2))
        >>> kl = monte_carlo_kl(p, q, jax.random.key(0), 10000)  # exactly log 2 - 1/2
        >>> bool(jnp.abs(kl.value - 0.1931) < 4 * kl.standard_error)
        True
    """
    if num_samples < 2:
        raise ValueError(f"`num_samples` must be at least 2, got {num_samples}.")
    p, q = _broadcast(p, q)
    z, along = p.sample_with_intermediates(check_key(key), (num_samples,))
    log_p = p.log_prob(z, along) if along else p.log_prob(z)
    ratio = log_p - _unwarned(q).log_prob(z)
    fixed = jax.lax.stop_gradient(ratio)
    if not p.has_rsample:
        baseline = (fixed.sum(0) - fixed) / (num_samples - 1)
        advantage = jnp.where(jnp.isfinite(fixed - baseline), fixed - baseline, 0.0)  # infinity times 0 is not 0
        ratio = ratio + advantage * (log_p - jax.lax.stop_gradient(log_p))
    return Estimate(ratio.mean(0), fixed.std(0, ddof=1) / math.sqrt(num_samples))


def _broadcast(p: Distribution, q: Distribution) -> tuple[Any, Any]:
    if p.event_shape != q.event_shape:
        raise ValueError(f"`p` and `q` must have one event shape, got {p.event_shape} and {q.event_shape}.")
    shape = jnp.broadcast_shapes(p.batch_shape, q.batch_shape)
    return p.expand(shape), q.expand(shape)


def _unwarned(q: Any) -> Any:
    """``q`` that gives ``-inf`` outside the support of a box without a warning: that is its divergence."""
    if isinstance(q, RiemannianUniform | ExpandedDistribution):
        q = copy.copy(q)
    if isinstance(q, RiemannianUniform):
        q._validate_args = False
    elif isinstance(q, ExpandedDistribution):
        q.base_dist = _unwarned(q.base_dist)
    return q


# ---------------------------------------------------------------- closed forms


def _as_gaussian(p: Distribution) -> tuple[MultivariateNormal, Array] | None:
    """The law of p as a multivariate normal, and what its ``log_prob`` has on top; None if it is none."""
    if isinstance(p, MultivariateNormal):
        return p, jnp.zeros(())
    if isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1:
        base = p.base_dist.base_dist if isinstance(p.base_dist, ExpandedDistribution) else p.base_dist
        if isinstance(base, Normal):
            scale = jnp.sqrt(p.variance)
            return MultivariateNormal(p.mean, scale_tril=scale[..., None] * jnp.eye(scale.shape[-1])), jnp.zeros(())
    if not isinstance(p, RiemannianHeatKernel | RiemannianWrappedNormal | RiemannianNormal):
        return None
    # a flat torus has the same metric but other distances
    if not isinstance(p.metric, ConstantMetric) or type(p.metric).squared_dist is not ConstantMetric.squared_dist:
        return None
    variance = p.scale**2 if isinstance(p, RiemannianNormal) else p.time
    gaussian = MultivariateNormal(p.loc, precision_matrix=p.metric.metric(p.loc) / variance[..., None, None])
    return gaussian, p.log_mass().value if isinstance(p, RiemannianHeatKernel) else jnp.zeros(())


def _kl_gaussian(p: Distribution, q: Distribution) -> Array | None:
    first, second = _as_gaussian(p), _as_gaussian(q)
    if first is None or second is None:
        return None
    return kl_divergence(first[0], second[0]) + first[1] - second[1]


# ---------------------------------------------------------------- quadrature in the tangent space of p


@jax.jit
def _kl_tangent(p: RiemannianWrappedNormal | RiemannianNormal, q: Distribution) -> Array:
    """Sum of ``w (log p - log q)`` over fixed nodes; the distance to p is known there."""
    metric, dim = p.metric, p.metric.dim
    nodes, log_weights = joined_rule(dim, NUM_NODES if dim <= MAX_PRODUCT_DIM else NUM_QUASI_RANDOM)
    shape = jnp.broadcast_shapes(p.batch_shape, q.batch_shape)
    loc = jnp.broadcast_to(p.loc, (*shape, dim))
    is_normal = isinstance(p, RiemannianNormal)
    variance = jnp.broadcast_to(p.scale**2 if is_normal else p.time, shape)
    z, log_v, minimal = spread_out(metric, loc, variance, nodes)
    log_p = -0.5 * along_first((nodes**2).sum(-1), log_v) + 0.5 * metric.logdet(z)
    if is_normal:
        log_p = log_p - p.log_normalizer().value
    else:
        log_p = log_p - 0.5 * dim * jnp.log(2 * math.pi * variance) + log_v
    logits = along_first(log_weights, log_v) - (log_v if is_normal else jnp.zeros_like(log_v))
    weights = jax.nn.softmax(jnp.where(minimal, logits, -jnp.inf), 0)
    # nodes past the cut locus have weight 0, and may have an infinite density
    ratio = jnp.where(minimal, log_p, 0.0) - q.log_prob(z)
    return jnp.where(minimal, weights * ratio, 0.0).sum(0)


# ---------------------------------------------------------------- dispatch


def _kl(p: Distribution, q: Distribution) -> Array:
    if p.event_shape != q.event_shape:
        raise ValueError(f"`p` and `q` must have one event shape, got {p.event_shape} and {q.event_shape}.")
    closed = _kl_gaussian(p, q)
    if closed is not None:
        return closed
    full_support = isinstance(p, RiemannianHeatKernel | RiemannianWrappedNormal | RiemannianNormal)
    if isinstance(q, RiemannianUniform) and (full_support or _as_gaussian(p) is not None):
        return jnp.full(jnp.broadcast_shapes(p.batch_shape, q.batch_shape), jnp.inf, q.low.dtype)
    if isinstance(p, RiemannianUniform) and isinstance(q, RiemannianUniform) and p.metric is q.metric:
        inside = ((q.low <= p.low) & (p.high <= q.high)).all(-1)
        return jnp.where(inside, q.log_volume().value - p.log_volume().value, jnp.inf)
    if isinstance(p, RiemannianNormal) or (isinstance(p, RiemannianWrappedNormal) and p.metric.dim <= MAX_PRODUCT_DIM):
        return _kl_tangent(p, q)
    raise NotImplementedError(
        f"KL divergence of {type(p).__name__} from {type(q).__name__} needs random draws: use "
        "monte_carlo_kl(p, q, key) of pyro_riemann.numpyro."
    )


def _kl_delta(p: Any, q: Distribution) -> Array:
    return p.log_density - q.log_prob(p.v)


def _kl_expanded(p: Any, q: Any) -> Array:
    first = p.base_dist if isinstance(p, ExpandedDistribution) else p
    second = q.base_dist if isinstance(q, ExpandedDistribution) else q
    return jnp.broadcast_to(kl_divergence(first, second), jnp.broadcast_shapes(p.batch_shape, q.batch_shape))


for _ours in (RiemannianDistribution, VampPrior):
    kl_divergence.register(_ours, Distribution)(_kl)
    kl_divergence.register(Distribution, _ours)(_kl)
    kl_divergence.register(_ours, ExpandedDistribution)(_kl_expanded)
    kl_divergence.register(ExpandedDistribution, _ours)(_kl_expanded)
    kl_divergence.register(Delta, _ours)(_kl_delta)
    for _other in (RiemannianDistribution, VampPrior):
        kl_divergence.register(_ours, _other)(_kl)
