"""Bumps of a volume element as Gaussians: what they are called, and how they look in another chart."""

from __future__ import annotations

from typing import Any, NamedTuple


class Peaks(NamedTuple):
    r"""Where the volume of a metric is: bumps of :math:`\sqrt{\det G}`, each about :math:`N(\mathrm{loc}, C)`.

    Attributes:
        loc: tops of the bumps, ``(m, d)``.
        covariance: C, ``(m, d, d)``, or the variances ``(m, d)`` where all are diagonal: in high dimensions the
            matrices of many bumps are all the memory there is.
    """

    loc: Any
    covariance: Any


def kernel_peaks(xp: Any, centroids: Any, precisions: Any, bandwidth: Any) -> Peaks:
    r"""Bumps of a kernel metric: an isolated one is exactly :math:`N(c_i, \rho^2 P_i^{-1} / d)`.

    Args:
        xp: namespace of the arrays.
        centroids: ``(k, d)``.
        precisions: ``(k, d)`` or ``(k, d, d)``.
        bandwidth: a scalar.
    """
    dim = centroids.shape[-1]
    if precisions.ndim == 2:
        inverse = 1 / precisions
    else:
        inverse = xp.linalg.inv(precisions)
    return Peaks(centroids, bandwidth**2 / dim * inverse)


def variances(xp: Any, covariance: Any) -> Any:
    """Those of covariances ``(m, d, d)``, or of variances ``(m, d)``."""
    return covariance if covariance.ndim == 2 else xp.diagonal(covariance, 0, -2, -1)


def in_units(covariance: Any, width: Any) -> Any:
    """Covariances, or variances, of coordinates divided by ``width (d)``."""
    return covariance / (width**2 if covariance.ndim == 2 else width[:, None] * width)


def pulled_back(xp: Any, loc: Any, jacobian: Any, covariance: Any) -> Peaks:
    r"""Bumps of another chart in this one, :math:`C = J^{-1} C' J^{-\top}`.

    Args:
        xp: namespace of the arrays.
        loc: tops in this chart, ``(m, d)``.
        jacobian: J of the map from this chart to the other at ``loc``, ``(m, d, d)``.
        covariance: C', ``(m, d, d)`` or ``(m, d)``.
    """
    inverse = xp.linalg.inv(jacobian)
    product = inverse * covariance[:, None] if covariance.ndim == 2 else inverse @ covariance
    return Peaks(loc, product @ inverse.mT)
