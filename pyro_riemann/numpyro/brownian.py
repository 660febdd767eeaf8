"""Brownian motion on a Riemannian manifold, simulated in a chart."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro._checks import check_array, check_finite, check_one_of, check_point, check_positive, holds
from pyro_riemann.numpyro.geodesics import expmap
from pyro_riemann.numpyro.metrics import RiemannianMetric

__all__ = ["METHODS", "brownian_motion", "default_method"]

METHODS = ("retraction", "second_order", "euler", "geodesic", "driftless")
"""What :func:`brownian_motion` takes as its ``method``."""

_ADVICE = "Raise `num_steps`, lower `time`, or regularise the metric (`jitter`, `regularization`)."


def brownian_motion(
    metric: RiemannianMetric,
    start: Array,
    time: float | Array,
    num_steps: int,
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
    That leaves the limit unchanged and keeps paths from being thrown off a steep wall of the metric.

    Args:
        metric: metric of dimension d.
        start: initial points, ``(*batch, d)``.
        time: positive duration, the variance in flat space; a number or an array that broadcasts with ``batch``.
        num_steps: number of steps of equal duration.
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

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 3.3; Kalatzis et al. (2020), eq. 3.15.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, brownian_motion
        >>> end = brownian_motion(EuclideanMetric(2), jnp.zeros((5000, 2)), 0.5, num_steps=4, key=jax.random.key(0))
        >>> bool(jnp.abs(end.var(0) - 0.5).max() < 0.05)
        True
    """
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    method = default_method(metric) if method is None else check_one_of("method", method, METHODS)
    if method == "retraction" and not hasattr(metric, "embed"):
        raise ValueError(
            f"method 'retraction' needs an immersion, which {type(metric).__name__} has not; use 'second_order'."
        )
    start = check_finite("start", check_point("start", start, metric.dim))
    duration = check_positive("time", jnp.asarray(time, start.dtype))
    z, scale = _broadcast(start, jnp.sqrt(duration / num_steps))
    if (noise is None) == (key is None):
        raise ValueError("Give either a `key`, `jax.random.key(seed)`, or the `noise` itself.")
    if noise is not None:
        noise = _check_noise(metric, noise, num_steps, z)
    path, lost = _walk(metric, z, scale, noise, key, num_steps, method, return_path)
    _check_path(lost, num_steps)
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
    if getattr(metric, "embed", None) is not None:
        return "second_order" if getattr(metric, "has_jets", False) else "retraction"
    if _overrides(metric, "expmap"):
        return "geodesic"
    return "euler" if _overrides(metric, "drift") else "second_order"


