"""Draws of the Riemannian normal from wrapped normals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas.tangent_rule import sobol_normal
from pyro_riemann.distributions._tangent import spread_out, tangent_vectors, within_cut_locus
from pyro_riemann.metrics import RiemannianMetric

_INFLATIONS = (1.1, 1.25, 1.5, 2.0)  # above 1: on negative curvature 1/V outgrows any smaller Gaussian
_PILOT_POINTS = 256
_BIAS = 1e-4  # bound on the total-variation error of independence Metropolis, from which its length follows
_MAX_STEPS = 512
_BLOCK = 1 << 16  # proposals evaluated at once


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled.

    Attributes:
        method: ``"rejection"`` (exact) or ``"metropolis"`` (independence Metropolis).
        inflation: variance of the proposal relative to ``scale**2``.
        efficiency: acceptance rate (rejection), or effective share of independent proposals (Metropolis), the
            worst of the batch.
        num_steps: proposals for each draw (Metropolis); 1 for rejection, which goes on until it accepts.

    Example:
        >>> RiemannianNormal(torch.zeros(2), 0.5, EuclideanMetric(2)).sampling_report.method
        'rejection'
    """

    method: str
    inflation: float
    efficiency: float
    num_steps: int


def pilot(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> SamplingReport:
    """Choose method and inflation from 256 fixed points around every ``loc``.

    With the target :math:`f = e^{-|x|^2/2} / V` in whitened coordinates and the proposal
    :math:`N(0, c I)`, weights f / N. All proposals are judged on one set of points, drawn from the widest.
    """
    widest = max(_INFLATIONS)
    nodes = torch.as_tensor(sobol_normal(metric.dim, _PILOT_POINTS, seed=0)).to(loc)
    _, log_v, minimal = spread_out(metric, loc, widest * variance, nodes)
    shape = (-1, *(1,) * (loc.dim() - 1))
    squared = widest * nodes.square().sum(-1).reshape(shape)
    log_target = torch.where(minimal, -0.5 * squared - log_v, -math.inf)
    log_wide = -0.5 * squared / widest - 0.5 * metric.dim * math.log(widest)
    mass = (log_target - log_wide).logsumexp(0) - math.log(len(nodes))
    if bool((torch.where(minimal, log_v, 0.0) >= -1e-6).all()):
        # f <= e^{-|x|^2/2}: the weight is at most 1, the acceptance rate is the mass
        return SamplingReport("rejection", 1.0, min(1.0, float(mass.exp().min())), 1)
    best = SamplingReport("metropolis", widest, 0.0, _MAX_STEPS)
    for inflation in _INFLATIONS:
        log_proposal = -0.5 * squared / inflation - 0.5 * metric.dim * math.log(inflation)
        log_weight = log_target - log_proposal
        second = (log_weight + log_target - log_wide).logsumexp(0) - math.log(len(nodes))
        efficiency = min(1.0, float((2 * mass - second).exp().min()))
        if efficiency > best.efficiency:
            bound = max(1.01, float((log_weight.amax(0) - mass).exp().max()))
            steps = math.ceil(math.log(_BIAS) / math.log1p(-1 / bound))
            best = SamplingReport("metropolis", inflation, efficiency, min(max(steps, 8), _MAX_STEPS))
    return best


def sample_normal(metric: RiemannianMetric, loc: Tensor, variance: Tensor, report: SamplingReport) -> Tensor:
    """One draw for every ``loc (*shape, d)`` and ``variance (*shape)``."""
    flat_loc, flat_variance = loc.reshape(-1, metric.dim), variance.reshape(-1)
    draw = _reject if report.method == "rejection" else _metropolis
    return draw(metric, flat_loc, flat_variance, report).reshape(loc.shape)


def _propose(metric: RiemannianMetric, loc: Tensor, variance: Tensor, inflation: float) -> tuple[Tensor, Tensor]:
    """Proposals and their log weights, -inf past the cut locus."""
    noise = torch.randn_like(loc)
    v = tangent_vectors(metric, loc, inflation * variance, noise)
    z, log_v = metric.expmap_log_van_vleck(loc, v)
    squared = noise.square().sum(-1)
    minimal = within_cut_locus(metric, loc, z, (inflation * variance * squared).sqrt())
    log_weight = -0.5 * (inflation - 1) * squared - log_v
    return z, torch.where(minimal, log_weight, torch.full_like(log_weight, -math.inf))


def _reject(metric: RiemannianMetric, loc: Tensor, variance: Tensor, report: SamplingReport) -> Tensor:
    z, pending = torch.empty_like(loc), torch.arange(len(loc), device=loc.device)
    for _ in range(1000):
        proposal, log_weight = _propose(metric, loc[pending], variance[pending], report.inflation)
        accept = torch.rand_like(log_weight).log() < log_weight
        z[pending[accept]] = proposal[accept]
        pending = pending[~accept]
        if len(pending) == 0:
            return z
    raise RuntimeError(
        f"Rejection sampling of a RiemannianNormal left {len(pending)} of {len(loc)} draws without an accepted "
        "proposal in 1000 rounds: `scale` is far larger than the manifold. Use a smaller `scale`."
    )


def _metropolis(metric: RiemannianMetric, loc: Tensor, variance: Tensor, report: SamplingReport) -> Tensor:
    """Independence Metropolis, one chain a draw; the proposals of many steps are evaluated as one batch."""
    z, current = _propose(metric, loc, variance, report.inflation)
    block = max(1, _BLOCK // max(1, len(loc)))
    for start in range(0, report.num_steps, block):
        steps = min(block, report.num_steps - start)
        proposals, log_weights = _propose(
            metric, loc.expand(steps, *loc.shape), variance.expand(steps, *variance.shape), report.inflation
        )
        for proposal, log_weight in zip(proposals, log_weights, strict=True):
            accept = (torch.rand_like(log_weight).log() < log_weight - current) | torch.isneginf(current)
            z = torch.where(accept.unsqueeze(-1), proposal, z)
            current = torch.where(accept, log_weight, current)
    return z
