"""The inverse local diagonal covariance of data as a metric: weighted sums over the data around each point."""

from __future__ import annotations

from pyro_riemann._formulas import Array, Namespace


def variance(xp: Namespace, z: Array, data: Array, bandwidth: float) -> Array:
    """``S_j = sum over n of w_n (x_nj - z_j)^2``, ``(*batch, d)``, with ``w_n = exp(-|x_n - z|^2 / 2 bandwidth^2)``."""
    gap, weight = _around(xp, z, data, bandwidth)
    return xp.einsum("...n,...nj->...j", weight, xp.square(gap))


def variance_jacobian(xp: Namespace, z: Array, data: Array, bandwidth: float, eye: Array) -> Array:
    """``d S_j / d z_k``, ``(*batch, d, d)``."""
    gap, weight = _around(xp, z, data, bandwidth)
    moved = xp.einsum("...n,...nj,...nk->...jk", weight, xp.square(gap), gap) / bandwidth**2
    return moved - 2 * xp.einsum("...n,...nj->...j", weight, gap)[..., None] * eye


def _around(xp: Namespace, z: Array, data: Array, bandwidth: float) -> tuple[Array, Array]:
    gap = data - z[..., None, :]
    return gap, xp.exp(-xp.sum(xp.square(gap), -1) / (2 * bandwidth**2))
