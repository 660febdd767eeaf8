"""Riemannian distributions for NumPyro, one a file."""

from pyro_riemann.numpyro.distributions._exponential_map import ExponentialMap
from pyro_riemann.numpyro.distributions._heat_kernel import RiemannianHeatKernel
from pyro_riemann.numpyro.distributions._kl import monte_carlo_kl
from pyro_riemann.numpyro.distributions._normal import RiemannianNormal
from pyro_riemann.numpyro.distributions._normal_sampler import SamplingReport
from pyro_riemann.numpyro.distributions._uniform import RiemannianUniform
from pyro_riemann.numpyro.distributions._vamp_prior import VampPrior
from pyro_riemann.numpyro.distributions._wrapped_normal import RiemannianWrappedNormal
from pyro_riemann.numpyro.sampling import SamplerReport

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
