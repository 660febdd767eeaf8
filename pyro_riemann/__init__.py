"""Pyro models with Riemannian priors."""

from typing import TYPE_CHECKING

from pyro_riemann._lazy import lazily
from pyro_riemann._work import time_limit

if TYPE_CHECKING:
    from pyro_riemann._estimate import Estimate
    from pyro_riemann.brownian import brownian_motion
    from pyro_riemann.diagnostics import summary, to_arviz
    from pyro_riemann.distributions import (
        RiemannianHeatKernel,
        RiemannianNormal,
        RiemannianUniform,
        RiemannianWrappedNormal,
        VampPrior,
    )
    from pyro_riemann.geodesics import Geodesic, GeodesicSolver
    from pyro_riemann.manifolds import FlatTorus, Hyperbolic, Sphere, WarpedMetric
    from pyro_riemann.metrics import (
        ConformalMetric,
        ConstantMetric,
        EnsembleMetric,
        EuclideanMetric,
        GridMetric,
        KernelMetric,
        PullbackMetric,
        RiemannianMetric,
        register_immersion,
    )

__all__ = [
    "ConformalMetric",
    "ConstantMetric",
    "EnsembleMetric",
    "Estimate",
    "EuclideanMetric",
    "FlatTorus",
    "Geodesic",
    "GeodesicSolver",
    "GridMetric",
    "Hyperbolic",
    "KernelMetric",
    "PullbackMetric",
    "RiemannianHeatKernel",
    "RiemannianMetric",
    "RiemannianNormal",
    "RiemannianUniform",
    "RiemannianWrappedNormal",
    "Sphere",
    "VampPrior",
    "WarpedMetric",
    "brownian_motion",
    "register_immersion",
    "summary",
    "time_limit",
    "to_arviz",
]

__version__ = "0.2.0"

_MODULES = dict.fromkeys(("_estimate", "geodesics", "metrics", "manifolds", "brownian", "distributions"), "torch")

if not TYPE_CHECKING:  # a type checker that saw this would believe in any name
    # a public name, or its module, is imported at first use: `pyro_riemann.numpyro` comes without torch
    __getattr__, __dir__ = lazily(__name__, __all__, _MODULES | {"diagnostics": "diagnostics"})
