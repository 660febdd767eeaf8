"""Log densities with respect to Lebesgue measure dz in the chart, from the geometry at hand.

``squared`` is the squared geodesic distance from the centre to z and ``logdet`` is ``log det G(z)``; all ``(*batch)``.
"""

from __future__ import annotations

import math

from pyro_riemann._formulas import Array, Namespace

NOT_NORMALIZED = (
    "A RiemannianHeatKernel gives the density of its own draw, as a guide does in an ELBO, and that density is not "
    "normalised (its log mass: {number}): such an evidence lower bound is none, and grows as the mass falls. Use "
    "`normalize=True`, or a RiemannianWrappedNormal; `log_normalizer()` has the number."
)
"""What a heat kernel says that is used as a guide."""


def short_time(xp: Namespace, dim: int, time: Array, squared: Array, logdet: Array) -> Array:
    """Heat kernel to first order in time; plus ``log V`` the wrapped normal, plus half of it the better heat kernel."""
    return -0.5 * dim * xp.log(2 * math.pi * time) - 0.5 * squared / time + 0.5 * logdet


def single_geodesic(xp: Namespace, dim: int, time: Array, squared: Array, log_van_vleck: Array) -> Array:
    """Wrapped normal with respect to dM, of one geodesic to z alone."""
    return -0.5 * dim * xp.log(2 * math.pi * time) - 0.5 * squared / time + log_van_vleck


def tangent_normal(
    xp: Namespace, dim: int, squared_noise: Array, log_factor: Array, logdet: Array, log_van_vleck: Array
) -> Array:
    """Tangent Gaussian of any covariance with respect to dM, of one geodesic to z alone.

    ``squared_noise`` is the squared length of the standard normal that was drawn, ``log_factor`` the log determinant
    of the matrix that made the tangent vector of it, ``logdet`` that of G at the centre.
    """
    return -0.5 * (dim * math.log(2 * math.pi) + squared_noise + logdet) - log_factor + log_van_vleck


def riemannian_normal(scale: Array, squared: Array, logdet: Array, log_normalizer: Array) -> Array:
    """Riemannian normal, ``exp(-l^2 / (2 scale^2)) / C`` in the Riemannian measure."""
    return -0.5 * squared / scale**2 - log_normalizer + 0.5 * logdet


def log_flat_mass(xp: Namespace, dim: int, variance: Array) -> Array:
    """Log of ``(2 pi variance)^{d/2}``, the mass of ``exp(-l^2 / (2 variance))`` in flat space."""
    return 0.5 * dim * xp.log(2 * math.pi * variance)
