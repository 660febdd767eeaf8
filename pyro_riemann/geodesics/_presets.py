"""Solvers for a purpose."""

from __future__ import annotations

from pyro_riemann._formulas import solver_settings
from pyro_riemann.geodesics._solver import GeodesicSolver


def training_solver(dim: int) -> GeodesicSolver:
    """A cheap, deterministic solver for the thousands of steps of a training.

    Distances are lengths of a spline with few knots after few iterations, and gradients those of that spline. How far
    off they are on the decoders of the benchmarks stands in ``docs/benchmarks.md``. Nothing is checked and nobody
    warns: set the default back, or another :class:`GeodesicSolver`, before you evaluate.

    Args:
        dim: dimension of the metric.

    Source: the energy that is minimised is that of Kalatzis et al. 2020, appendix B.

    Example:
        >>> metric = PullbackMetric(lambda z: torch.cat([z, z.sin()], -1), 2)
        >>> metric.solver = training_solver(metric.dim)  # for SVI
        >>> prior = RiemannianHeatKernel(torch.zeros(2), 0.5, metric)
        >>> metric.solver = GeodesicSolver()  # for evaluation
    """
    return GeodesicSolver(**solver_settings.for_training(dim))
