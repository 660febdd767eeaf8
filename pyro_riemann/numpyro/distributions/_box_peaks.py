"""The log volume element of a known metric as a function of NumPy arrays on the unit box, and its known bumps there."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.climbs import Bumps, Slopes, Vector
from pyro_riemann.numpyro.metrics import RiemannianMetric

_ROWS = 256  # points at once: one size, so that one program serves all calls
_REACH = 5.0  # standard deviations beyond the box at which a known peak no longer matters


@jax.jit
def _slopes(metric: RiemannianMetric, low: Array, high: Array, unit: Array) -> tuple[Array, Array]:
    def total(points: Array) -> tuple[Array, Array]:
        value = 0.5 * metric.logdet(low + (high - low) * points)
        return value.sum(), value

    (_, value), slope = jax.value_and_grad(total, has_aux=True)(unit)
    return value, slope


def landscape(metric: RiemannianMetric, low: Array, high: Array) -> Slopes:
    r""":math:`\log\sqrt{\det G}` and its gradient, of points ``(n, d)`` of the unit box; NaN where there is none."""

    def slopes(unit: Vector) -> tuple[Vector, Vector]:
        count = len(unit)
        padded = np.full((-(-count // _ROWS) * _ROWS, unit.shape[1]), 0.5)
        padded[:count] = unit
        pieces = (
            [_slopes(metric, low, high, jnp.asarray(p, low.dtype)) for p in np.split(padded, len(padded) // _ROWS)]
            if count
            else []
        )
        if not pieces:
            return np.zeros(0), np.zeros_like(unit)
        value, slope = (np.concatenate([np.asarray(x, float) for x in xs])[:count] for xs in zip(*pieces, strict=True))
        return value, slope

    return slopes


def known_bumps(metric: RiemannianMetric, low: Array, high: Array) -> Bumps | None:
    """The peaks that the metric knows of and that reach into the box, in coordinates of the unit box."""
    known = metric.peaks()
    if known is None:
        return None
    ends: tuple[Any, Any] = (np.asarray(low, float), np.asarray(high, float))
    width = ends[1] - ends[0]
    loc = (np.asarray(known.loc, float) - ends[0]) / width
    covariance = np.asarray(known.covariance, float) / (width[:, None] * width)
    real = np.isfinite(loc).all(-1) & np.isfinite(covariance).all((-2, -1))
    loc, covariance = loc[real], covariance[real]
    spread = np.sqrt(np.einsum("mii->mi", covariance))
    near = ((loc > -_REACH * spread) & (loc < 1 + _REACH * spread)).all(-1)
    if not near.any():
        return None
    loc, covariance = loc[near], covariance[near]
    # outside the box the metric need not be defined: a peak there counts by what it is at the wall
    unit = loc.clip(0, 1)
    value = landscape(metric, low, high)(unit)[0]
    area = 0.5 * np.linalg.slogdet(covariance)[1] + 0.5 * loc.shape[1] * math.log(2 * math.pi)
    return Bumps(unit, value, loc, covariance, value + area)
