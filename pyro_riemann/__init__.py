"""Pyro models with Riemannian priors."""

import importlib
from typing import TYPE_CHECKING, Any

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
        EuclideanMetric,
        GridMetric,
        KernelMetric,
        PullbackMetric,
        RiemannianMetric,
    )

__all__ = [
    "ConformalMetric",
    "ConstantMetric",
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
    "summary",
    "to_arviz",
]

_MODULES = ("_estimate", "geodesics", "metrics", "manifolds", "brownian", "distributions", "diagnostics")


if not TYPE_CHECKING:  # a type checker that saw this would believe in any name

    def __getattr__(name: str) -> Any:
        """Import a public name, or its module, at first use: ``pyro_riemann.numpyro`` comes without torch."""
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            for module in _MODULES:
                if (value := vars(importlib.import_module(f"{__name__}.{module}")).get(name)) is not None:
                    return globals().setdefault(name, value)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
