"""Brownian motion on a Riemannian manifold, simulated in a chart."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import walk_steps
from pyro_riemann._warn import warn
from pyro_riemann._work import announced
from pyro_riemann.numpyro._checks import check_array, check_finite, check_one_of, check_point, check_positive, holds
from pyro_riemann.numpyro._memory import by_points
from pyro_riemann.numpyro._walk import overrides, step
from pyro_riemann.numpyro.manifolds import ProductMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric

__all__ = ["METHODS", "brownian_motion", "default_method"]

METHODS = ("retraction", "second_order", "euler", "geodesic", "driftless")
"""What :func:`brownian_motion` takes as its ``method``."""

_ADVICE = "Raise `num_steps`, lower `time`, or regularise the metric (`jitter`, `regularization`)."


@announced
def brownian_motion(
    metric: RiemannianMetric,
    start: Array,
    time: float | Array,
    num_steps: int | None = None,
    method: str | None = None,
    return_path: bool = False,
    noise: Array | None = None,
    *,
    key: Array | None = None,
) -> Array:
    r"""Simulate Brownian motion, whose generator is half the Laplace-Beltrami operator.

    In the chart it solves :math:`dz = b(z)\,dt + G^{-1/2} dW` with
    :math:`b^i = -\tfrac12 g^{jk} \Gamma^i_{jk}`. Every method draws :math:`v \sim N(0, h\,G(z)^{-1})`,
    :math:`h` the time of a step, and then moves to

    ==================  =====================================================================================
    ``"retraction"``    :math:`z + v - G^{-1} J^\top (\tfrac12 (f(z + v) + f(z - v)) - f(z))`, pullbacks only
    ``"second_order"``  :math:`z + v - \tfrac12 \Gamma(v, v)`
    ``"euler"``         :math:`z + v + h\,b(z)` (Euler-Maruyama)
    ``"geodesic"``      the exponential map of v
    ``"driftless"``     :math:`z + v`: Kalatzis et al. (2020), eq. 3.15. Its law depends on the chart and is wrong
                        in the limit of many steps; for reproduction only.
    ==================  =====================================================================================

    A correction longer than the step itself, in the norm of G, is shortened to that length.
    That leaves the limit unchanged and keeps paths from being thrown off a steep wall of the metric. The weak error of
    n steps falls as 1 / n; along geodesics of a metric whose scalar curvature R is known in closed form the variance of
    v is :math:`h (1 - h R / 6d)`, and where that is constant it falls as 1 / n^2.

    Args:
        metric: metric of dimension d.
        start: initial points, ``(*batch, d)``.
        time: positive duration, the variance in flat space; a number or an array that broadcasts with ``batch``.
        num_steps: number of steps of equal duration. Default: as many as keep the mean distance right within 1 %,
            16 to 512: by a closed form where the curvature is constant, else by a pilot of 256 paths from ``start``
            with noise of its own, which compares n steps with 4 n driven by the same noise. Where values are not
            known (``jit`` and other transformations) it is 64. The number of draws given as ``noise``, if any.
        method: one of the above. Default for pullbacks: ``"second_order"`` if the immersion is one of our networks
            (``metric.has_jets``, as on the torch side), else ``"retraction"``. For other metrics: ``"geodesic"`` if
            the exponential map is closed, ``"euler"`` if the drift is, else ``"second_order"``.
        return_path: return every point visited instead of the last.
        noise: standard normal draws to use, ``(num_steps, *batch, d)``, or ``(num_steps, *batch, D)`` with D the
            number of outputs of a pullback's immersion: noise in the ambient space, which drives
            the same motion in every chart. Default: drawn from ``key``.
        key: of the random numbers; needed unless ``noise`` is given.

    Returns:
        End points ``(*batch, d)``, or the path ``(num_steps + 1, *batch, d)``. Differentiable in ``start``,
        ``time`` and the parameters of the metric. Under ``jit`` and other transformations a path that is lost, or meets
        a metric that is not positive definite, is NaN from there on.

    Raises:
        ValueError: if an argument has the wrong shape or range, the method does not suit the metric, or, where values
            are known, a path leaves the reals or G is not positive definite on the way.
        TypeError: if ``start`` or ``noise`` is not a floating array.

    Warns, with the number, where values are known, if the default would need more than 512 steps, and if more than
    5 % of the paths end where the metric is only its floor (:meth:`RiemannianMetric.on_floor`).

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 3.3; Kalatzis et al. (2020), eq. 3.15.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, brownian_motion
        >>> end = brownian_motion(EuclideanMetric(2), jnp.zeros((5000, 2)), 0.5, num_steps=4, key=jax.random.key(0))
        >>> bool(jnp.abs(end.var(0) - 0.5).max() < 0.05)
        True
    """
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    method = default_method(metric) if method is None else check_one_of("method", method, METHODS)
    if method == "retraction" and metric.immersed() is None:
        raise ValueError(
            f"method 'retraction' needs an immersion, which {type(metric).__name__} has not; use 'second_order'."
        )
    start = check_finite("start", check_point("start", start, metric.dim))
    duration = check_positive("time", jnp.asarray(time, start.dtype))
    z, duration = _broadcast(start, duration)
    if (noise is None) == (key is None):
        raise ValueError("Give either a `key`, `jax.random.key(seed)`, or the `noise` itself.")
    if num_steps is None:
        num_steps = choose_steps(metric, z, duration, method) if noise is None else max(len(noise), 1)
    if noise is not None:
        noise = _check_noise(metric, noise, num_steps, z)
    scale = jnp.sqrt(duration / num_steps)
    path, lost = _walk(metric, z, scale, noise, key, num_steps, method, return_path)
    _check_path(lost, num_steps)
    _check_floor(metric, path[-1] if return_path else path)
    return path


def default_method(metric: RiemannianMetric) -> str:
    """The method that :func:`brownian_motion` uses for a metric unless told otherwise.

    Args:
        metric: any metric.

    Example:
        >>> from pyro_riemann.numpyro.brownian import default_method
        >>> default_method(Sphere(2)), default_method(PullbackMetric(lambda z: z**3, 2))
        ('geodesic', 'retraction')
    """
    if (surface := metric.immersed()) is not None:
        return "second_order" if surface.has_jets else "retraction"
    if overrides(metric, "expmap"):
        return "geodesic"
    return "euler" if overrides(metric, "drift") else "second_order"


# ---------------------------------------------------------------- how many steps


def choose_steps(metric: RiemannianMetric, start: Array, time: Array, method: str) -> int:
    """The default number of steps of :func:`brownian_motion`; start ``(*batch, d)``, time ``(*batch, 1)``."""
    leaves = jax.tree.leaves((metric, start, time))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) or time.size == 0:
        return walk_steps.UNKNOWN
    start, time = start.reshape(-1, metric.dim), jnp.reshape(time, (-1, 1))
    if method == "geodesic" and isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(start), strict=True)
        return max(choose_steps(factor, x, time, method) for factor, x in parts)
    longest = float(time.max())
    if method == "geodesic" and metric.radial_law() is not None:
        curvature = np.asarray(metric.scalar_curvature(start))
        largest = float(curvature.flat[np.abs(curvature).argmax()])
        needed, order = walk_steps.needed_on_space_form(metric.dim, largest, longest), 2
    else:
        needed, order = _needed_by_pilot(metric, start, time, method), 1
    if needed > walk_steps.LEVELS[-1]:
        warn(walk_steps.too_few(needed, walk_steps.LEVELS[-1], order, longest))
    return walk_steps.level(needed)


def _needed_by_pilot(metric: RiemannianMetric, start: Array, time: Array, method: str, count: int = 128) -> float:
    """Number of steps at which the mean distance from ``start`` stops changing, to half the tolerance.

    ``count`` paths and their mirror images, from points spread over the batch, with noise of their own.
    """
    rows = np.round(np.linspace(0, len(start) - 1, count)).astype(int)
    start, time = (jnp.broadcast_to(value[rows], (2, count, value.shape[-1])) for value in (start, time))
    for fine in walk_steps.PILOTS:
        sizes = (walk_steps.RATIO, 1)
        far, lost = zip(*(_pilot(metric, start, time, fine // size, size, method) for size in sizes), strict=True)
        coarse = fine // walk_steps.RATIO
        if any(map(bool, lost)):
            needed = 4.0 * fine
        else:
            gap = (far[1] - far[0]).mean(0) / far[1].mean()
            needed = walk_steps.needed_by_gap(coarse, float(gap.mean()), float(gap.std()) / count**0.5)
        if needed <= fine:
            break
    return needed


@partial(jax.jit, static_argnums=5)
def _pilot(
    metric: RiemannianMetric, start: Array, time: Array, num_steps: Array, size: Array, method: str
) -> tuple[Array, Array]:
    """How far paths and their mirror images get, and whether one was lost.

    Each of ``num_steps`` steps takes the sum of the next ``size`` draws; one program serves every number of steps.
    """
    scale, key, shape = jnp.sqrt(time / num_steps), jax.random.key(0), start.shape[1:]

    def draw(index: Array, total: Array) -> Array:
        return total + jax.random.normal(jax.random.fold_in(key, index), shape, start.dtype)

    def advance(index: Array, z: Array) -> Array:
        half = jax.lax.fori_loop(index * size, (index + 1) * size, draw, jnp.zeros(shape, start.dtype))
        return step(metric, z, scale, jnp.stack([half, -half]) / jnp.sqrt(size), method)

    end = jax.lax.fori_loop(0, num_steps, advance, start)
    return _extent(metric, start, time, end), ~jnp.isfinite(end).all()


def _extent(metric: RiemannianMetric, start: Array, time: Array, end: Array) -> Array:
    """How far from ``start``, ``(*batch)``: in the ambient space of an immersion, else in the chart, far out as log."""
    if (surface := metric.immersed()) is not None:
        return jnp.linalg.norm(surface.embed(end) - surface.embed(start), axis=-1)
    scale = 2 * jnp.sqrt(metric.dim * time[..., 0])
    return scale * jnp.asinh(metric.norm(start, end - start) / scale)


# ---------------------------------------------------------------- checks


def _check_floor(metric: RiemannianMetric, end: Array) -> None:
    """Warn if many paths, of at most some thousand that are looked at, have left what the metric knows of."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((metric, end))) or end.size == 0:
        return
    points = end.reshape(-1, metric.dim)
    on_floor = metric.on_floor(points[:: 1 + len(points) // 2000])
    if on_floor is None or holds(on_floor.mean() <= walk_steps.FLOOR_SHARE):
        return
    message = walk_steps.mostly_floor(float(on_floor.mean()), len(points), f"the {type(metric).__name__}")
    warn(message)


def _broadcast(start: Array, time: Array) -> tuple[Array, Array]:
    try:
        start, time = jnp.broadcast_arrays(start, time[..., None])
    except ValueError as error:
        raise ValueError(
            f"`time` of shape {time.shape} does not broadcast with the batch shape {start.shape[:-1]} of `start`."
        ) from error
    return start, time[..., :1]


def _check_noise(metric: RiemannianMetric, noise: Array, num_steps: int, z: Array) -> Array:
    noise = check_array("noise", noise)
    expected = (num_steps, *z.shape)
    if noise.shape[:-1] != expected[:-1]:
        raise ValueError(f"`noise` must have shape {expected}, got {noise.shape}.")
    check_finite("noise", noise)
    if noise.shape[-1] != metric.dim:
        surface = metric.immersed()
        if surface is None:
            raise ValueError(f"`noise` has {noise.shape[-1]} entries a point: ambient noise needs an immersion.")
        if noise.shape[-1] != (size := jax.eval_shape(surface.embed, z).shape[-1]):
            raise ValueError(f"`noise` must have {metric.dim} or {size} entries a point, got {noise.shape[-1]}.")
    return noise.astype(z.dtype)


def _check_path(lost: Array, num_steps: int) -> None:
    """``lost``: for each path the first step that left the reals or where the metric is known, 0 for none."""
    if holds(lost == 0):
        return
    step = int(lost[lost > 0].min())
    raise ValueError(
        f"{int((lost > 0).sum())} of {lost.size} Brownian paths left the reals or the box of a table, or met a metric "
        f"that is not positive definite, the first in step {step} of {num_steps}. {_ADVICE}"
    )


# ---------------------------------------------------------------- steps


@partial(jax.jit, static_argnums=(5, 6, 7))
def _walk(
    metric: RiemannianMetric,
    start: Array,
    scale: Array,
    noise: Array | None,
    key: Array | None,
    num_steps: int,
    method: str,
    return_path: bool,
) -> tuple[Array, Array]:
    """End or path, and for each path the first step that left the reals or what the metric knows, 0 for none."""

    def advance(state: tuple[Array, Array], given: tuple[Array, Any]) -> tuple[tuple[Array, Array], Any]:
        z, lost = state
        index, source = given
        draws = source if key is None else jax.random.normal(source, z.shape, z.dtype)
        z = by_points(metric, partial(step, metric, method=method), (z, scale, draws), 0)
        known = metric.covers(z)
        gone = ~jnp.isfinite(z).all(-1) if known is None else ~known
        lost = jnp.where((lost == 0) & gone, index, lost)
        return (z, lost), z if return_path else None

    sources = noise if key is None else jax.random.split(key, num_steps)
    numbers = jnp.arange(1, num_steps + 1, dtype=jnp.int32)
    state = (start, jnp.zeros(start.shape[:-1], jnp.int32))
    (end, lost), path = jax.lax.scan(advance, state, (numbers, sources))
    return jnp.concatenate([start[None], path]) if return_path else end, lost
