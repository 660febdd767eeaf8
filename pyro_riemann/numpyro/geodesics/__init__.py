"""Geodesics of a metric: boundary-value solver, exponential map, Van Vleck determinant, curvature.

The functions here take any pytree with the interface of ``RiemannianMetric``; this layer
imports nothing from the layers above it.
"""

from pyro_riemann.numpyro.geodesics._curvature import log_van_vleck, scalar_curvature
from pyro_riemann.numpyro.geodesics._curve import Geodesic
from pyro_riemann.numpyro.geodesics._graph import PathTable
from pyro_riemann.numpyro.geodesics._initial_value import expmap, expmap_log_van_vleck, geodesic_flow
from pyro_riemann.numpyro.geodesics._solver import GeodesicSolver, training_solver

__all__ = [
    "GeodesicSolver",
    "Geodesic",
    "PathTable",
    "training_solver",
    "expmap",
    "geodesic_flow",
    "log_van_vleck",
    "expmap_log_van_vleck",
    "scalar_curvature",
]
