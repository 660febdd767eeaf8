"""Riemannian metrics on a chart of R^d."""

from pyro_riemann.numpyro.metrics._base import ConformalMetric, GridMetric, RiemannianMetric
from pyro_riemann.numpyro.metrics._ensemble import EnsembleMetric
from pyro_riemann.numpyro.metrics._families import register_immersion
from pyro_riemann.numpyro.metrics._flat import ConstantMetric, EuclideanMetric
from pyro_riemann.numpyro.metrics._kernel import KernelMetric
from pyro_riemann.numpyro.metrics._kernel_rules import k_medoids, kernel_bandwidth, posterior_moments
from pyro_riemann.numpyro.metrics._local import LocalMetric
from pyro_riemann.numpyro.metrics._pullback import PullbackMetric
from pyro_riemann.numpyro.metrics._spline_table import DistanceField

__all__ = [
    "RiemannianMetric",
    "EuclideanMetric",
    "ConstantMetric",
    "PullbackMetric",
    "register_immersion",
    "EnsembleMetric",
    "KernelMetric",
    "k_medoids",
    "kernel_bandwidth",
    "posterior_moments",
    "LocalMetric",
    "ConformalMetric",
    "GridMetric",
    "DistanceField",
]
