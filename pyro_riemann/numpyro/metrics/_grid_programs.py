"""Programs of a tabulated metric, compiled with the metric as an argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from pyro_riemann._formulas import log_cholesky
from pyro_riemann.numpyro.metrics._generic import GenericMetric
from pyro_riemann.numpyro.metrics._spline_table import SplineTable


class Tabulated(Protocol):
    """A table, and the metric that it was made of if that is kept."""

    dim: int
    table: SplineTable
    base: GenericMetric | None


def evaluate_in_chunks(metric: GenericMetric, points: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The true metric at ``points`` ``(n, d)``, in chunks of equal shape, so that one program serves all."""
    count = len(points)
    size = min(size, count)
    padded = np.concatenate([points, np.repeat(points[-1:], -count % size, axis=0)])
    chunks = [_evaluate(metric, jnp.asarray(chunk)) for chunk in padded.reshape(-1, size, points.shape[-1])]
    return np.concatenate([np.asarray(chunk) for chunk in chunks])[:count]


def floor_in_chunks(
    metric: GenericMetric, nodes: NDArray[np.floating], sizes: tuple[int, ...], chunk_size: int
) -> Array | None:
    """1 where ``metric`` is on its floor at the nodes, in the shape of the grid, else 0; None if it has none.

    As numbers, since all leaves of a metric must be differentiable.
    """
    chunks = np.split(nodes, range(chunk_size, len(nodes), chunk_size))
    known = [part for chunk in chunks if (part := metric.on_floor(jnp.asarray(chunk))) is not None]
    return jnp.concatenate(known).reshape(sizes).astype(nodes.dtype) if known else None


@jax.jit
def _evaluate(metric: GenericMetric, z: Array) -> Array:
    return metric.metric(z)


def _or_base(grid: Tabulated, z: Array, inside: bool, found: Any, of_base: Callable[[GenericMetric], Any]) -> Any:
    """``found`` at the points in the box, the true metric's result at the others if there are any."""
    base = grid.base
    if inside or base is None:
        return found
    within = grid.table.contains(z)

    def both() -> Any:
        def pick(own: Array, other: Array) -> Array:
            return jnp.where(within.reshape(*within.shape, *(1,) * (own.ndim - within.ndim)), own, other)

        return jax.tree.map(pick, found, of_base(base))

    return jax.lax.cond(within.all(), lambda: found, both)


_compiled = partial(jax.jit, static_argnames="inside")


@_compiled
def metric(grid: Tabulated, z: Array, inside: bool) -> Array:
    (found,) = log_cholesky.metric(jnp, grid.table(z), grid.dim)
    result: Array = _or_base(grid, z, inside, found, lambda base: base.metric(z))
    return result


@_compiled
def logdet(grid: Tabulated, z: Array, inside: bool) -> Array:
    found = 2 * grid.table(z)[..., : grid.dim].sum(-1)  # the table holds the log-diagonal
    result: Array = _or_base(grid, z, inside, found, lambda base: base.logdet(z))
    return result


@_compiled
def logdet_gradient(grid: Tabulated, z: Array, inside: bool) -> Array:
    found = 2 * grid.table.with_jacobian(z)[1][..., : grid.dim, :].sum(-2)
    result: Array = _or_base(grid, z, inside, found, lambda base: base.logdet_gradient(z))
    return result


@_compiled
def metric_jacobian(grid: Tabulated, z: Array, inside: bool) -> tuple[Array, Array]:
    fields, slope = grid.table.with_jacobian(z)
    metric, jacobian = log_cholesky.metric(jnp, fields, grid.dim, slope)
    result: tuple[Array, Array] = _or_base(grid, z, inside, (metric, jacobian), lambda base: base.metric_jacobian(z))
    return result


@_compiled
def speed_hessian(grid: Tabulated, z: Array, v: Array, inside: bool) -> Array:
    found = log_cholesky.speed_hessian(jnp, *grid.table.with_hessian(z), v)
    result: Array = _or_base(grid, z, inside, found, lambda base: base.speed_hessian(z, v))
    return result
