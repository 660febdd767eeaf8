"""Riemannian distributions for Pyro, one a file."""

from pyro_riemann.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.distributions._normal import RiemannianNormal
from pyro_riemann.distributions._uniform import RiemannianUniform
from pyro_riemann.distributions._wrapped_normal import RiemannianWrappedNormal

__all__ = ["RiemannianHeatKernel", "RiemannianNormal", "RiemannianUniform", "RiemannianWrappedNormal"]
