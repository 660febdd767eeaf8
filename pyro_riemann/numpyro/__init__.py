"""The NumPyro twin: the same names as :mod:`pyro_riemann`, for JAX arrays, compiled."""

from typing import TYPE_CHECKING

from pyro_riemann._lazy import lazily
from pyro_riemann._work import time_limit

if TYPE_CHECKING:
    from pyro_riemann.numpyro._compilation import compilation_cache
    from pyro_riemann.numpyro._convert import to_numpyro
    from pyro_riemann.numpyro._estimate import Estimate
    from pyro_riemann.numpyro.brownian import brownian_motion
    from pyro_riemann.numpyro.diagnostics import summary, to_arviz
    from pyro_riemann.numpyro.distributions import (
        RiemannianHeatKernel,
        RiemannianNormal,
        RiemannianUniform,
        RiemannianWrappedNormal,
        VampPrior,
        monte_carlo_kl,
    )
    from pyro_riemann.numpyro.geodesics import Geodesic, GeodesicSolver
    from pyro_riemann.numpyro.manifolds import FlatTorus, Hyperbolic, Sphere, WarpedMetric
    from pyro_riemann.numpyro.metrics import (
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
    "RiemannianMetric",
    "EuclideanMetric",
    "ConstantMetric",
    "PullbackMetric",
    "register_immersion",
    "EnsembleMetric",
    "KernelMetric",
    "ConformalMetric",
    "GridMetric",
    "Sphere",
    "Hyperbolic",
    "FlatTorus",
    "WarpedMetric",
    "GeodesicSolver",
    "Geodesic",
    "brownian_motion",
    "RiemannianHeatKernel",
    "RiemannianWrappedNormal",
    "RiemannianNormal",
    "RiemannianUniform",
    "VampPrior",
    "monte_carlo_kl",
    "Estimate",
    "compilation_cache",
    "summary",
    "time_limit",
    "to_arviz",
    "to_numpyro",
]

_MODULES = ("_estimate", "_compilation", "geodesics", "metrics", "manifolds", "brownian", "distributions", "vae") + (
    "_convert",
)

if not TYPE_CHECKING:  # a type checker that saw this would believe in any name
    __getattr__, __dir__ = lazily(__name__, __all__, dict.fromkeys(_MODULES, "jax") | {"diagnostics": "diagnostics"})
