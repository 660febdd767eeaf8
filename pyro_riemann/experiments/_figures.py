"""The figures of the quickstart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_riemann._files import make_folder, write_file
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
from pyro_riemann.plotting._style import GEODESIC_COLOR

Decode = Callable[[Tensor], Tensor]


def new_figure(width: float, height: float) -> Figure:
    """A figure outside pyplot's registry, so that none stays open."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure in one step; errors as :func:`pyro_riemann._files.write_file`."""
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
    metric: RiemannianMetric,
    curves: Geodesic,
    shown: Geodesic,
    decode: Decode,
    beside: Tensor,
    shape: tuple[int, int],
    box: Tensor,
) -> Figure:
    """Geodesics against straight lines, and decoded images along one pair of them; ``beside``: the plain VAE's row."""
    figure = new_figure(7.4, 8.4)
    halves: Any = figure.subfigures(2, 1, height_ratios=(5.4, 2.5))
    top, bottom = halves
    ax = plot_latent_space(metric, low=box[0], high=box[1], ax=top.subplots())
    plot_geodesics(curves, ax)
    for name, end in zip("AB", shown.points[[0, -1]].cpu().tolist(), strict=True):
        ax.annotate(name, end, (5, 4), textcoords="offset points", weight="bold", zorder=6)
    ax.set_xlim(*box[:, 0].tolist())
    ax.set_ylim(*box[:, 1].tolist())
    rows = bottom.subplots(3, 1)
    plot_decoded_curves(decode, shown, shape, limits=(0, 1), axes=rows[:2])
    plot_images(beside, shape, columns=len(beside), limits=(0, 1), ax=rows[2])
    for row, name in zip(rows, ("R-VAE, straight", "R-VAE, geodesic", "plain VAE, straight"), strict=True):
        row.set_ylabel(name.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize="medium")
    rows[0].set_title("decoded from A to B, of all pairs the one whose first two rows differ most", fontsize="medium")
    return figure


def brownian(
    metric: RiemannianMetric, loc: Tensor, time: Tensor, box: Tensor, num_paths: int = 5, num_ends: int = 200
) -> Figure:
    """Brownian motion from the centre of the prior, for the prior's time: some paths, and where more of them end."""
    with torch.no_grad():
        paths = brownian_motion(metric, loc.expand(num_ends, 2), time, num_steps=200, return_path=True)
    figure = new_figure(6.6, 5.6)
    ax = plot_latent_space(metric, low=box[0], high=box[1], ax=figure.subplots())
    ax.plot(*paths[-1, num_paths:].T.cpu(), "o", ls="", color=GEODESIC_COLOR, ms=2.5, mew=0, alpha=0.6)
    plot_brownian_paths(paths[:, :num_paths], ax, time=time)
    ax.set_xlim(*box[:, 0].tolist())
    ax.set_ylim(*box[:, 1].tolist())
    ax.set_title(f"Brownian motion from the prior's centre: {num_paths} paths, {num_ends} ends", fontsize="medium")
    return figure


def samples(images: dict[str, Tensor], shape: tuple[int, int], columns: int = 8) -> Figure:
    """Grids of images side by side, each under its name."""
    figure = new_figure(4.2 * len(images), 4.5)
    figure.set_layout_engine("constrained", wspace=0.06)
    for ax, (name, rows) in zip(figure.subplots(1, len(images), squeeze=False)[0], images.items(), strict=True):
        plot_images(rows, shape, columns=columns, limits=(0, 1), ax=ax)
        ax.set_title(name, fontsize="large")
    return figure


def chains(data: Any) -> Figure:
    """Traces and ranks of the latent posterior's chains."""
    figure = new_figure(9.0, 4.2)
    plot_chains(data, axes=figure.subplots(2, 2))
    return figure
