r"""Expectations over a Gaussian in the tangent space at ``loc``.

Every normalising constant here is one: with :math:`z = \exp_\mu(v)` the volume element is
:math:`dM = dv_\perp / V(\mu, z)`, so that
:math:`\int h\,e^{-\ell^2 / 2t}\,dM = (2 \pi t)^{d/2}\, E[h(z) / V(\mu, z)]` over
:math:`v \sim N(0, t\,G(\mu)^{-1})` within the cut locus. No boundary value is solved for the integrand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.tangent_rule import MAX_PRODUCT_DIM, check_num_nodes, joined_rule, tangent_rule
from pyro_riemann.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.metrics import RiemannianMetric

_CUT_TOLERANCE = 0.01  # a shorter way by more than 1 %, above the solver's own discretisation error


def default_nodes(dim: int) -> int:
    """Nodes an axis (d <= 3), or points in each of eight quasi-random replicates (above)."""
    return check_num_nodes(None, dim)


class TangentRule:
    """The groups of nodes and weights of :func:`tangent_rule` as tensors."""

    def __init__(self, dim: int, num_nodes: int, like: Tensor) -> None:
        nodes, log_weights = tangent_rule(dim, num_nodes)
        self.exact = dim <= MAX_PRODUCT_DIM
        self.nodes = [torch.as_tensor(n, dtype=like.dtype, device=like.device) for n in nodes]
        self.log_weights = [torch.as_tensor(w, dtype=like.dtype, device=like.device) for w in log_weights]

    def log_expectation(self, log_values: list[Tensor]) -> Estimate:
        """Log of the expectation, from the logs ``(nodes, *batch)`` of each group, with its error."""
        shape = (-1,) + (1,) * (log_values[0].dim() - 1)
        logs = torch.stack(
            [(v + w.reshape(shape)).logsumexp(0) for v, w in zip(log_values, self.log_weights, strict=True)]
        )
        if self.exact:
            return Estimate(logs[0], (logs[1] - logs[0]).detach().abs())
        value = logs.logsumexp(0) - math.log(len(logs))
        return Estimate(value, logs.detach().std(0) / math.sqrt(len(logs)))


def whole_rule(dim: int, num_nodes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes ``(n, d)`` and log weights ``(n,)`` for an expectation without an error estimate."""
    nodes, log_weights = joined_rule(dim, num_nodes)
    return (
        torch.as_tensor(nodes, dtype=like.dtype, device=like.device),
        torch.as_tensor(log_weights, dtype=like.dtype, device=like.device),
    )


def tangent_vectors(metric: RiemannianMetric, loc: Tensor, variance: Tensor, white: Tensor) -> Tensor:
    """Map standard normal ``white (*sample, *batch, d)`` to ``v ~ N(0, variance G(loc)^{-1})``."""
    factor = metric.cholesky(loc)
    v = torch.linalg.solve_triangular(factor.mT.expand(*white.shape, -1), white.unsqueeze(-1), upper=True).squeeze(-1)
    return variance.sqrt().unsqueeze(-1) * v


def is_closed_form(metric: RiemannianMetric) -> bool:
    """Whether distances need no solver (in other coordinates, scaled, or in a product either)."""
    # not just any metric with a `base`: that of a user may be another one
    while isinstance(metric, WarpedMetric | ScaledMetric):
        metric = metric.base
    if isinstance(metric, ProductMetric):
        return all(map(is_closed_form, metric.factors))
    return type(metric).squared_dist is not RiemannianMetric.squared_dist


def within_cut_locus(metric: RiemannianMetric, loc: Tensor, z: Tensor, radius: Tensor) -> Tensor:
    """True where the geodesic of length ``radius`` from ``loc`` to ``z`` is a shortest one.

    Any shorter curve refutes that, so that a few rough iterations of the solver will do.
    """
    with torch.no_grad():
        if is_closed_form(metric):
            length = metric.dist(loc, z)
        else:
            solver = metric.solver.replace(
                init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore"
            )
            length = solver.squared_dist(metric, loc, z).sqrt()
        return length >= (1 - _CUT_TOLERANCE) * radius


def spread_out(metric: RiemannianMetric, loc: Tensor, variance: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Carry white ``nodes (n, d)`` to the manifold around every ``loc (*batch, d)``.

    Returns:
        Points ``(n, *batch, d)``, ``log V`` there, and whether each lies within the cut locus.
    """
    white = nodes.reshape(-1, *(1,) * (loc.dim() - 1), metric.dim).expand(-1, *loc.shape)
    v = tangent_vectors(metric, loc, variance, white)
    centre = loc.expand_as(v)
    z, log_v = metric.expmap_log_van_vleck(centre, v)
    return z, log_v, within_cut_locus(metric, centre, z, variance.sqrt() * white.norm(dim=-1))


def chart_moments(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, num_nodes: int, power: float
) -> tuple[Tensor, Tensor]:
    r"""Euclidean mean and variance in the chart, ``(*batch, d)``, of the density :math:`V^{1 - p}\,N(v)` wrt dM.

    ``power`` p is 0 for the wrapped normal, whose folds past the cut locus count, 1 for the Riemannian normal and
    1/2 for the heat kernel to second order in time.
    """
    nodes, log_weights = whole_rule(metric.dim, num_nodes, loc)
    z, log_v, minimal = spread_out(metric, loc, variance, nodes)
    logits = log_weights.reshape(-1, *(1,) * (log_v.dim() - 1)).expand(log_v.shape)
    if power > 0:
        logits = torch.where(minimal, logits - power * log_v, torch.full_like(log_v, -math.inf))
    weights = logits.softmax(0).unsqueeze(-1)
    mean = (weights * z).sum(0)
    return mean, (weights * (z - mean).square()).sum(0)


def log_tangent_expectation(
    metric: RiemannianMetric,
    loc: Tensor,
    variance: Tensor,
    num_nodes: int,
    log_integrand: Callable[[Tensor, Tensor], Tensor],
) -> Estimate:
    """Log of ``E[exp(log_integrand(z, log V))]`` within the cut locus, ``(*batch)``, differentiable in all."""
    rule = TangentRule(metric.dim, num_nodes, loc)
    # one batch: on a metric without closed forms the flow costs much the same for 50 nodes as for 150
    z, log_v, minimal = spread_out(metric, loc, variance, torch.cat(rule.nodes))
    values = log_integrand(z, torch.where(minimal, log_v, torch.zeros_like(log_v)))
    values = torch.where(minimal, values, torch.full_like(values, -math.inf))
    return rule.log_expectation(list(values.split([len(nodes) for nodes in rule.nodes])))
