"""The paper's figures, drawn from the saved arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_riemann.experiments._jobs import unpack, unpack_images
from pyro_riemann.experiments._report import Records, panels
from pyro_riemann.plotting import plot_images
from pyro_riemann.plotting._style import CLASS_COLORS, GEODESIC_COLOR, LINE_COLOR, START_COLOR, VOLUME_COLORS, sequence


def draw_all(records: Records) -> Iterator[tuple[str, Figure]]:
    """Every figure that the results allow, by name."""
    for record in records:
        for name, figure in _figures(record["settings"]["kind"], record["result"]):
            yield f"{record['settings']['dataset']}-{name}", figure


def _figures(kind: str, result: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    if kind == "digit-one":
        yield "figure1", priors(result)
        yield "figure2", digit_geodesics(result)
    elif kind == "figures":
        scene, (height, width) = result["latent_space"], result["image_shape"]
        yield "figure3", uncertainty(result["uncertainty"])
        yield "figure4", latent_space(scene)
        yield "figure5", interpolations(scene, (height, width))
        yield "figure6", brownian(scene, "learned", (height, width))
        yield "figure7", brownian(scene, "increased", (height, width))


def _map(ax: Axes, packed: dict[str, Any], box: Any, label: str, cmap: Any = VOLUME_COLORS) -> None:
    values, (low, high) = unpack(packed), np.asarray(box)
    finite = values[np.isfinite(values)]
    image = ax.imshow(
        values,
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        cmap=cmap,
        vmin=float(np.quantile(finite, 0.01)),
        vmax=float(np.quantile(finite, 0.99)),
        interpolation="bilinear",
        aspect="auto",
    )
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$", ylabel="$z_2$")


def _dots(ax: Axes, packed: dict[str, Any], labels: list[int] | None = None, color: str = "#20405f") -> None:
    codes = unpack(packed)
    colors = color if labels is None else [CLASS_COLORS[label % len(CLASS_COLORS)] for label in labels]
    ax.scatter(codes[:, 0], codes[:, 1], s=3, c=colors, linewidths=0, alpha=0.6, rasterized=True)


def _volume(ax: Axes, scene: dict[str, Any], labels: list[int] | None = None) -> None:
    _map(ax, scene["log_volume"], scene["box"], "log volume element")
    _dots(ax, scene["codes"], labels)


def priors(result: dict[str, Any]) -> Figure:
    """Figure 1: log density of the prior, and the codes."""
    figure, both = panels(10.0, 4.2, 1, 2)
    for ax, (key, title) in zip(both, (("vae", "VAE"), ("rvae", "R-VAE")), strict=True):
        scene = result[key]
        values = unpack(scene["log_prior"])
        _map(ax, scene["log_prior"], scene["box"], "log prior density", "viridis")
        ax.images[0].set_clim(float(values.max()) - 8, float(values.max()))
        _dots(ax, scene["codes"], color="white")
        ax.set_title(f"{title}: prior and codes of digit 1", fontsize="medium")
    return figure


def digit_geodesics(result: dict[str, Any]) -> Figure:
    """Figure 2."""
    figure, ax = panels(5.6, 4.4)
    _volume(ax, result["rvae"] | {"log_volume": result["log_volume"]})
    _lines(ax, unpack(result["geodesics"]["points"]))
    ax.set_title("geodesics and straight lines between codes of digit 1", fontsize="medium")
    return figure


def _lines(ax: Axes, points: np.ndarray) -> None:
    for path in points.transpose(1, 0, 2):
        ax.plot(*path[[0, -1]].T, "--", color=LINE_COLOR, lw=1.0)
        ax.plot(*path.T, color=GEODESIC_COLOR, lw=1.6)
    ends = points[[0, -1]].reshape(-1, 2)
    ax.plot(*ends.T, "o", color="black", ms=3.5, mec="white", mew=0.6, zorder=4)


def uncertainty(result: dict[str, Any]) -> Figure:
    """Figure 3."""
    figure, axes = panels(13.0, 3.2, 1, 4)
    shown = [(kind, key) for kind in ("plain", "rbf") for key in ("log_deviation", "log_volume")]
    names = {"plain": "ordinary network", "rbf": "RBF network"}
    labels = {"log_deviation": "log standard deviation", "log_volume": "log volume element"}
    for ax, (kind, key) in zip(axes, shown, strict=True):
        _map(ax, result[kind][key], result["box"], labels[key])
        _dots(ax, result["codes"])
        ax.set_title(names[kind], fontsize="medium")
    return figure


def latent_space(scene: dict[str, Any]) -> Figure:
    """Figure 4."""
    figure, ax = panels(6.2, 5.0)
    _volume(ax, scene, scene["labels"])
    ax.set_title("test codes by class on the log volume element", fontsize="medium")
    return figure


def interpolations(scene: dict[str, Any], shape: tuple[int, int]) -> Figure:
    """Figure 5: two pairs; below each, images along the geodesic and along the straight line."""
    record = scene["interpolations"]
    points = unpack(record["points"])
    figure, grid = panels(10.5, 5.8, 3, 2, height_ratios=(4, 1, 1))
    for pair in range(points.shape[1]):
        _volume(grid[0, pair], scene)
        _lines(grid[0, pair], points[:, [pair]])
        for row, (key, title) in enumerate((("images_geodesic", "geodesic"), ("images_straight", "straight line")), 1):
            plot_images(unpack_images(record[key])[pair], shape, columns=10, limits=(0, 1), ax=grid[row, pair])
            grid[row, pair].set_title(title, fontsize="small")
    return figure


def brownian(scene: dict[str, Any], key: str, shape: tuple[int, int]) -> Figure:
    """Figures 6 and 7: runs from the prior's centre, and images along four of them."""
    record = scene["brownian"][key]
    paths = unpack(record["paths"])
    figure, (left, right) = panels(10.5, 4.2, 1, 2)
    _volume(left, scene)
    for index, color in enumerate(sequence(paths.shape[1])):
        left.plot(*paths[:, index].T, color=color, lw=0.8)
    left.plot(*paths[0, 0], "*", color=START_COLOR, ms=13, mec="white", zorder=5)
    left.set_title(f"Brownian motion, time {record['time']:.3g}", fontsize="medium")
    images = unpack_images(record["images"])
    plot_images(images.flatten(0, 1), shape, columns=images.shape[1], limits=(0, 1), ax=right)
    right.set_title("decoded along four runs", fontsize="medium")
    return figure
