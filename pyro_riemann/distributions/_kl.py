r"""Kullback-Leibler divergences, registered with ``torch.distributions.kl_divergence``.

================================================  ===========================================================
pair (p, q)                                       method
================================================  ===========================================================
both Gaussian (constant metric, normal)           closed form
both uniform, one metric object                   ``log Vol(q) - log Vol(p)``, infinite unless p lies in q
p of full support, q uniform                      infinite
p wrapped or Riemannian normal, d <= 3            Gauss-Hermite rule of 5^d nodes in the tangent space of p
p Riemannian normal, d > 3                        importance sampling from 512 quasi-random points
every other pair with a distribution from here    Monte Carlo, 32 draws of p
================================================  ===========================================================

All are differentiable in the parameters of both. The Monte Carlo average differentiates through
``rsample``, or, where p has none, through the score function.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence, register_kl

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.tangent_rule import MAX_PRODUCT_DIM
from pyro_riemann.distributions._base import RiemannianDistribution
from pyro_riemann.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.distributions._normal import RiemannianNormal
from pyro_riemann.distributions._tangent import spread_out, whole_rule
from pyro_riemann.distributions._uniform import RiemannianUniform
from pyro_riemann.distributions._vamp_prior import VampPrior
from pyro_riemann.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.metrics import ConstantMetric

NUM_SAMPLES = 32
NUM_NODES = 5
NUM_QUASI_RANDOM = 64  # times eight replicates


def monte_carlo_kl(p: Distribution, q: Distribution, num_samples: int = NUM_SAMPLES) -> Estimate:
    """Monte Carlo estimate of KL(p || q) from draws of p, and its standard error, ``(*batch)``.

    The average of ``log p - log q``, signed. Differentiable: through ``p.rsample`` where p has one, otherwise by a
    score-function term that is 0 in value.

    Args:
        p: any distribution; batch shapes broadcast.
        q: any distribution on the same space.
        num_samples: number of draws.

    Raises:
        ValueError: if ``num_samples`` is less than 2.

    Source: Mohamed, Rosca, Figurnov & Mnih (2020), *Monte Carlo gradient estimation in machine learning*, sections 4
    and 5.

    Example:
        >>> from pyro_riemann.distributions import monte_carlo_kl
        >>> p = RiemannianWrappedNormal(torch.zeros(2), 0.1, EuclideanMetric(2))
        >>> q = RiemannianWrappedNormal(torch.zeros(2), 0.2, EuclideanMetric(2))
        >>> kl = monte_carlo_kl(p, q, 10000)  # exactly log 2 - 1/2
        >>> bool((kl.value - 0.1931).abs() < 4 * kl.standard_error)
        True
    """
    if num_samples < 2:
        raise ValueError(f"`num_samples` must be at least 2, got {num_samples}.")
    p, q = _broadcast(p, q)
    z = p.rsample((num_samples,)) if p.has_rsample else p.sample((num_samples,))
    log_p = p.log_prob(z)
    ratio = log_p - _log_prob_anywhere(q, z)
    error = ratio.detach().std(0) / math.sqrt(num_samples)
    if not p.has_rsample and log_p.requires_grad:
        baseline = (ratio.detach().sum(0) - ratio.detach()) / (num_samples - 1)
        ratio = ratio + (ratio.detach() - baseline) * (log_p - log_p.detach())
    return Estimate(ratio.mean(0), error)


def _broadcast(p: Distribution, q: Distribution) -> tuple[Any, Any]:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"`p` and `q` must have one event shape, got {tuple(p.event_shape)} and {tuple(q.event_shape)}."
        )
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return p.expand(shape), q.expand(shape)


def _log_prob_anywhere(q: Any, z: Tensor) -> Tensor:
    """``q.log_prob`` that gives ``-inf``, not an error, outside the support of a box."""
    if isinstance(q, RiemannianUniform):
        q = q.expand(q.batch_shape)
        q._validate_args = False
    log_prob: Tensor = q.log_prob(z)
    return log_prob


# ---------------------------------------------------------------- closed forms


def _as_gaussian(p: Distribution) -> tuple[MultivariateNormal, Tensor] | None:
    """The law of p as a multivariate normal, and what its ``log_prob`` has on top; None if it is none."""
    if isinstance(p, MultivariateNormal):
        return p, p.loc.new_zeros(())
    if isinstance(p, Independent) and p.reinterpreted_batch_ndims == 1 and isinstance(p.base_dist, Normal):
        return MultivariateNormal(
            p.base_dist.loc, scale_tril=p.base_dist.scale.diag_embed()
        ), p.base_dist.loc.new_zeros(())
    if not isinstance(p, RiemannianHeatKernel | RiemannianWrappedNormal | RiemannianNormal):
        return None
    # a flat torus has the same metric but other distances
    if not isinstance(p.metric, ConstantMetric) or type(p.metric).squared_dist is not ConstantMetric.squared_dist:
        return None
    variance = p.scale.square() if isinstance(p, RiemannianNormal) else p.time
    gaussian = MultivariateNormal(p.loc, precision_matrix=p.metric.metric(p.loc) / variance[..., None, None])
    offset = p.log_mass().value if isinstance(p, RiemannianHeatKernel) else p.loc.new_zeros(())
    return gaussian, offset


def _kl_gaussian(p: Distribution, q: Distribution) -> Tensor | None:
    first, second = _as_gaussian(p), _as_gaussian(q)
    if first is None or second is None:
        return None
    return kl_divergence(first[0], second[0]) + first[1] - second[1]


# ---------------------------------------------------------------- quadrature in the tangent space of p


def _kl_tangent(p: RiemannianWrappedNormal | RiemannianNormal, q: Distribution) -> Tensor:
    """Sum of ``w (log p - log q)`` over fixed nodes; the distance to p is known there."""
    p, q = _broadcast(p, q)
    metric, dim = p.metric, p.metric.dim
    nodes, log_weights = whole_rule(dim, NUM_NODES if dim <= MAX_PRODUCT_DIM else NUM_QUASI_RANDOM, p.loc)
    is_normal = isinstance(p, RiemannianNormal)
    variance = p.scale.square() if is_normal else p.time
    z, log_v, minimal = spread_out(metric, p.loc, variance, nodes)
    shape = (-1, *(1,) * len(p.batch_shape))
    log_p = -0.5 * nodes.square().sum(-1).reshape(shape) + 0.5 * metric.logdet(z)
    if is_normal:
        log_p = log_p - p.log_normalizer().value
    else:
        log_p = log_p - 0.5 * dim * (2 * math.pi * variance).log() + log_v
    logits = log_weights.reshape(shape) - log_v if is_normal else log_weights.reshape(shape).expand_as(log_v)
    weights = torch.where(minimal, logits, torch.full_like(logits, -math.inf)).softmax(0)
    # nodes past the cut locus have weight 0, and may have an infinite density
    ratio = torch.where(minimal, log_p, torch.zeros_like(log_p)) - _log_prob_anywhere(q, z)
    return torch.where(minimal, weights * ratio, torch.zeros_like(ratio)).sum(0)


# ---------------------------------------------------------------- dispatch


def _kl(p: Distribution, q: Distribution) -> Tensor:
    closed = _kl_gaussian(p, q)
    if closed is not None:
        return closed
    full_support = isinstance(p, RiemannianHeatKernel | RiemannianWrappedNormal | RiemannianNormal)
    if isinstance(q, RiemannianUniform) and (full_support or _as_gaussian(p) is not None):
        shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
        return torch.full(shape, math.inf, dtype=q.low.dtype, device=q.low.device)
    if isinstance(p, RiemannianNormal) or (isinstance(p, RiemannianWrappedNormal) and p.metric.dim <= 3):
        return _kl_tangent(p, q)
    return monte_carlo_kl(p, q).value


def _kl_uniform(p: RiemannianUniform, q: RiemannianUniform) -> Tensor:
    inside = ((q.low <= p.low) & (p.high <= q.high)).all(-1)
    if p.metric is q.metric:
        ratio = q.log_volume().value - p.log_volume().value
        return torch.where(inside, ratio, torch.full_like(ratio, math.inf))
    if not bool(inside.all()):
        estimate = monte_carlo_kl(p, q).value
        return torch.where(inside, estimate, torch.full_like(estimate, math.inf))
    return monte_carlo_kl(p, q).value


def _kl_delta(p: Any, q: Distribution) -> Tensor:
    log_prob: Tensor = q.log_prob(p.v)
    return p.log_density - log_prob


for _ours in (RiemannianDistribution, VampPrior):
    register_kl(_ours, Distribution)(_kl)
    register_kl(Distribution, _ours)(_kl)
    register_kl(Delta, _ours)(_kl_delta)
    for _other in (RiemannianDistribution, VampPrior):
        register_kl(_ours, _other)(_kl)
register_kl(RiemannianUniform, RiemannianUniform)(_kl_uniform)
