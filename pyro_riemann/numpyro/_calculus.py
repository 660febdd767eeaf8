"""JAX as the algebra that both faces share asks for it, :class:`pyro_riemann._formulas.metric.Calculus`."""

from __future__ import annotations

import jax.numpy as xp
from jax import Array
from jax.numpy import broadcast_arrays as broadcast

from pyro_riemann.numpyro._autodiff import directional, jacobian, second_directional
from pyro_riemann.numpyro._checks import check_point

__all__ = ["broadcast", "check_point", "directional", "jacobian", "log_abs_det", "second_directional", "solve", "xp"]


def solve(matrix: Array, right: Array) -> Array:
    """``matrix^{-1} right`` for ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
    return xp.linalg.solve(matrix, right[..., None])[..., 0]


def log_abs_det(matrix: Array) -> Array:
    """``log |det matrix|`` for ``(*batch, d, d)``, shape ``(*batch)``; ``-inf`` for a singular matrix."""
    return xp.linalg.slogdet(matrix).logabsdet
