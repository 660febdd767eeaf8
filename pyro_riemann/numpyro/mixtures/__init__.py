"""Mixtures of exact heat kernels, and of normals on any metric by expectation maximisation, for NumPyro."""

from pyro_riemann.numpyro.mixtures._kernels import fit_kernels
from pyro_riemann.numpyro.mixtures._mixture import HeatKernelMixture
from pyro_riemann.numpyro.mixtures._normals import NormalsFit, RiemannianMixture, fit_normals

__all__ = ["RiemannianMixture", "fit_normals", "NormalsFit", "HeatKernelMixture", "fit_kernels"]
