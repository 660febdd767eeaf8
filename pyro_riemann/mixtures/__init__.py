"""Mixtures of exact heat kernels: one distribution, and three ways to fit it.

:func:`fit_kernels` puts kernels of several times on every point, :func:`fit_mixture` moves a few centres by expectation
maximisation; :class:`HeatKernelMixture` is also an ordinary Pyro distribution, for SVI and NUTS.
"""

from pyro_riemann.mixtures._em import MixtureFit, fit_mixture
from pyro_riemann.mixtures._kernels import fit_kernels
from pyro_riemann.mixtures._mixture import HeatKernelMixture

__all__ = ["HeatKernelMixture", "MixtureFit", "fit_kernels", "fit_mixture"]
