"""Squared distances between points and centroids that keep their digits in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

_UNROLLED = 64  # dimensions up to which a sum over axes is written out

Function = TypeVar("Function", bound=Callable[..., Any])


def exact_products(function: Function) -> Function:
    """Matrix products within ``function`` keep all digits of float32, also where a device would round by default."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]  # the same signature


def squared_distances(z: Array, centroids: Array, precisions: Array) -> Array:
    """``|z - c_i|^2_{P_i}``, ``(*batch, d) -> (*batch, k)``; to be called under ``jit``.

    Expanding the square, two matrix products, loses about ``eps P |z|^2``: some 1e-3 of an exponent
    in float32 where posteriors are narrow. In float32 the differences themselves are summed, which XLA fuses into
    one pass without an array of n k d entries. Derivatives are matrix products in either case: these lose only as much
    as rounding z does.
    """
    if precisions.ndim == 3:
        offset = z[..., None, :] - centroids
        return jnp.einsum("...ki,kij,...kj->...k", offset, precisions, offset)
    return _diagonal(z, centroids, precisions)


@jax.custom_jvp
def _diagonal(z: Array, centroids: Array, precisions: Array) -> Array:
    if z.dtype == jnp.float64:
        shifted = centroids * precisions
        features = jnp.concatenate([z * z, z], -1) @ jnp.concatenate([precisions, -2 * shifted], -1).mT
        return features + (shifted * centroids).sum(-1)
    return _weighted_squares(z, centroids, precisions)


def _weighted_squares(z: Array, centroids: Array, weights: Array) -> Array:
    """``sum_a weights[i, a] (z_a - c_ia)^2``, ``(*batch, k)``, axis by axis.

    Written out, the sum is one loop over points and centroids that keeps every term in registers; a reduction over the
    short last axis of an array (n, k, d) runs thirty times slower on a processor.
    """

    def term(z: Array, centroid: Array, weight: Array) -> Array:
        return weight * (z[..., None] - centroid) ** 2

    axes = (jnp.moveaxis(z, -1, 0), centroids.mT, weights.mT)
    if z.shape[-1] > _UNROLLED:
        start = jnp.zeros((*z.shape[:-1], len(centroids)), z.dtype)
        return jax.lax.scan(lambda total, axis: (total + term(*axis), None), start, axes)[0]
    return sum(map(term, *axes), start=jnp.zeros((), z.dtype))


def _diagonal_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    z, centroids, precisions = primals
    dz, dc, dp = (None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents)
    value = _diagonal(z, centroids, precisions)
    slope = jnp.zeros_like(value)
    with jax.default_matmul_precision("highest"):
        if dz is not None:
            slope += 2 * ((z * dz) @ precisions.mT - dz @ (precisions * centroids).mT)
        if dc is not None:
            slope -= 2 * (z @ (precisions * dc).mT - (precisions * centroids * dc).sum(-1))
        if dp is not None:
            slope += _weighted_squares(z, centroids, dp)
    return value, slope


_diagonal.defjvp(_diagonal_jvp, symbolic_zeros=True)
