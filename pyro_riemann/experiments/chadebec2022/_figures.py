"""Figures of the report, from the saved results alone."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_riemann.experiments._jobs import unpack, unpack_images
from pyro_riemann.experiments._report import new_figure, panels
from pyro_riemann.experiments.chadebec2022._results import MODEL_NAMES, SAMPLER_NAMES, Key, Results, samplers
from pyro_riemann.plotting import plot_images

# what the low-data figure of C22 shows, and what we add
CURVES: tuple[Key, ...] = (
    ("ae", "gmm"),
    ("wae", "normal"),
    ("wae", "gmm"),
    ("vae", "normal"),
    ("vae", "gmm"),
    ("vae", "paper"),
    ("vae", "uniform"),
    ("rae-gp", "gmm"),
    ("rae-l2", "gmm"),
    ("rae-sn", "gmm"),
)
_LINES = {"normal": ":", "prior": ":", "gmm": "--", "paper": "-", "uniform": "-."}


def draw_all(results: Results) -> dict[str, Figure]:
    """Every figure whose results are there, by name."""
    drawings = {drawing.__name__: drawing(results) for drawing in (toy, samples, nearest, curves, ablations)}
    return {name: figure for name, figure in drawings.items() if figure is not None}


def label(key: Key) -> str:
    """Model and sampler in words."""
    model, _, scale = key[0].partition("@")
    return MODEL_NAMES[model] + (f" (s = {scale})" if scale else "") + f", {SAMPLER_NAMES[key[1]]}"


def toy(results: Results) -> Figure | None:
    """Latent space of disks and rings with both kinds of curves, and frames along them."""
    found = results.one("toy")
    if found is None:
        return None
    size, curves = found["size"], found["curves"]
    figure = new_figure(9.0, 6.6)
    halves: Any = figure.subfigures(2, 1, height_ratios=(3.4, 1.9))
    ax = halves[0].subplots()
    (left, bottom), (right, top) = found["low"], found["high"]
    volume = unpack(found["log_volume_element"])
    shown = ax.imshow(volume.T, origin="lower", extent=(left, right, bottom, top), cmap="gray", aspect="auto")
    halves[0].colorbar(shown, ax=ax, label="log volume element")
    codes, labels = unpack(found["codes"]), torch.as_tensor(found["labels"])
    for value, name in enumerate(("disks", "rings")):
        ax.scatter(*codes[labels == value].T, s=4, label=name)
    for index, curve in enumerate(curves):
        ax.plot(*unpack(curve["straight"]["points"]).T, "--", color=f"C{index + 2}")
        ax.plot(*unpack(curve["curved"]["points"]).T, "-", color=f"C{index + 2}", lw=2)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.legend(loc="upper right", fontsize="small")
    rows = halves[1].subplots(2 * len(curves), 1)
    for index, curve in enumerate(curves):
        for offset, name in enumerate(("straight", "curved")):
            frame = rows[2 * index + offset]
            plot_images(unpack_images(curve[name]["frames"]), (size, size), columns=10, limits=(0, 1), ax=frame)
            frame.set_ylabel(name, rotation=0, ha="right", va="center", color=f"C{index + 2}", fontsize="small")
    return figure


def samples(results: Results) -> Figure | None:
    """Ten images of every model and sampler of the table's first seed."""
    rows: dict[Key, Tensor] = {}
    for record, sampler, measured in samplers(results.part("table")):
        if "images" in measured:
            rows[record["settings"]["model"], sampler] = unpack_images(measured["images"])
    if not rows:
        return None
    order = sorted(rows, key=lambda key: (list(SAMPLER_NAMES).index(key[1]), list(MODEL_NAMES).index(key[0])))
    stacked = torch.cat([rows[key] for key in order])
    side = round(stacked.shape[-1] ** 0.5)
    figure, ax = panels(5.6, 0.3 * len(order) + 0.2)
    plot_images(stacked, (side, side), columns=10, limits=(0, 1), ax=ax)
    ax.set_yticks([(side + 1) * (row + 0.5) for row in range(len(order))], [label(key) for key in order])
    ax.tick_params(left=False, labelsize=7)
    return figure


def nearest(results: Results) -> Figure | None:
    """Generated images beside the nearest training image and the nearest reconstruction."""
    found = next((r["result"]["nearest"] for r in results.part("table") if "nearest" in r["result"]), None)
    if found is None:
        return None
    names = ("generated", "train", "reconstruction")
    rows = torch.cat([unpack_images(found["images"][name]) for name in names])
    side = round(rows.shape[-1] ** 0.5)
    figure, ax = panels(5.6, 1.9)
    plot_images(rows, (side, side), columns=len(rows) // 3, limits=(0, 1), ax=ax)
    titles = ("generated", "nearest train", "nearest reconstruction")
    ax.set_yticks([(side + 1) * (row + 0.5) for row in range(3)], titles)
    ax.tick_params(left=False, labelsize=8)
    return figure


def curves(results: Results) -> Figure | None:
    """FID against the number of training images (C22, figure 4)."""
    points = results.curves()
    if not points:
        return None
    figure, ax = panels(6.4, 4.2)
    models = list(dict.fromkeys(key[0] for key in CURVES))
    sharp = [key for key in points if "@" in key[0] and key[1] in ("gmm", "paper", "uniform")]
    models += sorted({key[0] for key in sharp})
    for key in (*CURVES, *sharp):
        if key in points:
            color = f"C{models.index(key[0])}"
            ax.plot(*zip(*points[key].items(), strict=True), _LINES[key[1]], marker="o", color=color, label=label(key))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("training images")
    ax.set_ylabel("Frechet distance, classifier features")
    ax.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def ablations(results: Results) -> Figure | None:
    """Frechet distance against number of centroids and lambda (C22, figures 11 and 13)."""
    names = {"num_centroids": "centroids", "regularization": "lambda"}
    points = {name: results.ablation(name) for name in names}
    if not any(points.values()):
        return None
    figure, both = panels(8.0, 3.4, 1, 2)
    for ax, (name, title) in zip(both, names.items(), strict=True):
        for sampler, row in points[name].items():
            ax.plot(list(row), [entry["fid"] for entry in row.values()], marker="o", label=SAMPLER_NAMES[sampler])
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(title)
        ax.set_ylabel("Frechet distance")
        ax.legend(fontsize="small")
    return figure
