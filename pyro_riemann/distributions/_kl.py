r"""Kullback-Leibler divergences, registered with ``torch.distributions.kl_divergence`` where they are closed forms.

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

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence, register_kl

from pyro_riemann._estimate import Estimate
from pyro_riemann._modes import full_precision
from pyro_riemann.distributions._base import RiemannianDistribution
from pyro_riemann.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.distributions._normal import RiemannianNormal
from pyro_riemann.distributions._uniform import RiemannianUniform
from pyro_riemann.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.metrics import ConstantMetric

NUM_SAMPLES = 32
_FULL = (RiemannianHeatKernel, RiemannianWrappedNormal, RiemannianNormal)  # laws with all of the chart as support


@full_precision
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
    if not isinstance(p, _FULL):
        return None
    # a flat torus has the same metric but other distances
    if not isinstance(p.metric, ConstantMetric) or type(p.metric).squared_dist is not ConstantMetric.squared_dist:
        return None
    variance = p.scale.square() if isinstance(p, RiemannianNormal) else p.time
    gaussian = MultivariateNormal(p.loc, precision_matrix=p.metric.metric(p.loc) / variance[..., None, None])
    offset = p.log_mass().value if isinstance(p, RiemannianHeatKernel) else p.loc.new_zeros(())
    return gaussian, offset


# ---------------------------------------------------------------- dispatch


@full_precision
def _kl(p: Any, q: Any) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"`p` and `q` must have one event shape, got {tuple(p.event_shape)} and {tuple(q.event_shape)}."
        )
    first, second = _as_gaussian(p), _as_gaussian(q)
    if first is None or second is None:
        raise NotImplementedError(
            f"The KL divergence of {type(p).__name__} from {type(q).__name__} has no closed form here: use "
            "monte_carlo_kl(p, q) of pyro_riemann.distributions, which states its error."
        )
    return kl_divergence(first[0], second[0]) + first[1] - second[1]


def _kl_from_uniform(p: Any, q: RiemannianUniform) -> Tensor:
    """Infinite: a box does not hold a law of full support."""
    if not isinstance(p, RiemannianDistribution) and _as_gaussian(p) is None:
        raise NotImplementedError(f"The support of {type(p).__name__} is not known.")
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return torch.full(shape, math.inf, dtype=q.low.dtype, device=q.low.device)


@full_precision
def _kl_uniform(p: RiemannianUniform, q: RiemannianUniform) -> Tensor:
    if p.metric is not q.metric:
        raise NotImplementedError("The KL divergence of uniform laws of two metrics has no closed form.")
    inside = ((q.low <= p.low) & (p.high <= q.high)).all(-1)
    ratio = q.log_volume().value - p.log_volume().value
    return torch.where(inside, ratio, torch.full_like(ratio, math.inf))


for _ours in _FULL:
    register_kl(_ours, RiemannianUniform)(_kl_from_uniform)
    for _normal in (MultivariateNormal, Independent):
        register_kl(_ours, _normal)(_kl)
        register_kl(_normal, _ours)(_kl)
    for _other in _FULL:
        register_kl(_ours, _other)(_kl)
for _normal in (MultivariateNormal, Independent):
    register_kl(_normal, RiemannianUniform)(_kl_from_uniform)
register_kl(RiemannianUniform, RiemannianUniform)(_kl_uniform)
