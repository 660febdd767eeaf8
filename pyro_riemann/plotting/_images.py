"""Decoded images: grids, and frames along curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from torch import Tensor

from pyro_riemann._work import announced
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.plotting._style import GAP_COLOR, GEODESIC_COLOR, LINE_COLOR, START_COLOR, new_axes, to_numpy
from pyro_riemann.sampling import Interpolation


@announced
def plot_decoded_curves(
    decode: Callable[[Tensor], Tensor],
    curve: Geodesic,
    image_shape: tuple[int, ...],
    *,
    num_frames: int = 10,
    limits: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Decoded images along the straight line (first axes) and along the geodesic (second axes).

    Args:
        decode: maps ``(n, d)`` to images, as rows ``(n, D)`` or ``(n, *image_shape)``.
        curve: one geodesic, ``points`` of shape ``(N + 1, d)``, any d.
        image_shape: ``(height, width)``, or ``(channels, height, width)`` with 1 or 3 channels.
        num_frames: images a row, at equal times.
        limits: values shown as white and as black, of colours as dark and as full; those of the frames by default.
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
        height, width = image_shape[-2:]
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
    image_shape: tuple[int, ...],
    *,
    columns: int = 10,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of grey or coloured images, row by row.

    Args:
        images: rows ``(n, D)``, or ``(n, *image_shape)``.
        image_shape: ``(height, width)``, or ``(channels, height, width)`` with 1 channel or 3: red, green, blue.
        columns: images a row; the last row is filled up with blanks.
        limits: values shown as white and as black, of colours as dark and as full; those of the images by default.
        ax: axes to draw on.

    Returns:
        The axes, with one image.

    Raises:
        ValueError: if the images do not have this shape.

    Example:
        >>> plot_images(torch.rand(7, 64), (8, 8), columns=4).images[0].get_array().shape
        (17, 35)
        >>> plot_images(torch.rand(7, 3, 4, 6), (3, 4, 6), columns=4).images[0].get_array().shape
        (9, 27, 3)
    """
    columns = min(columns, len(images))
    tiles = _tile(images, image_shape, (-(-len(images) // columns), columns))
    ax = new_axes(ax)
    _show_image(ax, tiles, _scale([tiles], limits))
    return ax


def _tile(images: Tensor, image_shape: tuple[int, ...], grid: tuple[int, int]) -> np.ndarray:
    """Images side by side, ``(height, width)`` or ``(height, width, 3)``: one blank pixel (NaN) after each, NaN where a
    cell has none."""
    channels, height, width = image_size(image_shape)
    array = to_numpy(images)
    given, fitting = array.shape[1:], [(channels * height * width,), (channels, height, width)]
    if given not in (fitting if channels > 1 else [*fitting, (height, width)]):
        raise ValueError(f"`image_shape` {tuple(image_shape)} does not fit images of shape {tuple(given)}.")
    rows, columns = grid
    cells = np.full((rows * columns, channels, height + 1, width + 1), np.nan)
    cells[: len(array), :, :-1, :-1] = array.reshape(-1, channels, height, width)
    tiles = cells.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    shown = tiles.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return shown[..., 0] if channels == 1 else shown


def image_size(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of images of this shape, grey or of three colours.

    Raises:
        ValueError: if it is not (height, width) or (channels, height, width) with 1 or 3 channels.
    """
    sizes = tuple(int(side) for side in image_shape)
    channels = sizes[0] if len(sizes) == 3 else 1
    if len(sizes) not in (2, 3) or min(sizes) < 1 or channels not in (1, 3):
        raise ValueError(
            "`image_shape` must be (height, width), or (channels, height, width) with 1 channel or 3, got "
            f"{tuple(image_shape)}."
        )
    return channels, sizes[-2], sizes[-1]


def _scale(images: Sequence[np.ndarray], limits: tuple[float, float] | None) -> Normalize:
    low, high = limits or (min(map(np.nanmin, images)), max(map(np.nanmax, images)))
    return Normalize(low, high)


def _show_image(ax: Axes, image: np.ndarray, scale: Normalize) -> None:
    cmap = plt.get_cmap("gray_r").with_extremes(bad=GAP_COLOR)  # images end where the ground begins
    if image.ndim == 3:  # of colours matplotlib scales nothing itself
        image = np.where(np.isnan(image), to_rgb(GAP_COLOR), np.clip(scale(image), 0, 1))
    ax.imshow(image, cmap=cmap, norm=scale, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


_ROWS = {
    "line": ("straight\nline", LINE_COLOR),
    "geodesic": ("geodesic", GEODESIC_COLOR),
    "volume": ("largest\nvolume", START_COLOR),
}


@announced
def plot_interpolations(
    rows: Sequence[Interpolation],
    image_shape: tuple[int, ...],
    *,
    limits: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Decoded frames of several curves between the same two codes, one row a curve.

    Args:
        rows: what :func:`pyro_riemann.sampling.interpolate` returned for one pair, with a decoder.
        image_shape: ``(height, width)``, or ``(channels, height, width)`` with 1 or 3 channels.
        limits: values shown as white and as black, of colours as dark and as full; those of the frames by default.
        axes: one for each row.

    Returns:
        The axes, an array ``(n,)`` for n rows; each holds one image, its frames side by side on a common scale.

    Raises:
        ValueError: if there are no frames, those of a batch, or images of another shape.

    Example:
        >>> from pyro_riemann.sampling import interpolate
        >>> decode = lambda z: z[:, :1] + torch.zeros(4)
        >>> ends = torch.zeros(2), torch.ones(2)
        >>> rows = [interpolate(EuclideanMetric(2), *ends, decode, kind) for kind in ("line", "geodesic", "volume")]
        >>> len(plot_interpolations(rows, (2, 2)))
        3
    """
    if not rows:
        raise ValueError("`rows` is empty: there is nothing to show.")
    for row in rows:
        if row.frames is None or row.points.dim() != 2:
            raise ValueError(
                "`rows` must be interpolations of a single pair, made with a decoder; got points "
                f"{tuple(row.points.shape)} and {'no frames' if row.frames is None else 'frames'}."
            )
    frames = [_tile(row.frames, image_shape, (1, len(row.points))) for row in rows if row.frames is not None]
    if axes is None:
        _, height, width = image_size(image_shape)
        size = (max(len(row.points) for row in rows) * 0.8 + 0.9, len(rows) * (0.8 * height / width + 0.05) + 0.1)
        axes = list(plt.subplots(len(rows), 1, figsize=size, layout="constrained", squeeze=False)[1][:, 0])
    if len(axes) != len(rows):
        raise ValueError(f"`axes` has {len(axes)} entries for {len(rows)} rows.")
    scale = _scale(frames, limits)
    for ax, image, row in zip(axes, frames, rows, strict=True):
        name, color = _ROWS[row.kind]
        _show_image(ax, image, scale)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", color=color)
    return np.asarray(axes, dtype=object)
