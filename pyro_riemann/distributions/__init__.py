"""Riemannian distributions for Pyro, one a file."""

from pyro_riemann.distributions._exponential_map import ExponentialMap
from pyro_riemann.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.distributions._kl import monte_carlo_kl
from pyro_riemann.distributions._normal import RiemannianNormal
from pyro_riemann.distributions._normal_sampler import SamplingReport
from pyro_riemann.distributions._uniform import RiemannianUniform
from pyro_riemann.distributions._vamp_prior import VampPrior
from pyro_riemann.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.sampling import SamplerReport

__all__ = [
    "RiemannianHeatKernel",
    "RiemannianWrappedNormal",
    "RiemannianNormal",
    "RiemannianUniform",
    "VampPrior",
    "ExponentialMap",
    "monte_carlo_kl",
    "SamplingReport",
    "SamplerReport",
]
