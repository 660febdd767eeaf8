"""What the quickstart shows: figures, times of its steps, tables on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.datasets import ImageData
from pyro_riemann.diagnostics import Summary
from pyro_riemann.experiments._latent import STEPS, frame
from pyro_riemann.experiments._report import new_figure, panels, save
from pyro_riemann.experiments.quickstart._models import QuickstartConfig, centre_of, decode
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.plotting import (
    plot_brownian_paths,
    plot_chains,
    plot_decoded_curves,
    plot_geodesics,
    plot_images,
    plot_latent_space,
)
from pyro_riemann.plotting._style import GEODESIC_COLOR
from pyro_riemann.vae import VAE


class Curves(NamedTuple):
    """Geodesics between test codes."""

    drawn: Geodesic  # some of them, the next among them
    shown: Geodesic  # the one along which decoded images differ most from those along the straight line
    pair: tuple[int, int]  # its two test images
    report: dict[str, Any]


def draw(
    config: QuickstartConfig,
    data: ImageData,
    rvae: VAE,
    plain: VAE,
    grid: GridMetric,
    codes: Tensor,
    curves: Curves,
    chains: Any,
) -> None:
    """All figures, one file each, into ``config.output``."""
    box = frame(codes, 0.12).cpu()
    loc, prior_time = centre_of(rvae)
    with seeded(config.seed, codes.device):
        drawn = {
            "latent_space": draw_latent_space(grid, codes, data.test_labels, loc, box),
            "geodesics": draw_geodesics(
                grid, curves.drawn, curves.shown, decode(rvae), beside(plain, data, curves), data.shape, box
            ),
            "brownian_paths": draw_brownian(grid, loc, prior_time, box),
            "samples": draw_samples(samples(rvae, plain, grid, data), data.shape),
            "chains": draw_chains(chains),
        }
    for name, figure in drawn.items():
        save(figure, config.output / f"{name}.png")


@torch.no_grad()
def beside(plain: VAE, data: ImageData, curves: Curves, num_frames: int = 10) -> Tensor:
    """What the plain VAE decodes along the straight line between its own codes of the pair that is shown."""
    start, end = plain.encoder(data.test[list(curves.pair)])[0]
    times = torch.linspace(0, 1, num_frames, dtype=start.dtype, device=start.device)
    return decode(plain)(start + times[:, None] * (end - start))


@torch.no_grad()
def samples(rvae: VAE, plain: VAE, grid: GridMetric, data: ImageData, count: int = 64) -> dict[str, Tensor]:
    """Decoded means of prior draws; the heat kernel's draws are Brownian motion, here on the table of the metric."""
    loc, prior_time = centre_of(rvae)
    ends = brownian_motion(grid, loc.expand(count, 2), prior_time, num_steps=STEPS)
    return {
        "test images": data.test[:count],
        "R-VAE: ends of Brownian motion, decoded": decode(rvae)(ends),
        "plain VAE: draws of N(0, I), decoded": decode(plain)(plain.prior_distribution().sample((count,))),
    }


