"""JAX as the algebra that both faces share asks for it, :class:`pyro_riemann._formulas.calculus.Calculus`."""

from __future__ import annotations

import jax.numpy as xp
from jax import Array
from jax.lax import stop_gradient as freeze
from jax.numpy import broadcast_arrays as broadcast
from jax.scipy.linalg import expm
from jax.typing import ArrayLike

from pyro_riemann.numpyro._autodiff import directional, jacobian, second_directional
from pyro_riemann.numpyro._checks import check_array, check_point, check_positive, holds

__all__ = ["broadcast", "cast", "check_array", "check_point", "check_positive", "cholesky", "directional", "double"]
__all__ += ["expm", "freeze", "holds", "jacobian", "log_abs_det", "second_directional", "solve", "xp"]


def cast(value: ArrayLike, like: Array) -> Array:
    """A number or an array as one of the dtype of ``like``."""
    return xp.asarray(value, dtype=like.dtype)


def double(value: Array) -> Array:
    """The value in float64, or in float32 where JAX is not set to 64 bits."""
    return value.astype(xp.result_type(float))


def solve(matrix: Array, right: Array) -> Array:
    """``matrix^{-1} right`` for ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
    return xp.linalg.solve(matrix, right[..., None])[..., 0]


def cholesky(matrix: Array) -> tuple[Array, Array]:
    """Lower Cholesky factor, and where it exists, ``(*batch)`` bool."""
    factor = xp.linalg.cholesky(matrix)
    return factor, xp.isfinite(factor).all((-2, -1))


def log_abs_det(matrix: Array) -> Array:
    """``log |det matrix|`` for ``(*batch, d, d)``, shape ``(*batch)``; ``-inf`` for a singular matrix."""
    return xp.linalg.slogdet(matrix).logabsdet
