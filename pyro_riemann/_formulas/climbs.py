r"""Where a function on the unit box has its bumps: climbs from many starts, and Gaussians at their ends.

A bump that is narrow against the box is missed by every rule that samples the box, but its gradient is felt much
farther than its height: climbs follow the direction of the gradient, however small. The function is the log volume
element :math:`\log\sqrt{\det G}` of a metric; both faces hand it over, with its gradient, as a function of arrays of
NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Vector: TypeAlias = np.ndarray[Any, Any]
Slopes: TypeAlias = Callable[[Vector], tuple[Vector, Vector]]

WIDEST = 12**-0.5  # standard deviation of a bump at most: that of the uniform law
_STEPS = 60
_FIRST, _LONGEST, _SHORTEST = 0.02, 0.2, 1e-9  # steps of a climb
_FLAT = 3e-3  # a climb ends where no more than this is left to gain, in nats
_STEADY = 4.0  # change of the curvature from one step across a top to the next at which that is a parabola's
_POLISH = 5  # Newton steps
_CLOSE = 0.03  # standard deviations from the top at which a climb has arrived
_OWN = 3.0  # standard deviations from a top within which a climb has ended there
_SAME = 0.3  # bumps closer than this, in standard deviations, are one


class Climbs(NamedTuple):
    """Ends of climbs.

    Attributes:
        unit: where they are, ``(n, d)``.
        value: height there, ``(n)``.
        slope: gradient there, ``(n, d)``.
        scale: upper bound of the narrowest standard deviation there, by the curvature met on the way, ``(n)``.
    """

    unit: Vector
    value: Vector
    slope: Vector
    scale: Vector

    def joined(self, other: Climbs) -> Climbs:
        """These climbs and others."""
        return Climbs(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def take(self, chosen: Vector) -> Climbs:
        """Those climbs that a mask ``(n)`` or indices choose."""
        return Climbs(*(part[chosen] for part in self))


class Bumps(NamedTuple):
    """Bumps of the exponential of a function, as Gaussians.

    Attributes:
        unit: where they are highest, ``(m, d)``.
        value: log of their height, ``(m)``.
        loc: means, ``(m, d)``.
        covariance: covariances, ``(m, d, d)``, or variances ``(m, d)`` where all are diagonal.
        log_mass: log of their integrals, ``(m)``.
    """

    unit: Vector
    value: Vector
    loc: Vector
    covariance: Vector
    log_mass: Vector

    def take(self, chosen: Vector) -> Bumps:
        """Those bumps that a mask ``(m)`` or indices choose."""
        return Bumps(*(part[chosen] for part in self))


def climb(slopes: Slopes, starts: Vector, value: Vector, slope: Vector, epsilon: float) -> Climbs:
    """Steepest ascent in the unit box, all climbs in one batch.

    A step is taken if it ends higher; or no lower, as far as rounding tells, where the slope along it still rises: far
    from a narrow bump its height is lost in rounding, and its gradient is not. Steps grow until a climb has passed the
    top.

    Args:
        slopes: value ``(n)`` and gradient ``(n, d)`` of the function at points ``(n, d)``.
        starts: ``(n, d)``.
        value: ``(n)``, at the starts.
        slope: ``(n, d)``, at the starts.
        epsilon: rounding error of the function's dtype.
    """
    unit, value, slope = starts.copy(), value.copy(), slope.copy()
    scale, stride = np.full(len(unit), WIDEST), np.full(len(unit), _FIRST)
    bent = np.zeros(len(unit))  # curvature across the top, as the last step that passed it saw it
    moving = np.arange(len(unit))
    for _ in range(_STEPS):
        uphill = _within(unit[moving], slope[moving])
        largest = np.abs(uphill).max(-1)
        awake = np.isfinite(largest) & (largest > 0) & np.isfinite(value[moving])
        moving, uphill, largest = moving[awake], uphill[awake], largest[awake]
        if len(moving) == 0:
            break
        direction = uphill / largest[:, None]  # squares of tiny gradients would underflow
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        here, height, reach = unit[moving], value[moving], stride[moving]
        step = np.clip(here + reach[:, None] * direction, 0, 1) - here
        length = np.linalg.norm(step, axis=-1) + 1e-300
        end, tilt = slopes(here + step)
        before, after = (uphill * step).sum(-1) / length, (tilt * step).sum(-1) / length
        level = 16 * epsilon * (1 + np.abs(height))
        taken = (end > height + level) | ((end >= height - level) & (after > 0))
        bend = (before - after) / length
        passed = ~(after > 0)
        narrow = taken & (bend > 0)
        scale[moving[narrow]] = np.minimum(scale[moving[narrow]], bend[narrow] ** -0.5)
        moved = moving[taken]
        unit[moved], value[moved], slope[moved] = (here + step)[taken], end[taken], tilt[taken]
        stride[moving] = np.where(taken & ~passed, np.minimum(2 * reach, _LONGEST), 0.4 * reach)
        # what a parabola through both slopes has left to gain, if it is one: from one flat side of a narrow bump to the
        # other, the curvature is another at every step
        arrived = passed & (before**2 < 2 * _FLAT * bend) & (bend < _STEADY * bent[moving])
        bent[moving[passed]] = bend[passed]
        done = arrived | (stride[moving] < _SHORTEST)
        moving = moving[~done]
    return Climbs(unit, value, slope, scale)


def bumps(slopes: Slopes, ends: Climbs, most: int) -> Bumps:
    """Gaussians at the different ends of climbs, by Laplace's method.

    Where the function presses against a wall of the box, its exponential falls off as an exponential law does, whose
    mean and variance the Gaussian has.

    Args:
        slopes: value ``(n)`` and gradient ``(n, d)`` of the function at points ``(n, d)``.
        ends: where climbs ended.
        most: Gaussians at most, the highest first.
    """
    real = np.flatnonzero(np.isfinite(ends.value) & np.isfinite(ends.slope).all(-1))
    order = real[np.argsort(-ends.value[real], kind="stable")]
    width = ends.scale[order]
    chosen = order[_apart(ends.unit[order], lambda step, k: np.linalg.norm(step, axis=-1) < 0.5 * width[k], most)]
    unit, value, slope, scale = (part[chosen] for part in ends)
    for turn in range(_POLISH + 1):
        curvature, axes, walled = _curvature(slopes, unit, slope, 0.1 * scale)
        scale = curvature.max(-1, initial=WIDEST**-2) ** -0.5
        along = np.einsum("mji,mj->mi", axes, np.where(walled, 0, slope)) / curvature
        size = np.sqrt((along**2 * curvature).sum(-1, keepdims=True))  # of the next step, in standard deviations
        if turn == _POLISH or not (size > _CLOSE).any():
            break
        goal = np.clip(unit + np.einsum("mij,mj->mi", axes, along / np.maximum(size, 1)), 0, 1)
        end, tilt = slopes(goal)
        better = end > value
        unit[better], value[better], slope[better] = goal[better], end[better], tilt[better]
    arrived = size[:, 0] < 10 * _CLOSE
    if arrived.any():  # of a climb that is still under way little can be said
        unit, value, slope, curvature, axes, walled = (
            part[arrived] for part in (unit, value, slope, curvature, axes, walled)
        )
    return _laplace(unit, value, slope, curvature, axes, walled, most)


def unseen(bumps: Bumps, ends: Vector) -> float:
    """Log mass of the bumps that no climb has found, as far as those tell that one climb alone has found.

    Good (1953), *The population frequencies of species and the estimation of population parameters*: where n1 of n
    climbs ended alone, one more would end at a new bump with probability n1 / n. Mass is taken to go with that.

    Args:
        bumps: what was found.
        ends: where climbs from random points ended, ``(n, d)``.
    """
    if not len(bumps.loc):
        return -math.inf
    whiten = np.linalg.inv(np.linalg.cholesky(bumps.covariance))
    away = np.stack([np.square((ends - unit) @ w.T).sum(-1) for unit, w in zip(bumps.unit, whiten, strict=True)])
    nearest = away.argmin(0)
    hits = np.bincount(nearest[away.min(0) < _OWN**2], minlength=len(bumps.loc))
    count, once = hits.sum(), (hits == 1).sum()
    if once == 0:
        return -math.inf
    return math.log(once / (count + 1 - once)) + float(np.logaddexp.reduce(bumps.log_mass))


def _within(unit: Vector, slope: Vector) -> Vector:
    """The gradient without what pushes against the walls."""
    return np.where(((unit <= 0) & (slope < 0)) | ((unit >= 1) & (slope > 0)), 0, slope)


def _curvature(slopes: Slopes, unit: Vector, slope: Vector, step: Vector) -> tuple[Vector, Vector, Vector]:
    """Eigenvalues ``(m, d)`` of minus the Hessian, no flatter than the box, its axes, and the axes cut by a wall."""
    count, dim = unit.shape
    offsets = step[:, None, None] * np.concatenate([np.eye(dim), -np.eye(dim)])
    points = np.clip(unit[:, None] + offsets, 0, 1)
    tilts = slopes(points.reshape(-1, dim))[1].reshape(count, 2 * dim, dim)
    length = np.einsum("mii->mi", points[:, :dim] - points[:, dim:])
    hessian = np.nan_to_num((tilts[:, :dim] - tilts[:, dim:]) / length[..., None])
    walled = _within(unit, slope) != slope
    hessian[walled[:, :, None] | walled[:, None, :]] = 0
    values, axes = np.linalg.eigh(-0.5 * (hessian + hessian.transpose(0, 2, 1)))
    return np.maximum(np.abs(values), WIDEST**-2), axes, walled


def _laplace(
    unit: Vector, value: Vector, slope: Vector, curvature: Vector, axes: Vector, walled: Vector, most: int
) -> Bumps:
    decay = 1 / np.maximum(np.abs(slope), 1 / WIDEST)
    covariance = np.einsum("mij,mj,mkj->mik", axes, 1 / curvature, axes)
    covariance[walled[:, :, None] | walled[:, None, :]] = 0
    covariance += np.eye(unit.shape[1]) * np.where(walled, decay**2, 0)[:, None]
    loc = unit + np.where(unit < 0.5, 1, -1) * np.where(walled, decay, 0)
    precision = np.linalg.inv(covariance)
    # the integral of a Gaussian; of an exponential law where a wall cuts the bump
    log_mass = value + 0.5 * np.linalg.slogdet(covariance)[1] + 0.5 * math.log(2 * math.pi) * (~walled).sum(-1)
    order = np.argsort(-log_mass, kind="stable")

    def same(step: Vector, index: int) -> Vector:
        return np.einsum("mi,ij,mj->m", step, precision[order[index]], step) < _SAME**2

    kept = order[_apart(loc[order], same, most)]
    return Bumps(unit[kept], value[kept], loc[kept], covariance[kept], log_mass[kept])


def _apart(points: Vector, same: Callable[[Vector, int], Vector], most: int) -> Vector:
    """Indices of the first ``most`` points ``(n, d)``, in order, that are not the same as one before."""
    left = np.arange(len(points))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        first = int(left[0])
        kept.append(first)
        left = left[1:]
        left = left[~same(points[left] - points[first], first)]
    return np.asarray(kept, dtype=int)
