"""Pyro models with Riemannian priors."""

from pyro_riemann._estimate import Estimate
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.metrics import ConstantMetric, EuclideanMetric, PullbackMetric, RiemannianMetric

__all__ = [
    "ConstantMetric",
    "Estimate",
    "EuclideanMetric",
    "Geodesic",
    "GeodesicSolver",
    "PullbackMetric",
    "RiemannianMetric",
    "brownian_motion",
]
