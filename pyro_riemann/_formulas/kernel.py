"""Metrics by weighted sums: derivatives of a kernel metric with diagonal precisions, and local covariances of data.

The former are matrix products alone. With weights ``w_i(z) = exp(factor |z - c_i|^2_{P_i})``, ``factor = -1 / rho^2``,
the metric is the diagonal ``g = sum_i w_i P_i + floor``, and every sum over kernels is a product with ``P`` or ``P c``:
time O(n k d), and no array over points, centroids and axes but for second derivatives. Points ``(*batch, d)``, weights
``(*batch, k)``, centroids and precisions ``(k, d)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_riemann._formulas import Array, Namespace, memory, table


def pull(z: Array, amounts: Array, centroids: Array, precisions: Array, factor: Array) -> Array:
    """Gradient ``sum_i amounts_i d(exponent_i) / dz``, ``(*batch, d)``; ``amounts`` ``(*batch, k)``."""
    return 2 * factor * (z * (amounts @ precisions) - amounts @ (precisions * centroids))


PAIRS = 2**22
"""Numbers of the products of precisions of two axes that may be held at a time, see :func:`block`."""


def block(dim: int) -> int:
    """Centroids of which :func:`diagonal_jacobian` may be asked at a time: it is a sum over them."""
    return max(1, PAIRS // dim**2)


def footprint(tables: int, count: int, dim: int, is_diagonal: bool, order: int) -> int:
    """Numbers that a sum of kernels holds at a point.

    Args:
        tables: arrays over points and centroids.
        count: of the centroids.
        dim: d.
        is_diagonal: whether precisions are diagonal.
        order: of the derivatives of G.
    """
    if not is_diagonal:
        return tables * count * (1 if order < 1 else dim) + memory.footprint(dim, order)
    return count * (tables + (3 * dim if order > 1 else 0)) + memory.footprint(dim, min(order, 1))


def diagonal_jacobian(xp: Any, z: Array, weights: Array, centroids: Array, precisions: Array, factor: Array) -> Array:
    """``d g_i / d z_j``, ``(*batch, d, d)``; reads no shape, which ``torch.jit.trace`` could not record here."""
    pairs = precisions[:, :, None] * precisions[:, None, :]
    linear = xp.tensordot(weights, pairs, 1)
    offset = xp.tensordot(weights, pairs * centroids[:, None, :], 1)
    return 2 * factor * (linear * z[..., None, :] - offset)


def logdet_gradient(
    z: Array, weights: Array, centroids: Array, precisions: Array, factor: Array, floor: Array
) -> Array:
    """Gradient of ``sum log g``, ``(*batch, d)``."""
    return diagonal_and_logdet_gradient(z, weights, centroids, precisions, factor, floor)[1]


def diagonal_and_logdet_gradient(
    z: Array, weights: Array, centroids: Array, precisions: Array, factor: Array, floor: Array
) -> tuple[Array, Array]:
    """The diagonal ``g`` and the gradient of ``sum log g``, both ``(*batch, d)``."""
    diagonal = weights @ precisions + floor
    return diagonal, pull(z, weights * ((1 / diagonal) @ precisions.mT), centroids, precisions, factor)


def speed_hessian(
    xp: Any, z: Array, v: Array, weights: Array, centroids: Array, precisions: Array, factor: Array
) -> Array:
    """Second derivative of ``sum_i g_i v_i^2 / 2`` at constant ``v``, ``(*batch, d, d)``; holds ``(*batch, k, d)``."""
    amounts = 2 * factor * weights * (0.5 * (v * v) @ precisions.mT)
    slopes = precisions * (z[..., None, :] - centroids)
    hessian = xp.matmul(slopes.mT, 2 * factor * amounts[..., None] * slopes)
    return hessian + (amounts @ precisions)[..., None] * table(xp, np.eye(precisions.shape[-1]), z)


def christoffel(
    z: Array, v: Array, weights: Array, centroids: Array, precisions: Array, factor: Array, floor: Array
) -> Array:
    """Contraction of the Christoffel symbols with ``v`` twice, ``(*batch, d)``."""
    diagonal = weights @ precisions + floor
    rate = 2 * factor * ((z * v) @ precisions.mT - v @ (precisions * centroids).mT)
    along = (weights * rate) @ precisions  # derivative of the diagonal along v
    gradient = pull(z, weights * ((v * v) @ precisions.mT), centroids, precisions, factor)
    return (along * v - 0.5 * gradient) / diagonal


def drift(z: Array, weights: Array, centroids: Array, precisions: Array, factor: Array, floor: Array) -> Array:
    """Ito drift of Brownian motion, ``(*batch, d)``."""
    diagonal = weights @ precisions + floor
    square = precisions * precisions  # d g_i / d z_i, from P_i^2 in place of P_i
    own = 2 * factor * (z * (weights @ square) - weights @ (square * centroids)) / diagonal
    volume = pull(z, weights * ((1 / diagonal) @ precisions.mT), centroids, precisions, factor)
    return -0.5 * (own - 0.5 * volume) / diagonal


def local_variance(xp: Namespace, z: Array, data: Array, bandwidth: float) -> Array:
    """``S_j = sum over n of w_n (x_nj - z_j)^2``, ``(*batch, d)``, with ``w_n = exp(-|x_n - z|^2 / 2 bandwidth^2)``."""
    gap, weight = _around(xp, z, data, bandwidth)
    return xp.einsum("...n,...nj->...j", weight, xp.square(gap))


def local_variance_jacobian(xp: Namespace, z: Array, data: Array, bandwidth: float, eye: Array) -> Array:
    """``d S_j / d z_k``, ``(*batch, d, d)``."""
    gap, weight = _around(xp, z, data, bandwidth)
    moved = xp.einsum("...n,...nj,...nk->...jk", weight, xp.square(gap), gap) / bandwidth**2
    return moved - 2 * xp.einsum("...n,...nj->...j", weight, gap)[..., None] * eye


def _around(xp: Namespace, z: Array, data: Array, bandwidth: float) -> tuple[Array, Array]:
    gap = data - z[..., None, :]
    return gap, xp.exp(-xp.sum(xp.square(gap), -1) / (2 * bandwidth**2))
