"""Laws that stand in for others in a training step of which they are no part: a frozen posterior, a prior's distances.

Each is what :class:`~pyro_riemann.vae.FrozenPosteriorELBO` says of it. Never for a number that is reported.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._formulas import densities
from pyro_riemann.distributions import RiemannianHeatKernel, RiemannianWrappedNormal
from pyro_riemann.distributions._base import Shape
from pyro_riemann.distributions._tangent import is_closed_form, tangent_vectors
from pyro_riemann.geodesics import GeodesicSolver, training_solver
from pyro_riemann.geodesics._graph import CentredPaths
from pyro_riemann.metrics import GridMetric, RiemannianMetric

_FROM_A_PATH = 3  # iterations of a training solver that starts from a shortest path, in place of the straight line
_MOST_BENT = 0.5  # share of its length by which a draw may leave its tangent

# length of the straight line in the chart: no iteration, whatever the error
_STRAIGHT = GeodesicSolver(
    num_knots=1, num_segments=2, max_iterations=0, max_polish=0, tolerance=math.inf, on_failure="ignore"
)


def is_trained(*parts: Tensor | RiemannianMetric) -> bool:
    """Whether a gradient would reach one of the tensors, or a parameter of one of the metrics."""
    return any(
        part.requires_grad if isinstance(part, Tensor) else any(value.requires_grad for value in part.parameters())
        for part in parts
    )


class FrozenLaw:
    """What the frozen laws share: their log density at their own draws is a constant of the optimisation.

    Attributes:
        in_volume: it is one with respect to dM, in which log det G is not: where the prior's is, too, it cancels.
    """

    in_volume = False
    metric: RiemannianMetric
    _drawn: tuple[Any, Tensor] | None = None  # weak reference to the last draw, and its log density in dM

    def _keep(self, z: Tensor, time: Tensor, exponent: Tensor) -> Tensor:
        constant = -0.5 * self.metric.dim * (2 * math.pi * time).log()
        self._drawn = (weakref.ref(z), constant - exponent)
        return z

    def _constant(self, value: Tensor) -> Tensor | None:
        """Log density of its own last draw, ``(*batch)``; None for any other point."""
        if self._drawn is None or self._drawn[0]() is not value:
            return None
        # log det G in its own right: a result that the prior can use again
        return self._drawn[1] if self.in_volume else self._drawn[1] + 0.5 * self.metric.logdet(value)


class SecondOrderNormal(FrozenLaw, RiemannianWrappedNormal):
    r"""A frozen wrapped normal, drawn to second order in the root of its time.

    .. math:: z = \mu + v - \tfrac12 \Gamma_\mu(v, v), \qquad v \sim N(0, t\,G(\mu)^{-1})

    One evaluation at the location, in place of the steps of a flow. Beside a wall, where the expansion means nothing,
    the second term is shortened to half the length of the first. The log density of its own draws is that of the
    wrapped normal less log V.
    """

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
            v = tangent_vectors(self.metric, self.loc, self.time, noise)
            loc, squared = self.loc.expand_as(v), noise.square().sum(-1)
            z = self.metric.expmap(loc, v) if is_closed_form(self.metric) else self._carried(loc, v, squared)
        return self._keep(z, self.time, 0.5 * squared)

    def _carried(self, loc: Tensor, v: Tensor, squared_noise: Tensor) -> Tensor:
        bend = 0.5 * self.metric.christoffel(loc, v)
        # |v|_G is the root of the time times the length of the noise
        limit = _MOST_BENT * (self.time * squared_noise).sqrt()
        # by the factor that v was drawn with: the metric's own norm would ask the decoder again
        factor = self.metric.cholesky(self.loc)
        size = (factor.mT @ bend.unsqueeze(-1)).squeeze(-1).norm(dim=-1).clamp(min=torch.finfo(v.dtype).tiny)
        return loc + v - bend * (limit / size).clamp(max=1).unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        constant = self._constant(value)
        return super().log_prob(value) if constant is None else constant


class PosteriorHeatKernel(RiemannianHeatKernel):
    """A heat kernel of whose mass :func:`evaluate` takes account, and says so: a word in training would be one more."""

    _answers_for_its_mass = True


class FrozenHeatKernel(FrozenLaw, PosteriorHeatKernel):
    """A frozen heat kernel: the log density of its own draws has straight lines for geodesics; draws are unchanged."""

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            z = super().rsample(sample_shape)
            exponent = 0.5 * _STRAIGHT.squared_dist(self.metric, self.loc, z) / self.time
        return self._keep(z, self.time, exponent)

    def log_prob(self, value: Tensor) -> Tensor:
        constant = self._constant(value)
        return super().log_prob(value) if constant is None else constant


class PartlySolvedHeatKernel(RiemannianHeatKernel):
    """A heat kernel's log density in dM with the distances of some rows, which stand for all.

    Of ``share`` of the points, chosen at random at each call, the squared distance counts ``1 / share`` fold, of the
    others it is 0: the sum over the points, and its gradient in loc and time, are right in expectation.
    """

    def __init__(self, law: RiemannianHeatKernel, metric: RiemannianMetric, share: float) -> None:
        super().__init__(law.loc, law.time, metric, validate_args=False)
        self.share = share

    def log_prob(self, value: Tensor) -> Tensor:
        z, loc = (part.reshape(-1, self.metric.dim) for part in torch.broadcast_tensors(value, self.loc))
        count = max(1, math.ceil(self.share * len(z)))
        rows = torch.randperm(len(z), device=z.device)[:count]
        solved = self.metric.squared_dist(loc[rows], z[rows]) * (len(z) / count)
        squared = solved.new_zeros(len(z)).index_put((rows,), solved).reshape(value.shape[:-1])
        return densities.short_time(torch, self.metric.dim, self.time, squared, torch.zeros_like(squared))


def table_alone(grid: GridMetric) -> GridMetric:
    """The table without the decoder, of which then no trial of a curve asks.

    Curves start from shortest paths, of which those from one centre cost one search.
    """
    alone = grid._without_metric()
    alone.solver = grid.solver.replace(init="graph")
    if grid.solver == training_solver(grid.dim):
        alone.solver = alone.solver.replace(max_iterations=_FROM_A_PATH)
    alone.paths = grid.paths or CentredPaths(alone, alone.solver.graph_resolution)
    return alone
