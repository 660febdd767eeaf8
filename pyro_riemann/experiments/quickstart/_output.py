"""What the quickstart shows: figures, times of its steps, tables on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.datasets import ImageData
from pyro_riemann.diagnostics import Summary
from pyro_riemann.experiments import _figures
from pyro_riemann.experiments.quickstart._measures import Curves
from pyro_riemann.experiments.quickstart._models import centre_of, decode
from pyro_riemann.experiments.quickstart._settings import QuickstartConfig
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE


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
    low, high = codes.amin(0), codes.amax(0)
    box = torch.stack([low - 0.12 * (high - low), high + 0.12 * (high - low)]).cpu()
    loc, prior_time = centre_of(rvae)
    drawings: dict[str, Callable[[], Any]] = {
        "latent_space": lambda: _figures.latent_space(grid, codes, data.test_labels, loc, box),
        "geodesics": lambda: _figures.geodesics(
            grid, curves.drawn, curves.shown, decode(rvae), beside(plain, data, curves), data.shape, box
        ),
        "brownian_paths": lambda: _figures.brownian(grid, loc, prior_time, box),
        "samples": lambda: _figures.samples(samples(rvae, plain, grid, data), data.shape),
        "chains": lambda: _figures.chains(chains),
    }
    with seeded(config.seed, codes.device):
        for name, draw in drawings.items():
            _figures.save(draw(), config.output / f"{name}.png")


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
    ends = brownian_motion(grid, loc.expand(count, 2), prior_time, num_steps=1000)
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
