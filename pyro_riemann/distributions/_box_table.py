"""Uniform laws in one and two dimensions: a table of cells, then rejection."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import climbs, refinement
from pyro_riemann.distributions._box import SamplerReport, VolumeRule, log_volume_element
from pyro_riemann.distributions._box_fit import pool, reconciled, weighed_volume
from pyro_riemann.distributions._box_mixture import GaussianParts, MixtureProposal, known_parts
from pyro_riemann.distributions._box_peaks import Landscape
from pyro_riemann.metrics import RiemannianMetric

_ORDER = 3  # Gauss-Legendre points an axis and cell
_FINEST = {1: 8192, 2: 256}  # cells an axis
_COARSEST = {1: 64, 2: 32}
_MAX_ROUNDS = 1000
_LARGEST_ERROR = 1e-3  # a table that is worse than this does not resolve the metric
_CLIMBED = 128  # climbs of the volume element that look for bumps between the nodes
_MOST = 64  # bumps that are followed up
_MATTERS = 1e-4  # share of the volume below which a bump does not matter


class CellTable:
    """Quadrature over cells, refined until the volume stands, and rejection from a step function.

    The step function bounds the density in each cell: the largest of the Gauss points, and a margin of 0.3
    times their range, which covers what a smooth function can do between the outermost
    Gauss point and the edge of the cell.

    Args:
        metric: the metric.
        low: lower corner ``(d)``, d at most 2.
        high: upper corner ``(d)``.
        tolerance: refinement stops when the log volume moves by less.

    Attributes:
        resolves: whether the narrowest bump of the volume is wider than the cells, and the volume stands.
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor, tolerance: float = 1e-5) -> None:
        self._metric, self._low, self._width = metric, low, high - low
        dim = low.shape[0]
        cells = _COARSEST[dim]
        # half and full resolution share their blindness for what is narrower than either: climbs do not
        finest, weighed = _bumps(metric, low, high)
        while cells < _FINEST[dim] and 1 / cells > finest:
            cells *= 2
        coarser = self._tabulate(cells // 2)[0].log_volume
        rule, bound = self._tabulate(cells)
        change, error = float("inf"), float("inf")
        while change > tolerance and cells < _FINEST[dim]:
            cells, coarse = 2 * cells, rule
            rule, bound = self._tabulate(cells)
            values = float(coarser), float(coarse.log_volume), float(rule.log_volume)
            change, error, coarser = abs(values[2] - values[1]), refinement.finest_error(*values), coarse.log_volume
            # the coarse nodes are as good as the change says, and gradients through them cost a quarter
            nodes, weights = (coarse.nodes, coarse.weights) if change <= tolerance else (rule.nodes, rule.weights)
            rule = VolumeRule(rule.log_volume, torch.full_like(rule.log_volume, error), nodes, weights)
        volume, self.doubt = reconciled(Estimate(rule.log_volume, rule.standard_error), weighed)
        self.resolves = (
            finest * cells >= 1 and not self.doubt and max(change, float(volume.standard_error)) < _LARGEST_ERROR
        )
        rule = self.rule = VolumeRule(*volume, rule.nodes, rule.weights)
        self._cells = cells
        mass = (bound - bound.max()).exp().double()
        self._cumulative = mass.cumsum(0) / mass.sum()
        self._bound = bound
        accepted = rule.log_volume - bound.double().logsumexp(0).to(bound) - (self._width / cells).log().sum()
        reason = f"{cells} cells an axis"
        self.report = SamplerReport("table", min(1.0, float(accepted.exp())), 1.0, 1, reason, rule.on_floor(metric))

    def _tabulate(self, cells: int) -> tuple[VolumeRule, Tensor]:
        low, width = self._low, self._width
        dim = low.shape[0]
        points, point_weights = (torch.from_numpy(a).to(low) for a in np.polynomial.legendre.leggauss(_ORDER))
        axis = torch.arange(cells, dtype=low.dtype, device=low.device)
        corner = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim)
        offset = torch.cartesian_prod(*[(points + 1) / 2] * dim).reshape(1, -1, dim)
        log_weight = torch.cartesian_prod(*[(point_weights / 2).log()] * dim).reshape(-1, dim).sum(-1)
        nodes = low + (corner + offset) / cells * width  # (cells^d, order^d, d)
        value = log_volume_element(self._metric, nodes)
        bound = value.amax(-1) + 0.3 * (value.amax(-1) - value.amin(-1)) + 0.02
        mass = (value + log_weight + (width / cells).log().sum()).flatten()
        log_volume = mass.double().logsumexp(0)
        weights = (mass.double() - log_volume).exp().to(low)
        log_volume = log_volume.to(low)
        return VolumeRule(log_volume, torch.full_like(log_volume, torch.inf), nodes.reshape(-1, dim), weights), bound

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        draws = self._low.new_empty(count, self._low.shape[0])
        missing = torch.arange(count, device=draws.device)
        for _ in range(_MAX_ROUNDS):
            if missing.numel() == 0:
                return draws
            proposal, accepted = self._propose(missing.numel(), generator)
            draws[missing[accepted]] = proposal[accepted]
            missing = missing[~accepted]
        raise RuntimeError(
            f"RiemannianUniform could not draw {missing.numel()} of {count} points in {_MAX_ROUNDS} rounds of "
            f"rejection (acceptance {self.report.efficiency:.1e}): `metric` varies too fast for a table of "
            f"{self._cells} cells an axis. Use a smaller box or a smoother metric."
        )

    def _propose(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        low, width = self._low, self._width
        uniform = torch.rand(count, generator=generator, dtype=torch.float64, device=low.device)
        cell = torch.searchsorted(self._cumulative, uniform, right=True).clamp(max=self._cumulative.shape[0] - 1)
        dim = low.shape[0]
        index = torch.stack([cell // self._cells ** (dim - 1 - k) % self._cells for k in range(dim)], dim=-1)
        inner, threshold = torch.rand(count, dim + 1, generator=generator, dtype=low.dtype, device=low.device).split(
            [dim, 1], dim=-1
        )
        proposal = low + (index + inner) / self._cells * width
        log_ratio = log_volume_element(self._metric, proposal) - self._bound[cell]
        return proposal, threshold.squeeze(-1).log() < log_ratio


def _bumps(metric: RiemannianMetric, low: Tensor, high: Tensor) -> tuple[float, Estimate]:
    """Half the width of the narrowest bump, known or found, in widths of the box; the volume by a mixture of them."""
    land = Landscape(metric, low, high)
    seen = land.look()
    found = climbs.bumps(land, land.climb(seen, _CLIMBED), _MOST)
    known = known_parts(metric, low, high)
    blocks = [GaussianParts(*land.chart(found))] if len(found.loc) else []
    blocks += [] if known is None else [known]
    width = (high - low).double()
    rest = float(np.nanmedian(seen[1])) + float(width.log().sum())
    proposal = MixtureProposal.of_parts(blocks, low, high, rest, smallest=0.1)
    volume = weighed_volume(pool(metric, proposal, low, 0)[1], low)
    finest = 1.0
    for block in blocks:
        matters = block.log_weight + block.log_mass > float(volume.value) + math.log(_MATTERS)
        covariance = torch.diag_embed(block.covariance) if block.covariance.dim() == 2 else block.covariance
        spread = torch.linalg.eigvalsh(covariance[matters] / width.unsqueeze(-1) / width).amin(-1).sqrt()
        finest = min([finest, *(0.5 * spread).tolist()])
    return finest, volume
