"""Interpolations between codes: points of a curve in latent space, and what a decoder makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_riemann._checks import check_finite, check_one_of, check_point
from pyro_riemann._formulas.codes import BARE, FINE, KINDS, LOOKS, NOT_FINITE, ON_FLOOR, data_of
from pyro_riemann._formulas.unit_samplers import check_count
from pyro_riemann._modes import full_precision
from pyro_riemann._warn import warn
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Points along curves between pairs of codes.

    Attributes:
        kind: ``"line"``, ``"geodesic"`` or ``"volume"``.
        points: ``(num_frames, *batch, d)``, at equal steps of length in the chart.
        frames: what the decoder returned for them, ``(num_frames, *batch, *data)``; None without a decoder.
        curve: the curve in full, with its length in the metric that it minimises and ``converged``; None for lines. In
            double precision for ``"volume"``.
        coverage: share of the curve where the metric is not just its floor; None without a floor, and for lines.

    Example:
        >>> interpolate(EuclideanMetric(2), torch.zeros(2), torch.ones(2), num_frames=3).points[1]
        tensor([0.5000, 0.5000])
    """

    kind: str
    points: Tensor
    frames: Tensor | None
    curve: Geodesic | None
    coverage: float | None = None


@full_precision
def interpolate(
    metric: RiemannianMetric,
    start: Tensor,
    end: Tensor,
    decoder: Callable[[Tensor], Any] | None = None,
    kind: str = "geodesic",
    num_frames: int = 10,
    **settings: Any,
) -> Interpolation:
    r"""Interpolate between codes along a curve of the metric, and decode it.

    ``"geodesic"`` minimises the length in the metric G. ``"volume"`` minimises

    .. math:: \int_0^1 \frac{|\gamma'(t)|}{\sqrt{\det G(\gamma(t))}}\, dt,

    the length in :meth:`metric.conformal() <pyro_riemann.metrics.RiemannianMetric.conformal>`: such a curve keeps to
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
        **settings: of the geodesic solver, see :class:`~pyro_riemann.geodesics.GeodesicSolver`; also ``init``.

    Returns:
        Points and frames. A warning counts the curves that did not converge: where the determinant spans tens of
        orders of magnitude, as for kernel metrics of narrow posteriors in more than a few dimensions, the curve is only
        the best one found. Another one tells that a curve lies on the metric's floor, where it is no more than the
        straight line.

    Raises:
        TypeError, ValueError: naming the argument at fault; ValueError for curves that are not finite.

    Source: Chadebec & Allassonniere (2022), eq. 8 and Figure 1.

    Example:
        >>> angle = torch.linspace(0, torch.pi, 9)
        >>> arc = torch.stack([angle.cos(), angle.sin()], -1)
        >>> metric = KernelMetric(arc, torch.full_like(arc, 16.0), bandwidth=1.5)
        >>> path = interpolate(metric, arc[0], arc[-1], decoder=lambda z: z.norm(dim=-1), kind="volume")
        >>> path.points.shape, bool(path.frames.min() > 0.8)  # it follows the arc
        (torch.Size([10, 2]), True)
    """
    check_one_of("kind", kind, KINDS)
    check_count("num_frames", num_frames, 2)
    for name, code in (("start", start), ("end", end)):
        check_finite(name, check_point(name, code, metric.dim))
    start, end = torch.broadcast_tensors(start.detach(), end.detach())
    curve, coverage = None, None
    times = torch.linspace(0, 1, num_frames, dtype=start.dtype, device=start.device)
    if kind == "line":
        if settings:
            raise TypeError(f'kind "line" takes no settings, got {", ".join(settings)}.')
        points = torch.stack([torch.lerp(start, end, time) for time in times])
    else:
        with torch.no_grad():
            if kind == "volume":
                curve = _volume_metric(metric, start, end).geodesic(start.double(), end.double(), **settings)
            else:
                curve = metric.geodesic(start, end, **settings)
            points = _equally_spaced(curve, times).to(start.dtype)
            if not bool(torch.isfinite(points).all() & torch.isfinite(curve.length).all()):
                raise ValueError(NOT_FINITE.format(kind=kind))
            coverage = _coverage(metric, points)
    frames = None
    if decoder is not None:
        with torch.no_grad():
            decoded = data_of(decoder(points.reshape(-1, metric.dim)), Tensor, Distribution)
        frames = decoded.reshape(points.shape[:-1] + decoded.shape[1:])
    return Interpolation(kind, points, frames, curve, coverage)


def _volume_metric(metric: RiemannianMetric, start: Tensor, end: Tensor) -> RiemannianMetric:
    """The conformal metric in double precision, its factor 1 in the middle of its range along the straight lines.

    Single precision ends at e^88, which the determinant of a kernel metric passes from about twelve dimensions on.
    """
    wide = copy.deepcopy(metric).double()
    steps = torch.linspace(0, 1, LOOKS, dtype=torch.float64, device=start.device)
    line = torch.stack([torch.lerp(start.double(), end.double(), step) for step in steps])
    low, high = wide.logdet(line).aminmax()
    return wide.conformal(float(low + high) / 2)


def _coverage(metric: RiemannianMetric, points: Tensor) -> float | None:
    """Share of the points where the metric is not just its floor, with a warning where that is nearly none."""
    known = metric.coverage(points)
    if known is None:
        return None
    coverage = float(known)
    if coverage < BARE:
        warn(ON_FLOOR.format(coverage=coverage))
    return coverage


def _equally_spaced(curve: Geodesic, times: Tensor) -> Tensor:
    """Points of the curve at equal steps of Euclidean length, ``(len(times), *batch, d)``."""
    fine = curve(torch.linspace(0, 1, FINE + 1, dtype=times.dtype, device=times.device))
    times = times.to(fine)
    batch, dim = fine.shape[1:-1], fine.shape[-1]
    path = fine.reshape(FINE + 1, -1, dim).transpose(0, 1)  # (batch, fine, d)
    passed = torch.cat([torch.zeros_like(path[:, :1, 0]), path.diff(dim=1).norm(dim=-1).cumsum(1)], dim=1)
    wanted = passed[:, -1:] * times
    after = torch.searchsorted(passed.contiguous(), wanted.contiguous()).clamp(1, FINE)
    left, right = passed.gather(1, after - 1), passed.gather(1, after)
    share = ((wanted - left) / (right - left).clamp(min=torch.finfo(times.dtype).tiny)).unsqueeze(-1)
    before_point, after_point = (path.gather(1, i.unsqueeze(-1).expand(-1, -1, dim)) for i in (after - 1, after))
    points = torch.lerp(before_point, after_point, share)
    return points.transpose(0, 1).reshape(len(times), *batch, dim)
