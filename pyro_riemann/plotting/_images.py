"""Decoded images: grids, and frames along curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from torch import Tensor

from pyro_riemann._work import announced
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.plotting._style import GAP_COLOR, GEODESIC_COLOR, LINE_COLOR, new_axes, to_numpy


@announced
def plot_decoded_curves(
    decode: Callable[[Tensor], Tensor],
    curve: Geodesic,
    image_shape: tuple[int, int],
    *,
    num_frames: int = 10,
    limits: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Decoded images along the straight line (first axes) and along the geodesic (second axes).

    Args:
        decode: maps ``(n, d)`` to images ``(n, height * width)`` or ``(n, height, width)``.
        curve: one geodesic, ``points`` of shape ``(N + 1, d)``, any d.
        image_shape: ``(height, width)``.
        num_frames: images a row, at equal times.
        limits: values shown as white and as black; those of the frames by default.
        axes: two axes to draw on.

    Returns:
        The two axes, an array of shape ``(2,)``; each holds one image, the frames side by side on a common scale.

    Raises:
        ValueError: if ``curve`` is a batch, or the decoded images do not have this shape.

    Example:
        >>> curve = EuclideanMetric(2).geodesic(torch.zeros(2), torch.ones(2))
        >>> axes = plot_decoded_curves(lambda z: z[:, :1] + torch.zeros(4), curve, (2, 2), num_frames=5)
        >>> axes[1].images[0].get_array().shape
        (2, 14)
    """
    if curve.points.dim() != 2:
        raise ValueError(f"`curve` must be a single geodesic with points (N + 1, d), got {tuple(curve.points.shape)}.")
    times = torch.linspace(0, 1, num_frames, dtype=curve.points.dtype, device=curve.points.device)
    start, end = curve.points[0], curve.points[-1]
    with torch.no_grad():
        rows = [decode(start + times[:, None] * (end - start)), decode(curve(times))]
    if axes is None:
        height, width = image_shape
        size = (num_frames * 0.8 + 0.9, 1.7 * height / width + 0.1)
        axes = plt.subplots(2, 1, figsize=size, layout="constrained")[1]
    assert axes is not None
    frames = [_tile(row, image_shape, (1, num_frames)) for row in rows]
    scale = _scale(frames, limits)
    for ax, row, name, color in zip(
        axes, frames, ("straight\nline", "geodesic"), (LINE_COLOR, GEODESIC_COLOR), strict=True
    ):
        _show_image(ax, row, scale)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", color=color)
    return np.asarray(axes, dtype=object)


def plot_images(
    images: Tensor,
    image_shape: tuple[int, int],
    *,
    columns: int = 10,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of grey images, row by row.

    Args:
        images: ``(n, height * width)`` or ``(n, height, width)``.
        image_shape: ``(height, width)``.
        columns: images a row; the last row is filled up with blanks.
        limits: values shown as white and as black; those of the images by default.
        ax: axes to draw on.

    Returns:
        The axes, with one image.

    Raises:
        ValueError: if the images do not have this shape.

    Example:
        >>> plot_images(torch.rand(7, 64), (8, 8), columns=4).images[0].get_array().shape
        (17, 35)
    """
    columns = min(columns, len(images))
    tiles = _tile(images, image_shape, (-(-len(images) // columns), columns))
    ax = new_axes(ax)
    _show_image(ax, tiles, _scale([tiles], limits))
    return ax


def _tile(images: Tensor, image_shape: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Images ``(n, height, width)`` side by side, one blank pixel (NaN) after each, NaN where a cell has none."""
    height, width = image_shape
    array = to_numpy(images)
    if array.ndim < 2 or array[0].size != height * width:
        raise ValueError(f"`image_shape` {image_shape} does not fit images of shape {tuple(array.shape[1:])}.")
    rows, columns = grid
    cells = np.full((rows * columns, height + 1, width + 1), np.nan)
    cells[: len(array), :-1, :-1] = array.reshape(-1, height, width)
    tiles = cells.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    return tiles.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def _scale(images: Sequence[np.ndarray], limits: tuple[float, float] | None) -> Normalize:
    low, high = limits or (min(map(np.nanmin, images)), max(map(np.nanmax, images)))
    return Normalize(low, high)


def _show_image(ax: Axes, image: np.ndarray, scale: Normalize) -> None:
    cmap = plt.get_cmap("gray_r").with_extremes(bad=GAP_COLOR)  # images end where the ground begins
    ax.imshow(image, cmap=cmap, norm=scale, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
