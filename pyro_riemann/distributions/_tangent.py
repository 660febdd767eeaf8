r"""Expectations over a Gaussian in the tangent space at ``loc``.

Every normalising constant here is one: with :math:`z = \exp_\mu(v)` the volume element is
:math:`dM = dv_\perp / V(\mu, z)`, so that
:math:`\int h\,e^{-\ell^2 / 2t}\,dM = (2 \pi t)^{d/2}\, E[h(z) / V(\mu, z)]` over
:math:`v \sim N(0, t\,G(\mu)^{-1})` within the cut locus. No boundary value is solved for the integrand.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann.metrics import RiemannianMetric

REPLICATES = 8
"""Independent scramblings of the quasi-random points, from which their error is estimated."""
_CUT_TOLERANCE = 0.01  # a shorter way by more than 1 %, above the solver's own discretisation error


class TangentRule:
    """Nodes and weights for a standard normal in d dimensions, in groups whose spread gives the error.

    Up to three dimensions a product Gauss-Hermite rule and, for the error, one of two nodes fewer; above,
    eight scrambled Sobol sets. Fixed: the same nodes at every call and no random numbers, so that a
    normaliser is a smooth deterministic function of its arguments.
    """

    def __init__(self, dim: int, num_nodes: int, like: Tensor) -> None:
        nodes, weights = _gauss_hermite(dim, num_nodes) if dim <= 3 else _sobol(dim, num_nodes)
        self.exact = dim <= 3
        self.nodes = [torch.as_tensor(n, dtype=like.dtype, device=like.device) for n in nodes]
        self.log_weights = [torch.as_tensor(w, dtype=like.dtype, device=like.device).log() for w in weights]

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


@functools.lru_cache(maxsize=32)
def _gauss_hermite(dim: int, num_nodes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rules = []
    for order in (num_nodes, max(num_nodes - 2, 1)):
        x, w = np.polynomial.hermite_e.hermegauss(order)
        grid = np.stack(np.meshgrid(*[x] * dim, indexing="ij"), -1).reshape(-1, dim)
        weight = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * dim, indexing="ij"), -1).reshape(-1, dim), -1)
        rules.append((grid, weight))
    return [grid for grid, _ in rules], [weight for _, weight in rules]


@functools.lru_cache(maxsize=32)
def _sobol(dim: int, num_nodes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    nodes = []
    for seed in range(REPLICATES):
        engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
        uniform = engine.draw(num_nodes, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        nodes.append((math.sqrt(2) * torch.erfinv(2 * uniform - 1)).numpy())
    return nodes, [np.full(num_nodes, 1 / num_nodes)] * REPLICATES


def default_num_nodes(dim: int) -> int:
    """Nodes an axis (d <= 3) or points a scrambling (above)."""
    return 9 if dim <= 3 else 128


def tangent_vectors(metric: RiemannianMetric, loc: Tensor, variance: Tensor, white: Tensor) -> Tensor:
    """Map standard normal ``white (*sample, *batch, d)`` to ``v ~ N(0, variance G(loc)^{-1})``."""
    factor = metric.cholesky(loc)
    v = torch.linalg.solve_triangular(factor.mT.expand(*white.shape, -1), white.unsqueeze(-1), upper=True).squeeze(-1)
    return variance.sqrt().unsqueeze(-1) * v


def within_cut_locus(metric: RiemannianMetric, loc: Tensor, z: Tensor, radius: Tensor) -> Tensor:
    """True where the geodesic of length ``radius`` from ``loc`` to ``z`` is a shortest one."""
    with torch.no_grad():
        return metric.dist(loc, z) >= (1 - _CUT_TOLERANCE) * radius
