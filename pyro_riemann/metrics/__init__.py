"""Riemannian metrics on a chart of R^d."""

from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._flat import ConstantMetric, EuclideanMetric
from pyro_riemann.metrics._pullback import PullbackMetric

__all__ = ["ConstantMetric", "EuclideanMetric", "PullbackMetric", "RiemannianMetric"]
