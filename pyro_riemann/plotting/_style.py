"""Colours, axes and conversions that all figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
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


#: Along a path, from its start to its end: a perceptually uniform map without its lightest colours.
TIME_COLORS = ListedColormap(plt.get_cmap("viridis")(np.linspace(0.0, 0.85, 256)), name="time")
#: Between images, and where there is none.
GAP_COLOR = "#dcdcdc"


def new_axes(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    return plt.subplots(figsize=(5.6, 5.0), layout="constrained")[1] if ax is None else ax


def sequence(count: int) -> np.ndarray:
    """Evenly spaced dark colours of a perceptually uniform map, ``(count, 4)``."""
    return TIME_COLORS(np.linspace(0.0, 1.0, count))


def to_numpy(value: Any) -> np.ndarray:
    """An array from a tensor of any device, or from anything NumPy takes."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
