"""Tensor-product cubic B-splines on a box: C^2 interpolation of tabulated values."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import spline_table
from pyro_riemann.numpyro._pytree import Pytree


class SplineTable(Pytree):
    """Cubic spline through values on a regular grid, for points in its box.

    Evaluation gathers the 4^d coefficients around each point and contracts them with
    polynomial weights, differentiable in z to any order. Outside the box the value at the nearest face is kept.

    Args:
        values: NumPy array ``(R_1, ..., R_d, F)``, at least 4 nodes an axis.
        low: lower corner, ``(d,)``; its dtype is that of the table.
        high: upper corner, ``(d,)``.
    """

    pytree_data_fields = ("coefficients", "high", "low")
    coefficients: Array
    low: Array
    high: Array

    def __init__(self, values: np.ndarray[Any, Any], low: Array, high: Array) -> None:
        self.low, self.high = low, high
        self.coefficients = jnp.asarray(spline_table.prefilter(values), low.dtype)

    @property
    def resolution(self) -> tuple[int, ...]:
        """Nodes along each axis."""
        return tuple(size - 2 for size in self.coefficients.shape[:-1])

    def contains(self, z: Array) -> Array:
        """Whether points lie in the box, ``(*batch)`` bool; false for NaN."""
        found: Array = spline_table.contains(z, self.low.astype(z.dtype), self.high.astype(z.dtype))
        return found

    def __call__(self, z: Array) -> Array:
        """Values ``(*batch, F)`` at ``z`` ``(*batch, d)``."""
        return _look_up(self, z, 0)[0]

    def with_jacobian(self, z: Array) -> tuple[Array, Array]:
        """Values ``(*batch, F)`` and their derivatives ``(*batch, F, d)``."""
        value, slope = _look_up(self, z, 1)
        return value, slope

    def with_hessian(self, z: Array) -> tuple[Array, Array, Array]:
        """Values ``(*batch, F)`` with first ``(*batch, F, d)`` and second ``(*batch, F, d, d)`` derivatives."""
        value, slope, curve = _look_up(self, z, 2)
        return value, slope, curve


@partial(jax.jit, static_argnums=2)
def _look_up(table: SplineTable, z: Array, order: int) -> tuple[Array, ...]:
    low, high = table.low.astype(z.dtype), table.high.astype(z.dtype)
    with jax.default_matmul_precision("highest"):
        return spline_table.look_up(jnp, table.coefficients, low, high, z, order)
