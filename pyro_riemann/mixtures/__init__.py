"""Mixtures on a manifold, of normals on any metric or of exact heat kernels, and ways to fit them.

:func:`fit_normals` fits Riemannian or wrapped normals by expectation maximisation. Where the heat kernel is known,
:func:`fit_kernels` puts kernels of several times on every point, and :func:`fit_mixture` moves a few centres. What
they return is also an ordinary Pyro distribution, for SVI and NUTS.
"""

from pyro_riemann.mixtures._em import MixtureFit, fit_mixture
from pyro_riemann.mixtures._kernels import fit_kernels
from pyro_riemann.mixtures._mixture import HeatKernelMixture
from pyro_riemann.mixtures._normals import NormalsFit, RiemannianMixture, fit_normals

__all__ = [
    "RiemannianMixture",
    "fit_normals",
    "NormalsFit",
    "HeatKernelMixture",
    "fit_mixture",
    "MixtureFit",
    "fit_kernels",
]
