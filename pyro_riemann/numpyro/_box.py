"""A metric on a box of its chart, checked at the door."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann.numpyro._checks import check_array, check_finite, holds
from pyro_riemann.numpyro._memo import is_known, remember
from pyro_riemann.numpyro.metrics import RiemannianMetric


def check_metric(metric: RiemannianMetric) -> RiemannianMetric:
    """Raise unless ``metric`` is a Riemannian metric."""
    if not isinstance(metric, RiemannianMetric):
        raise TypeError(f"`metric` must be a RiemannianMetric, got {type(metric).__name__}.")
    return metric


def check_box(metric: RiemannianMetric, low: Any, high: Any) -> tuple[Array, Array]:
    """Both bounds as arrays ``(*batch, d)`` of one shape and dtype, checked."""
    given = (low, high, *jax.tree.leaves(metric))
    dtypes = [x.dtype for x in given if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = dtypes[0] if dtypes else jnp.result_type(float)
    corners = [_corner(name, bound, dtype, metric.dim) for name, bound in (("low", low), ("high", high))]
    below, above = corners
    try:
        shape = jnp.broadcast_shapes(below.shape, above.shape)
    except ValueError:
        raise ValueError(f"`low` and `high` of shapes {below.shape} and {above.shape} do not broadcast.") from None
    dtype = jnp.promote_types(below.dtype, above.dtype)
    known = is_known(below, above)
    if known:  # by NumPy: no program to compile
        below, above = (np.broadcast_to(np.asarray(corner, dtype), shape) for corner in (below, above))
    else:
        below, above = (jnp.broadcast_to(corner, shape).astype(dtype) for corner in (below, above))
    if not holds(below < above):
        raise ValueError("`low` must be strictly below `high` in every coordinate.")
    return remember(jnp.asarray, below), remember(jnp.asarray, above)


def _corner(name: str, bound: Any, dtype: Any, dim: int) -> Any:
    if bound is None:
        raise ValueError(
            f"`{name}` is missing: the uniform law of a metric on all of R^d is improper, so both bounds of a box "
            "are required."
        )
    if isinstance(bound, int | float) and not isinstance(bound, bool):
        bound = np.full(dim, bound, dtype)
    checked = remember(lambda corner: check_array(name, corner), bound)
    bound = np.asarray(checked) if is_known(checked) else checked
    if bound.ndim == 0:
        bound = np.broadcast_to(bound, (dim,)) if is_known(bound) else jnp.broadcast_to(bound, (dim,))
    if bound.shape[-1] != dim:
        raise ValueError(
            f"`{name}` must be a number or have shape (*batch, {dim}) for a metric of dimension {dim}, "
            f"got {bound.shape}."
        )
    if is_known(bound) and np.isinf(bound).any():
        raise ValueError(
            f"`{name}` is infinite: the uniform law of a metric on an unbounded set is improper; give a finite box."
        )
    return check_finite(name, bound)
