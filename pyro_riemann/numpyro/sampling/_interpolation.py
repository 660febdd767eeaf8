"""Interpolations between codes: points of a curve in latent space, and what a decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution

from pyro_riemann._formulas.codes import BARE, FINE, KINDS, LOOKS, NOT_FINITE, ON_FLOOR, data_of
from pyro_riemann._formulas.unit_samplers import check_count
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import check_finite, check_one_of, check_point
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics import RiemannianMetric


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Points along curves between pairs of codes.

    Attributes:
        kind: ``"line"``, ``"geodesic"`` or ``"volume"``.
        points: ``(num_frames, *batch, d)``, at equal steps of length in the chart.
        frames: what the decoder returned for them, ``(num_frames, *batch, *data)``; None without a decoder.
        curve: the curve in full, with its length in the metric that it minimises and ``converged``; None for lines. In
            double precision for ``"volume"``, where JAX has it.
        coverage: share of the curve where the metric is not just its floor; None without a floor, and for lines.

    Example:
        >>> interpolate(EuclideanMetric(2), jnp.zeros(2), jnp.ones(2), num_frames=3).points[1].round(3).tolist()
        [0.5, 0.5]
    """

    kind: str
    points: Array
    frames: Array | None
    curve: Geodesic | None
    coverage: float | None = None


def interpolate(
    metric: RiemannianMetric,
    start: Array,
    end: Array,
    decoder: Callable[[Array], Any] | None = None,
    kind: str = "geodesic",
    num_frames: int = 10,
    **settings: Any,
) -> Interpolation:
    r"""Interpolate between codes along a curve of the metric, and decode it.

    ``"geodesic"`` minimises the length in the metric G. ``"volume"`` minimises

    .. math:: \int_0^1 \frac{|\gamma'(t)|}{\sqrt{\det G(\gamma(t))}}\, dt,

    the length in :meth:`metric.conformal() <pyro_riemann.numpyro.RiemannianMetric.conformal>`: such a curve keeps to
    where the volume is large, which for a kernel metric is where the data are, while the geodesics of a kernel metric
    take the short cut through the void. ``"line"`` is the straight line of the chart.

    Frames are equally spaced in the chart: at equal times of the conformal metric nearly all would lie in the void.

    Args:
        metric: the metric.
        start: first codes, ``(*batch, d)``.
        end: last codes, ``(*batch, d)``.
        decoder: maps codes ``(n, d)`` to data ``(n, *data)``, images of any shape among them; or to a tuple whose first
            entry is that, a mapping or dataclass with one tensor, or a distribution, whose mean is taken.
        kind: ``"geodesic"``, ``"volume"`` or ``"line"``.
        num_frames: number of points, both ends included.
        **settings: of the geodesic solver, see :class:`~pyro_riemann.numpyro.geodesics.GeodesicSolver`; also ``init``.

    Returns:
        Points and frames. A warning counts the curves that did not converge: where the determinant spans tens of
        orders of magnitude, as for kernel metrics of narrow posteriors in more than a few dimensions, the curve is only
        the best one found. Another one tells that a curve lies on the metric's floor, where it is no more than the
        straight line.

    Raises:
        TypeError, ValueError: naming the argument at fault; ValueError for curves that are not finite.

    Source: Chadebec & Allassonniere (2022), eq. 8 and Figure 1.

    Example:
        >>> angle = jnp.linspace(0, jnp.pi, 9)
        >>> arc = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
        >>> metric = KernelMetric(arc, jnp.full_like(arc, 16.0), bandwidth=1.5)
        >>> path = interpolate(metric, arc[0], arc[-1], lambda z: jnp.linalg.norm(z, axis=-1), kind="volume")
        >>> path.points.shape, bool(path.frames.min() > 0.8)  # it follows the arc
        ((10, 2), True)
    """
    check_one_of("kind", kind, KINDS)
    check_count("num_frames", num_frames, 2)
    start, end = (
        check_finite(name, check_point(name, code, metric.dim)) for name, code in (("start", start), ("end", end))
    )
    start, end = jnp.broadcast_arrays(start, end)
    curve, coverage = None, None
    times = jnp.linspace(0, 1, num_frames, dtype=start.dtype)
    if kind == "line":
        if settings:
            raise TypeError(f'kind "line" takes no settings, got {", ".join(settings)}.')
        points = _line(start, end, times)
    else:
        if kind == "volume":
            wide, first, last = _in_double((metric, start, end))
            low, high = (
                extreme(wide.logdet(_line(first, last, jnp.linspace(0, 1, LOOKS)))) for extreme in (jnp.min, jnp.max)
            )
            # a factor of 1 in the middle of its range along the straight lines
            curve = wide.conformal(float(low + high) / 2).geodesic(first, last, **settings)
        else:
            curve = metric.geodesic(start, end, **settings)
        points = _equally_spaced(curve, times).astype(start.dtype)
        if not bool(jnp.isfinite(points).all() & jnp.isfinite(curve.length).all()):
            raise ValueError(NOT_FINITE.format(kind=kind))
        known = metric.coverage(points)
        coverage = None if known is None else float(known)
        if coverage is not None and coverage < BARE:
            warn(ON_FLOOR.format(coverage=coverage))
    frames = None
    if decoder is not None:
        decoded = data_of(decoder(points.reshape(-1, metric.dim)), Array, Distribution)
        frames = decoded.reshape(points.shape[:-1] + decoded.shape[1:])
    return Interpolation(kind, points, frames, curve, coverage)


def _line(start: Array, end: Array, times: Array) -> Array:
    """Points ``(len(times), *batch, d)`` of straight lines."""
    share = times.reshape(-1, *(1,) * start.ndim)
    return (1 - share) * start + share * end


def _in_double(tree: Any) -> Any:
    """All arrays in double precision, where JAX has it.

    Single precision ends at e^88, which the determinant of a kernel metric passes from about twelve dimensions on.
    """
    dtype = jnp.zeros(0, float).dtype
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _equally_spaced(curve: Geodesic, times: Array) -> Array:
    """Points of the curve at equal steps of Euclidean length, ``(len(times), *batch, d)``."""
    fine = curve(jnp.linspace(0, 1, FINE + 1))
    batch, dim = fine.shape[1:-1], fine.shape[-1]

    def along(path: Array) -> Array:
        """Of one curve ``(FINE + 1, d)``."""
        steps = jnp.linalg.norm(jnp.diff(path, axis=0), axis=-1)
        passed = jnp.concatenate([jnp.zeros(1, path.dtype), jnp.cumsum(steps)])
        return jax.vmap(lambda x: jnp.interp(passed[-1] * times, passed, x), 1, 1)(path)

    points = jax.vmap(along, 1, 1)(fine.reshape(FINE + 1, -1, dim))
    return points.reshape(len(times), *batch, dim)
