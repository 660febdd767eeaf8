"""Decoded interpolations, one row each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pyro_riemann._work import announced
from pyro_riemann.plotting._images import _scale, _show_image, _tile, image_size
from pyro_riemann.plotting._style import GEODESIC_COLOR, LINE_COLOR, START_COLOR
from pyro_riemann.sampling import Interpolation

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
