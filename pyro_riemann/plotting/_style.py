"""Colours, axes and conversions that all figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

#: White to middle grey, linear in lightness: leaves room for coloured codes and curves on top.
VOLUME_COLORS = LinearSegmentedColormap.from_list("volume", ["#ffffff", "#6f6f6f"])
LINE_COLOR = "#0072B2"
GEODESIC_COLOR = "#D55E00"
START_COLOR = "#009E73"
DIVERGENCE_COLOR = "#CC3311"
#: Ten colours of equal weight on grey (Paul Tol's "bright" and "muted" schemes, safe for colour blindness).
CLASS_COLORS = (
    "#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#EE7733", "#332288", "#999933", "#882255",
)  # fmt: skip


def new_axes(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    return plt.subplots(figsize=(5.6, 5.0), layout="constrained")[1] if ax is None else ax


def sequence(count: int) -> np.ndarray:
    """Evenly spaced dark colours of a perceptually uniform map, ``(count, 4)``."""
    return plt.get_cmap("viridis")(np.linspace(0.0, 0.85, count))


def to_numpy(value: Any) -> np.ndarray:
    """An array from a tensor of any device, or from anything NumPy takes."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