def _overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and the one that it rewrites if there is one, has a method of its own."""
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or _overrides(base, name))


# ---------------------------------------------------------------- checks


def _broadcast(start: Array, scale: Array) -> tuple[Array, Array]:
    try:
        start, scale = jnp.broadcast_arrays(start, scale[..., None])
    except ValueError as error:
        raise ValueError(
            f"`time` of shape {scale.shape} does not broadcast with the batch shape {start.shape[:-1]} of `start`."
        ) from error
    return start, scale[..., :1]


def _check_noise(metric: RiemannianMetric, noise: Array, num_steps: int, z: Array) -> Array:
    noise = check_array("noise", noise)
    expected = (num_steps, *z.shape)
    if noise.shape[:-1] != expected[:-1]:
        raise ValueError(f"`noise` must have shape {expected}, got {noise.shape}.")
    check_finite("noise", noise)
    if noise.shape[-1] != metric.dim:
        embed: Any = getattr(metric, "embed", None)
        if embed is None:
            raise ValueError(f"`noise` has {noise.shape[-1]} entries a point: ambient noise needs an immersion.")
        if noise.shape[-1] != (size := jax.eval_shape(embed, z).shape[-1]):
            raise ValueError(f"`noise` must have {metric.dim} or {size} entries a point, got {noise.shape[-1]}.")
    return noise.astype(z.dtype)


def _check_path(lost: Array, num_steps: int) -> None:
    """``lost``: for each path the first step that left the reals, 0 for none."""
    if holds(lost == 0):
        return
    step = int(lost[lost > 0].min())
    raise ValueError(
        f"{int((lost > 0).sum())} of {lost.size} Brownian paths left the reals, or met a metric that is not positive "
        f"definite, the first in step {step} of {num_steps}. {_ADVICE}"
    )


# ---------------------------------------------------------------- steps


@partial(jax.jit, static_argnums=(5, 6, 7))
def _walk(
    metric: Any,
    start: Array,
    scale: Array,
    noise: Any,
    key: Any,
    num_steps: int,
    method: str,
    return_path: bool,
) -> tuple[Array, Array]:
    """End or path, and for each path the first step that left the reals, 0 for none."""

    def advance(state: tuple[Array, Array], given: tuple[Array, Any]) -> tuple[tuple[Array, Array], Any]:
        z, lost = state
        index, source = given
        draws = source if key is None else jax.random.normal(source, z.shape, z.dtype)
        z = _step(metric, z, scale, method, draws)
        lost = jnp.where((lost == 0) & ~jnp.isfinite(z).all(-1), index, lost)
        return (z, lost), z if return_path else None

    sources = noise if key is None else jax.random.split(key, num_steps)
    numbers = jnp.arange(1, num_steps + 1, dtype=jnp.int32)
    state = (start, jnp.zeros(start.shape[:-1], jnp.int32))
    (end, lost), path = jax.lax.scan(advance, state, (numbers, sources))
    return jnp.concatenate([start[None], path]) if return_path else end, lost


def _step(metric: Any, z: Array, scale: Array, method: str, noise: Array) -> Array:
    """One step; ``scale`` is the standard deviation of the noise, ``(*batch, 1)``."""
    ambient = noise.shape[-1] != metric.dim
    white = scale * noise
    force = None
    if ambient or method == "retraction":
        value, jacobian = metric.embed_jacobian(z)
        factor = _linalg.cholesky(jacobian.mT @ jacobian)
        if ambient:
            white = _lower(factor, _pull(jacobian, white))
    elif method == "second_order" and hasattr(metric, "metric_and_force"):
        tensor, force = metric.metric_and_force(z)
        factor = _linalg.cholesky(tensor)
    else:
        factor = metric.cholesky(z)

    v = _upper(factor, white)  # v ~ N(0, h G^-1), of norm |white| under G
    if method == "driftless":
        return z + v
    if method == "geodesic":
        # a step is short: two Runge-Kutta steps are more exact than the random walk itself
        end: Array = metric.expmap(z, v) if _overrides(metric, "expmap") else expmap(metric, z, v, num_steps=2)
        return end
    if method == "euler":
        bend = _raise(factor, -jnp.square(scale) * metric.drift(z))
        # the drift does not shrink with v, so that it is held against the typical step
        return z + _upper(factor, white - _cap(bend, metric.dim * jnp.square(scale)))
    if method == "retraction":
        both = metric.embed(jnp.stack([z + v, z - v]))
        bend = _lower(factor, _pull(jacobian, 0.5 * (both[0] + both[1]) - value))
    elif force is not None:
        bend = _lower(factor, 0.5 * force(v))
    else:
        bend = _raise(factor, 0.5 * metric.christoffel(z, v))
    return z + _upper(factor, white - _cap(bend, jnp.square(white).sum(-1, keepdims=True)))


# Corrections are kept in the orthonormal frame of L, G = L L^T, where the norm of G is the Euclidean one.


def _pull(jacobian: Array, vector: Array) -> Array:
    """``J^T vector``."""
    return jnp.einsum("...ai,...a->...i", jacobian, vector)


def _raise(factor: Array, vector: Array) -> Array:
    """``L^T vector``: a chart vector in the orthonormal frame."""
    return jnp.einsum("...ji,...j->...i", factor, vector)


def _lower(factor: Array, vector: Array) -> Array:
    """``L^-1 vector``."""
    return _linalg.solve_lower(factor, vector)


def _upper(factor: Array, vector: Array) -> Array:
    """``L^-T vector``."""
    return _linalg.solve_upper(factor, vector)


def _cap(bend: Array, limit: Array) -> Array:
    """Shorten ``bend`` where its squared length exceeds ``limit``."""
    squared = jnp.square(bend).sum(-1, keepdims=True)
    long = squared > limit
    ratio = jnp.where(long, limit, 1.0) / jnp.where(long, squared, 1.0)
    return jnp.where(long, jnp.sqrt(ratio) * bend, bend)
