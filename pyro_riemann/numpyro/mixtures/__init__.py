"""Mixtures of normals on any metric, fitted by expectation maximisation, for NumPyro."""

from pyro_riemann.numpyro.mixtures._normals import NormalsFit, RiemannianMixture, fit_normals

__all__ = ["RiemannianMixture", "fit_normals", "NormalsFit"]