class Clock:
    """Wall and processor time of the named steps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name], self.cpu[name] = time.perf_counter() - wall, time.process_time() - cpu
        self.console.print(f"{name}: {self.wall[name]:.1f} s")


def print_result(console: Console, result: dict[str, Any], chains: Summary, config: QuickstartConfig) -> None:
    """The tables at the end of a run."""
    table = Table(title="test set, nats per image", title_justify="left")
    for column in ("model", "reconstruction", "KL", "ELBO", f"IWAE-{config.iwae_draws}"):
        table.add_column(column, justify="left" if column == "model" else "right")
    shift = result["prior"]["elbo_with_normaliser"] - result["prior"]["elbo_without_normaliser"]
    for name, key, extra in (
        ("R-VAE, heat kernel as it is: no bound", "rvae", 0.0),
        ("R-VAE, heat kernel normalised", "rvae", shift),
        ("VAE, N(0, I)", "vae", 0.0),
        ("VAE, N(m, s^2 I) fitted to its codes", "vae_gaussian_prior", 0.0),
    ):
        row = result[key]
        values = (row["reconstruction"], row["kl"] - extra, row["elbo"] + extra, row["iwae"]["value"] + extra)
        table.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(table)
    console.print(
        "The heat kernel has a learned centre and time, N(m, s^2 I) a learned mean and scale: as many numbers. "
        "N(0, I) has none.",
        soft_wrap=True,
    )
    prior, curves = result["prior"], result["geodesics"]
    console.print(f"prior: time {prior['time']:.4g}, mass {prior['mass']:.4f} +- {prior['mass_error']:.1e}")
    console.print(f"geodesics: {curves['converged_share']:.1%} of {curves['pairs']} pairs of test codes converged")
    console.print(f"\nNUTS on the latent posterior of test image {config.image}")
    console.print(str(chains), soft_wrap=True)
    verdict = "passed" if chains.passed() else "NOT passed"
    console.print(f"R-hat <= 1.01, bulk ESS >= 400, no divergence: {verdict}")
    console.print(
        f"\nfigures and result.json: {config.output}  ({sum(result['timings_seconds'].values()):.0f} s in all)"
    )


# -------------------------------------------------------------------- figures


def draw_latent_space(metric: RiemannianMetric, codes: Tensor, labels: Tensor, loc: Tensor, box: Tensor) -> Figure:
    """Log volume element, test codes by class, centre of the prior."""
    figure, ax = panels(6.6, 5.8)
    plot_latent_space(metric, codes, labels, low=box[0], high=box[1], ax=ax)
    ax.plot(*loc.cpu(), "*", color="black", ms=14, mec="white", mew=1.0, zorder=5)
    ax.set_title("test codes on the log volume element; star: centre of the prior", fontsize="medium")
    return figure


def draw_geodesics(
    metric: RiemannianMetric,
    curves: Geodesic,
    shown: Geodesic,
    decode: Callable[[Tensor], Tensor],
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


def draw_brownian(
    metric: RiemannianMetric, loc: Tensor, time: Tensor, box: Tensor, num_paths: int = 5, num_ends: int = 200
) -> Figure:
    """Brownian motion from the centre of the prior, for the prior's time: some paths, and where more of them end."""
    with torch.no_grad():
        paths = brownian_motion(metric, loc.expand(num_ends, 2), time, num_steps=200, return_path=True)
    figure, ax = panels(6.6, 5.6)
    plot_latent_space(metric, low=box[0], high=box[1], ax=ax)
    ax.plot(*paths[-1, num_paths:].T.cpu(), "o", ls="", color=GEODESIC_COLOR, ms=2.5, mew=0, alpha=0.6)
    plot_brownian_paths(paths[:, :num_paths], ax, time=time)
    ax.set_xlim(*box[:, 0].tolist())
    ax.set_ylim(*box[:, 1].tolist())
    ax.set_title(f"Brownian motion from the prior's centre: {num_paths} paths, {num_ends} ends", fontsize="medium")
    return figure


def draw_samples(images: dict[str, Tensor], shape: tuple[int, int], columns: int = 8) -> Figure:
    """Grids of images side by side, each under its name."""
    figure, axes = panels(4.2 * len(images), 4.5, 1, len(images), squeeze=False)
    figure.set_layout_engine("constrained", wspace=0.06)
    for ax, (name, rows) in zip(axes[0], images.items(), strict=True):
        plot_images(rows, shape, columns=columns, limits=(0, 1), ax=ax)
        ax.set_title(name, fontsize="large")
    return figure


def draw_chains(data: Any) -> Figure:
    """Traces and ranks of the latent posterior's chains."""
    figure, axes = panels(9.0, 4.2, 2, 2)
    plot_chains(data, axes=axes)
    return figure
