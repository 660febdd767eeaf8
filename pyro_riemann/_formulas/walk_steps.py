"""Random walks: a step, and how many they need, so that distances have the law of Brownian motion."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, cast

from pyro_riemann._formulas import Array, Namespace
from pyro_riemann._formulas.metric import MetricAlgebra

TOLERANCE = 0.01
"""Relative error of the mean distance that the default number of steps allows."""

LEVELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Numbers of steps to choose from by default: few, since JAX compiles each anew; the last is the bound."""

PILOTS = (64, 256, 512)
"""Numbers of steps with which fewer are compared, until these are seen to be enough."""

RATIO = 4
"""How many times fewer these are: walks of 8 and 16 steps may agree with each other, and both be wrong."""

UNKNOWN = 64
"""Number of steps where nothing can be tried: under the transformations of JAX, ``torch.jit.trace`` and ``vmap``."""

FLOOR_SHARE = 0.05
"""Share of end points on a metric's floor above which a walk warns."""


def level(needed: float) -> int:
    """The smallest of :data:`LEVELS` that is not below ``needed``; the last if there is none."""
    return next((count for count in LEVELS if count >= needed), LEVELS[-1])


def needed_by_gap(count: int, gap: float, noise: float) -> float:
    """Steps that bring the error below half the tolerance, from that of ``count``.

    Args:
        count: number of steps of a walk.
        gap: relative difference of its mean distance to that of a walk with :data:`RATIO` times as many.
        noise: standard error of the gap, which counts against it.
    """
    return count * (abs(gap) + noise) * RATIO / (RATIO - 1) / (TOLERANCE / 2)  # the error falls as 1 / count


def needed_on_space_form(dim: int, curvature: float, time: float) -> float:
    """Steps along geodesics that a space of constant scalar curvature needs.

    By the addition theorem, n such steps multiply ``E cosh(l)`` (``E cos(l)`` on the sphere) n times by that of one
    step, which is known, as is the exact ``exp(-K d t / 2)``: a closed form for the error.
    """
    if dim == 1 or curvature == 0:
        return 1
    unit = abs(curvature) / (dim * (dim - 1))
    return time * unit / _longest_step(dim, curvature > 0)


@cache
def _longest_step(dim: int, positive: bool) -> float:
    """Longest time of a step, at curvature 1 or -1, with half the tolerated error of ``log E cosh(l)``."""
    low, high = 1e-6, 4.0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _error(dim, middle, positive) < TOLERANCE / 2 else (low, middle)
    return low


def _error(dim: int, step: float, positive: bool) -> float:
    bend = step * (dim - 1) / 6  # as in step_variance
    variance = step / (1 + bend) if positive else step * (1 + bend)
    term, total = 1.0, 1.0  # E cosh|v| = sum of E|v|^2k / (2k)!, v ~ N(0, variance I)
    for k in range(1, 60):
        term *= (-variance if positive else variance) * (dim + 2 * k - 2) / ((2 * k - 1) * (2 * k))
        total += term
    exact = dim * step / 2
    return abs(math.log(total) - (-exact if positive else exact)) / exact if total > 0 else math.inf


def step_variance(xp: Namespace, step: Array, ricci: Array) -> Array:
    """Variance of a step of duration ``step`` along a geodesic where the Ricci tensor is ``ricci`` times the metric.

    Steps of variance h err by ``h^2 / 12 div(Ric grad f)``, from the curvature terms of the fourth derivative; with
    ``h (1 - h ricci / 6)`` the walk is of weak order 2 where the curvature is constant. Positive for long steps too.
    """
    bend = step * ricci / 6
    return step * xp.where(bend > 0, 1 / (1 + xp.clip(bend, min=0.0)), 1 - xp.clip(bend, max=0.0))


def too_few(needed: float, used: int, order: int, time: float) -> str:
    """What a walk says that needs more steps than the bound."""
    return (
        f"Brownian motion over time {time:.3g} needs about {needed:.0f} steps for its mean distance to be right within "
        f"{TOLERANCE:.0%}; the default stops at {used}, with an error of about "
        f"{min(TOLERANCE * (needed / used) ** order, 1.0):.0%}. Give `num_steps`, or walk a shorter `time`."
    )


