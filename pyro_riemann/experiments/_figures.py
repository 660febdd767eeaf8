"""The figures of the quickstart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_riemann._store import make_folder, write_file
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.plotting import (
    plot_brownian_paths,
    plot_chains,
    plot_decoded_curves,
    plot_geodesics,
    plot_images,
    plot_latent_space,
)

Decode = Callable[[Tensor], Tensor]


def new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot's registry, so that none stays open."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure in one step; errors as :func:`pyro_riemann._store.write_file`."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=dpi, bbox_inches="tight")
    make_folder(path.parent)
    write_file(path, drawn.getvalue())


def latent_space(metric: RiemannianMetric, codes: Tensor, labels: Tensor, loc: Tensor, box: Tensor) -> Figure:
    """Log volume element, test codes by class, centre of the prior."""
    figure = new_figure(6.6, 5.8)
    ax = plot_latent_space(metric, codes, labels, low=box[0], high=box[1], ax=figure.subplots())
    ax.plot(*loc.cpu(), "*", color="black", ms=14, mec="white", mew=1.0, zorder=5)
    ax.set_title("test codes on the log volume element; star: centre of the prior", fontsize="medium")
    return figure


def geodesics(
    metric: RiemannianMetric, curves: Geodesic, shown: Geodesic, decode: Decode, shape: tuple[int, int], box: Tensor
) -> Figure:
    """Geodesics against straight lines, and decoded images along one pair of them."""
    figure = new_figure(7.4, 7.6)
    halves: Any = figure.subfigures(2, 1, height_ratios=(5.4, 1.7))
    top, bottom = halves
    ax = plot_latent_space(metric, low=box[0], high=box[1], ax=top.subplots())
    plot_geodesics(curves, ax)
    ax.set_xlim(*box[:, 0].tolist())
    ax.set_ylim(*box[:, 1].tolist())
    frames = bottom.subplots(2, 1)
    plot_decoded_curves(decode, shown, shape, limits=(0, 1), axes=frames)
    frames[0].set_title("decoded along the pair whose straight line is the longest detour", fontsize="medium")
    return figure


def brownian(metric: RiemannianMetric, loc: Tensor, time: Tensor, box: Tensor, num_paths: int = 40) -> Figure:
    """Brownian paths from the centre of the prior, run for the prior's time."""
    with torch.no_grad():
        paths = brownian_motion(metric, loc.expand(num_paths, 2), time, num_steps=200, return_path=True)
    figure = new_figure(6.6, 5.6)
    ax = plot_latent_space(metric, low=box[0], high=box[1], ax=figure.subplots())
    plot_brownian_paths(paths, ax)
    ax.set_xlim(*box[:, 0].tolist())
    ax.set_ylim(*box[:, 1].tolist())
    ax.set_title(f"Brownian motion from the prior's centre, time {float(time):.3g}", fontsize="medium")
    return figure


def samples(images: dict[str, Tensor], shape: tuple[int, int], columns: int = 10) -> Figure:
    """Grids of images side by side, each under its name."""
    figure = new_figure(4.2 * len(images), 4.5)
    for ax, (name, rows) in zip(figure.subplots(1, len(images), squeeze=False)[0], images.items(), strict=True):
        plot_images(rows, shape, columns=columns, limits=(0, 1), ax=ax)
        ax.set_title(name, fontsize="medium")
    return figure


def chains(data: Any) -> Figure:
    """Traces and ranks of the latent posterior's chains."""
    figure = new_figure(9.0, 4.2)
    plot_chains(data, axes=figure.subplots(2, 2))
    return figure
