r"""Kullback-Leibler divergences, registered with NumPyro's ``kl_divergence`` where they are closed forms.

================================================  ===========================================================
pair (p, q)                                       method
================================================  ===========================================================
both Gaussian (constant metric, normal)           closed form
both uniform, one metric object                   ``log Vol(q) - log Vol(p)``, infinite unless p lies in q
p of full support, q uniform                      infinite
p a point, q any                                  ``-log q`` there
every other pair with a distribution from here    ``NotImplementedError``
================================================  ===========================================================

All are differentiable in the parameters of both. Where ``kl_divergence`` is not implemented, ``TraceMeanField_ELBO``
takes the draws of its guide instead, as ``Trace_ELBO`` does; elsewhere call :func:`monte_carlo_kl`, which states its
error. (A quadrature rule for p knows nothing of the peaks of q, and would not see that it misses them.)
"""

from __future__ import annotations

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MultivariateNormal, Normal
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._work import announced
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.numpyro.distributions._normal import RiemannianNormal
from pyro_riemann.numpyro.distributions._uniform import RiemannianUniform
from pyro_riemann.numpyro.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.numpyro.metrics import ConstantMetric

NUM_SAMPLES = 32
_FULL = (RiemannianHeatKernel, RiemannianWrappedNormal, RiemannianNormal)  # laws with all of the chart as support


@announced
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
    if not isinstance(p, _FULL):
        return None
    # a flat torus has the same metric but other distances
    if not isinstance(p.metric, ConstantMetric) or type(p.metric).squared_dist is not ConstantMetric.squared_dist:
        return None
    variance = p.scale**2 if isinstance(p, RiemannianNormal) else p.time
    gaussian = MultivariateNormal(p.loc, precision_matrix=p.metric.metric(p.loc) / variance[..., None, None])
    return gaussian, p.log_mass().value if isinstance(p, RiemannianHeatKernel) else jnp.zeros(())


# ---------------------------------------------------------------- dispatch


def _kl(p: Distribution, q: Distribution) -> Array:
    if p.event_shape != q.event_shape:
        raise ValueError(f"`p` and `q` must have one event shape, got {p.event_shape} and {q.event_shape}.")
    if isinstance(q, RiemannianUniform):
        return _kl_from_uniform(p, q)
    first, second = _as_gaussian(p), _as_gaussian(q)
    if first is None or second is None:
        raise NotImplementedError(
            f"The KL divergence of {type(p).__name__} from {type(q).__name__} has no closed form here: use "
            "monte_carlo_kl(p, q, key) of pyro_riemann.numpyro, which states its error."
        )
    return kl_divergence(first[0], second[0]) + first[1] - second[1]


def _kl_from_uniform(p: Any, q: RiemannianUniform) -> Array:
    if isinstance(p, RiemannianUniform):
        if p.metric is not q.metric:
            raise NotImplementedError("The KL divergence of uniform laws of two metrics has no closed form.")
        inside = ((q.low <= p.low) & (p.high <= q.high)).all(-1)
        return jnp.where(inside, q.log_volume().value - p.log_volume().value, jnp.inf)
    if not isinstance(p, _FULL) and _as_gaussian(p) is None:
        raise NotImplementedError(f"The support of {type(p).__name__} is not known.")
    return jnp.full(jnp.broadcast_shapes(p.batch_shape, q.batch_shape), jnp.inf, q.low.dtype)


for _ours in (*_FULL, RiemannianUniform):
    for _other in (*_FULL, RiemannianUniform):
        kl_divergence.register(_ours, _other)(_kl)
    for _normal in (MultivariateNormal, Independent):
        kl_divergence.register(_ours, _normal)(_kl)
        kl_divergence.register(_normal, _ours)(_kl)