def mostly_floor(share: float, count: int, metric: str) -> str:
    """What a walk says whose paths have run off to where the metric knows nothing."""
    return (
        f"{share:.0%} of {count} Brownian paths end where {metric} is only its floor (`jitter` or `regularization`): "
        "there the walk goes anywhere, far from any data. Use a shorter `time`, a larger jitter, or a metric that "
        "grows away from the data (a decoder with a standard deviation, a kernel metric with a larger bandwidth)."
    )


class Walk:
    """Steps of Brownian motion; a face says by what it factors and solves, and which metrics are made of others."""

    xp: Namespace
    product: type
    pullback: type
    overrides: Any  # whether a metric, and all that it is made of, has a method of its own
    expmap: Any  # by Runge-Kutta steps

    def factor(self, tensor: Array, z: Array) -> Array:
        """Cholesky factor L of the metric of an immersion at ``z``."""
        raise NotImplementedError

    def lower(self, factor: Array, vector: Array) -> Array:
        """``L^-1 vector``."""
        raise NotImplementedError

    def upper(self, factor: Array, vector: Array) -> Array:
        """``L^-T vector``."""
        raise NotImplementedError

    def step(self, metric: MetricAlgebra[Any], z: Array, scale: Array, noise: Array, method: str) -> Array:
        """One step; ``scale`` is the standard deviation of the noise, ``(*batch, 1)``."""
        xp, known = self.xp, cast(Any, metric)
        if method == "geodesic" and isinstance(metric, self.product):  # the factors move independently
            parts = zip(known.factors, known.split(z), known.split(noise), strict=True)
            return xp.concatenate([self.step(factor, x, scale, part, method) for factor, x, part in parts], -1)
        ambient = noise.shape[-1] != metric.dim
        if method == "geodesic" and metric.radial_law() is not None:
            ricci = metric.scalar_curvature(z)[..., None] / metric.dim
            scale = xp.sqrt(step_variance(xp, xp.square(scale), ricci))
        white = scale * noise
        force = None
        surface: Any = metric.immersed()
        if surface is not None and (ambient or method == "retraction"):
            value, jacobian = surface.embed_jacobian(z)
            factor = self.factor(jacobian.mT @ jacobian, z)
            if ambient:
                white = self.lower(factor, self._pull(jacobian, white))
        elif method == "second_order" and isinstance(metric, self.pullback):
            tensor, force = known.metric_and_force(z)
            factor = self.factor(tensor, z)
        else:
            factor = metric.cholesky(z)

        v = self.upper(factor, white)  # v ~ N(0, h G^-1), of norm |white| under G
        if method == "driftless":
            return z + v
        if method == "geodesic":
            if self.overrides(metric, "expmap"):
                return metric.expmap(z, v)
            return self.expmap(metric, z, v, 2)  # a step is short: more exact than the random walk itself
        if method == "euler":
            bend = self._raise(factor, -xp.square(scale) * metric.drift(z))
            # the drift does not shrink with v, so that it is held against the typical step
            return z + self.upper(factor, white - self._cap(bend, metric.dim * xp.square(scale)))
        if surface is not None and method == "retraction":
            both = surface.embed(xp.stack([z + v, z - v]))
            bend = self.lower(factor, self._pull(jacobian, 0.5 * (both[0] + both[1]) - value))
        elif force is not None:
            bend = self.lower(factor, 0.5 * force(v))
        else:
            bend = self._raise(factor, 0.5 * metric.christoffel(z, v))
        return z + self.upper(factor, white - self._cap(bend, xp.square(white).sum(-1)[..., None]))

    # corrections are kept in the orthonormal frame of L, G = L L^T, where the norm of G is the Euclidean one

    def _pull(self, jacobian: Array, vector: Array) -> Array:
        """``J^T vector``."""
        return self.xp.einsum("...ai,...a->...i", jacobian, vector)

    def _raise(self, factor: Array, vector: Array) -> Array:
        """``L^T vector``: a chart vector in the orthonormal frame."""
        return self.xp.einsum("...ji,...j->...i", factor, vector)

    def _cap(self, bend: Array, limit: Array) -> Array:
        """Shorten ``bend`` where its squared length exceeds ``limit``."""
        xp, squared = self.xp, self.xp.square(bend).sum(-1)[..., None]
        long = squared > limit
        ratio = xp.where(long, limit, xp.ones_like(limit)) / xp.where(long, squared, xp.ones_like(squared))
        return xp.where(long, xp.sqrt(ratio) * bend, bend)
