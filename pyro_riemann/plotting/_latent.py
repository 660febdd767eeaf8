"""The chart of a two-dimensional latent space: volume element, codes, geodesics, Brownian paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from torch import Tensor

from pyro_riemann._work import announced
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.plotting._style import (
    CLASS_COLORS,
    GEODESIC_COLOR,
    LINE_COLOR,
    START_COLOR,
    TIME_COLORS,
    VOLUME_COLORS,
    new_axes,
    to_numpy,
)

Box = float | Sequence[float] | Tensor


@announced
def plot_latent_space(
    metric: RiemannianMetric,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    low: Box | None = None,
    high: Box | None = None,
    resolution: int = 200,
    ax: Axes | None = None,
) -> Axes:
    r"""Log volume element :math:`\tfrac12\log\det G` over a box, with encoded data on top.

    Args:
        metric: a metric with ``dim == 2``.
        codes: ``(n, 2)`` latent codes.
        labels: ``(n,)`` integer classes that colour the codes.
        low: lower corner of the box, a number or two; by default around the codes or, without these, that of a table.
        high: upper corner of the box.
        resolution: pixels along each axis.
        ax: axes to draw on.

    Returns:
        The axes: one image (its colour scale ends at the 1 % and 99 % quantiles), and a scatter a class.

    Raises:
        ValueError: if the metric is not two-dimensional, a shape does not fit, or the box is unknown.

    Example:
        >>> ax = plot_latent_space(EuclideanMetric(2), low=-1, high=1, resolution=16)
        >>> ax.images[0].get_array().shape
        (16, 16)
    """
    _check_plane("metric", metric.dim)
    points = None if codes is None else _plane("codes", codes)
    corners = _box(metric, points, low, high)
    volume = log_volume_element(metric, corners[0], corners[1], resolution)
    ax = new_axes(ax)
    shown = volume[np.isfinite(volume)]
    scale = Normalize(*np.quantile(shown, [0.01, 0.99])) if np.ptp(shown) > 0 else None
    image = ax.imshow(
        volume,
        origin="lower",
        extent=(corners[0][0], corners[1][0], corners[0][1], corners[1][1]),
        cmap=VOLUME_COLORS,
        norm=scale,
        interpolation="bilinear",
        aspect="equal",
    )
    # inset, so that the bar is as high as the axes whatever their aspect
    bar = ax.figure.colorbar(
        image, cax=ax.inset_axes((1.03, 0, 0.035, 1)), extend="both" if scale else "neither", extendfrac=0.03
    )
    bar.set_label(r"log volume element  $\frac{1}{2}\log\,\det G$")
    bar.outline.set_visible(False)
    if points is not None:
        _scatter_classes(ax, points, labels)
    _label_plane(ax, corners)
    return ax


@announced
def log_volume_element(
    metric: RiemannianMetric, low: Sequence[float], high: Sequence[float], resolution: int
) -> np.ndarray:
    """Log of the volume element of dM, ``metric.logdet / 2``, at the pixels of a box, ``(resolution, resolution)``.

    Args:
        metric: a metric with ``dim == 2``.
        low: lower corner of the box, two numbers.
        high: upper corner.
        resolution: pixels along each axis, taken at their centres; the second axis of the chart goes along the rows.

    Example:
        >>> log_volume_element(EuclideanMetric(2), (-1.0, -1.0), (1.0, 1.0), resolution=4).shape
        (4, 4)
    """
    like = _like(metric)
    centres = (torch.arange(resolution, dtype=like.dtype, device=like.device) + 0.5) / resolution
    first, second = (low[axis] + centres * (high[axis] - low[axis]) for axis in (0, 1))
    grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():  # in blocks: a decoder's Jacobian is a thousand numbers a pixel
        values = torch.cat([metric.logdet(block) / 2 for block in grid.split(2048)])
    return to_numpy(values).reshape(resolution, resolution)


@announced
def plot_geodesics(curves: Geodesic, ax: Axes | None = None, *, straight: bool = True) -> Axes:
    """Geodesics of a batch of pairs, with the straight lines between the same ends.

    Args:
        curves: what ``metric.geodesic(z, y)`` returned, d = 2.
        ax: axes to draw on, for instance those of :func:`plot_latent_space`.
        straight: whether to draw the straight lines too.

    Returns:
        The axes; a geodesic that did not converge is dotted.

    Raises:
        ValueError: if the curves are not two-dimensional.

    Example:
        >>> curves = EuclideanMetric(2).geodesic(torch.zeros(3, 2), torch.randn(3, 2))
        >>> len(plot_geodesics(curves).lines)
        7
    """
    points = _plane("curves.points", curves.points)
    paths = points.reshape(points.shape[0], -1, 2)
    converged = to_numpy(curves.converged).reshape(-1)
    ax = new_axes(ax)
    handles = []
    for index in range(paths.shape[1]):
        if straight:
            handles += ax.plot(*paths[[0, -1], index].T, "--", color=LINE_COLOR, lw=1.3, label="straight line")
        style = "-" if converged[index] else ":"
        handles += ax.plot(*paths[:, index].T, style, color=GEODESIC_COLOR, lw=1.9, label="geodesic")
    ends = paths[[0, -1]].reshape(-1, 2)
    ax.plot(*ends.T, "o", color="black", ms=4.5, mec="white", mew=0.8, zorder=4)
    _legend(ax, handles[: 1 + straight])
    _label_plane(ax)
    return ax


@announced
def plot_brownian_paths(
    paths: Tensor, ax: Axes | None = None, *, time: float | Tensor | None = None, show_ends: bool = True
) -> Axes:
    """Brownian paths coloured by time, and where they start and end.

    Args:
        paths: ``(num_steps + 1, *batch, 2)``, as from ``brownian_motion(..., return_path=True)``.
        ax: axes to draw on.
        time: variance of small steps over the whole path, a number or ``()``: how long it ran, for the legend of
            colours; by default that shows shares of the time.
        show_ends: whether to mark the end points.

    Returns:
        The axes: a collection of segments for each path, one line for the starts and one for the ends.

    Raises:
        ValueError: if ``paths`` has another shape.

    Example:
        >>> ax = plot_brownian_paths(torch.randn(10, 5, 2).cumsum(0), time=0.5)
        >>> len(ax.collections), len(ax.lines)
        (5, 2)
    """
    points = _plane("paths", paths)
    if points.ndim < 2 or points.shape[0] < 2:
        raise ValueError(f"`paths` must have shape (num_steps + 1, *batch, 2), got {tuple(points.shape)}.")
    flat = points.reshape(points.shape[0], -1, 2)
    ax = new_axes(ax)
    end = 1.0 if time is None else float(time)
    scale = Normalize(0.0, end)
    middles = (np.arange(len(flat) - 1) + 0.5) / (len(flat) - 1) * end
    for path in flat.swapaxes(0, 1):
        pieces = LineCollection(list(np.stack([path[:-1], path[1:]], 1)), cmap=TIME_COLORS, norm=scale, lw=0.9)
        pieces.set_array(middles)
        ax.add_collection(pieces)
    _time_legend(ax, end, "share of the time" if time is None else "time")
    starts = np.unique(flat[0], axis=0)
    handles = ax.plot(*starts.T, "*", ls="", color=START_COLOR, ms=13, mec="white", mew=0.9, zorder=5, label="start")
    if show_ends:
        handles += ax.plot(
            *flat[-1].T, "o", color=GEODESIC_COLOR, ls="", ms=4, mec="white", mew=0.5, label="end", zorder=4
        )
    ax.autoscale_view()
    _legend(ax, handles)
    _label_plane(ax)
    return ax


def _time_legend(ax: Axes, end: float, label: str) -> None:
    """A small bar of the colours of time, within the axes."""
    bar = ax.figure.colorbar(
        ScalarMappable(Normalize(0.0, end), TIME_COLORS),
        cax=ax.inset_axes((0.05, 0.09, 0.3, 0.025)),
        orientation="horizontal",
    )
    bar.set_ticks([0.0, end], labels=["0", f"{end:.3g}"])
    bar.ax.tick_params(labelsize="small", length=0, pad=2)
    bar.ax.set_title(label, fontsize="small", pad=3)
    bar.outline.set_visible(False)
    for text in (bar.ax.title, *bar.ax.get_xticklabels()):
        text.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0})


def _scatter_classes(ax: Axes, points: np.ndarray, labels: Tensor | None) -> None:
    style: dict[str, Any] = {"s": 5, "linewidths": 0, "alpha": 0.85, "rasterized": True}
    if labels is None:
        ax.scatter(*points.T, color=LINE_COLOR, **style)
        return
    classes = to_numpy(labels).astype(int)
    if classes.shape != points.shape[:1]:
        raise ValueError(f"`labels` must have shape {points.shape[:1]}, one for each code, got {classes.shape}.")
    for value in np.unique(classes):
        ax.scatter(
            *points[classes == value].T, color=CLASS_COLORS[value % len(CLASS_COLORS)], label=str(value), **style
        )
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=10, frameon=False, markerscale=3, fontsize="small",
        handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip


def _legend(ax: Axes, handles: list[Any]) -> None:
    classes = ax.get_legend()
    ax.legend(handles=handles, loc="upper right", frameon=True, framealpha=0.9, fontsize="small")
    if classes is not None:  # axes keep one legend: the older one is put back as a plain artist
        ax.add_artist(classes)


def _label_plane(ax: Axes, corners: tuple[list[float], list[float]] | None = None) -> None:
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    ax.set_aspect("equal")
    if corners is not None:
        ax.set_xlim(corners[0][0], corners[1][0])
        ax.set_ylim(corners[0][1], corners[1][1])


def _box(
    metric: RiemannianMetric, points: np.ndarray | None, low: Box | None, high: Box | None
) -> tuple[list[float], list[float]]:
    """The two corners: as given, else the metric's own box, else around the codes."""
    corners = []
    for name, value, side in (("low", low, np.min), ("high", high, np.max)):
        if value is None and points is None and (table := metric.tabulated()) is not None:
            value = table.table.low if name == "low" else table.table.high
        if value is None and points is None:
            raise ValueError(f"`{name}` must be given where there are no `codes` to frame.")
        if value is None:
            assert points is not None
            margin = 0.08 * np.ptp(points, axis=0) * (1 if side is np.max else -1)
            corners.append((side(points, axis=0) + margin).tolist())
            continue
        corner = np.asarray(to_numpy(value) if isinstance(value, Tensor) else value, dtype=float)
        corners.append(np.broadcast_to(corner, (2,)).tolist())
    if not (np.asarray(corners[0]) < np.asarray(corners[1])).all():
        raise ValueError(f"`low` must be below `high`, got {corners[0]} and {corners[1]}.")
    return corners[0], corners[1]


def _like(metric: RiemannianMetric) -> Tensor:
    """A tensor with the metric's dtype and device."""
    for tensor in (*metric.parameters(), *metric.buffers()):
        if tensor.dtype.is_floating_point:
            return tensor.detach()
    return torch.empty(0)


def _plane(name: str, value: Tensor) -> np.ndarray:
    array = to_numpy(value)
    _check_plane(name, array.shape[-1] if array.ndim else 0)
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` has NaN or infinite entries.")
    return array


def _check_plane(name: str, dim: int) -> None:
    if dim != 2:
        raise ValueError(f"Latent plots need a two-dimensional chart, but `{name}` has dimension {dim}.")
