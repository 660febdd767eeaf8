"""How costs grow: CPU seconds against pairs, d, outputs, kernels and images, one thread, with each curve's exponent.

Decoders are perceptrons with tanh, as PyTorch initialises them, with 784 outputs unless these grow; those of images
are what `make_vae` gives. Calls have default settings unless the case says otherwise. The exponent is that of a power
law through the last two sizes, where what a call costs at least weighs the least.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from torch import nn

from pyro_riemann import KernelMetric, PullbackMetric, RiemannianUniform
from pyro_riemann.datasets import load_dataset
from pyro_riemann.geodesics import training_solver
from pyro_riemann.vae import TrainingConfig, make_vae, train
from tests.benchmarks._measure import cpu_seconds

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
Case = tuple[tuple[int, ...], Callable[[int], Callable[[], Any]]]


def decoder(dim: int, outputs: int = 784) -> PullbackMetric:
    """A perceptron of two layers of 128."""
    torch.manual_seed(0)
    layers = nn.Linear(dim, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, outputs)
    return PullbackMetric(nn.Sequential(*layers).requires_grad_(False), dim)


def pairs(dim: int, count: int) -> torch.Tensor:
    return torch.randn(2, count, dim, generator=torch.Generator().manual_seed(1))


def distances(dim: int, count: int, outputs: int = 784, rough: bool = False) -> Callable[[], Any]:
    metric, (z, y) = decoder(dim, outputs), pairs(dim, count)
    if rough:
        metric.solver = training_solver(dim)
    return lambda: metric.squared_dist(z, y)


def tensors(outputs: int) -> Callable[[], Any]:
    metric, z = decoder(10, outputs), pairs(10, 20_000)[0]
    return lambda: metric.metric(z)


def kernels(count: int) -> KernelMetric:
    generator = torch.Generator().manual_seed(2)
    precision = (0.05 + 0.1 * torch.rand(count, 16, generator=generator)) ** -2
    return KernelMetric(torch.randn(count, 16, generator=generator), precision, 4.0, 1e-3)


def kernel_tensors(count: int) -> Callable[[], Any]:
    metric, z = kernels(count), pairs(16, 100)[0]
    return lambda: metric.metric(z)


def uniform(count: int) -> Callable[[], Any]:
    """On a new metric at each call: one keeps what was set up for it."""
    return lambda: RiemannianUniform(kernels(count), -4.0, 4.0).sample((1000,))


def training(riemannian: bool, count: int) -> Callable[[], Any]:
    """An epoch of each phase of a VAE with a normal prior, or of an R-VAE on a table, as `make_vae` gives them."""
    kind = ("heat_kernel", "wrapped_normal", "grid") if riemannian else ("normal", "normal", "fixed")
    images = load_dataset("mnist").train[:count]
    vae = make_vae(784, 2, *kind, seed=0)
    return lambda: train(vae, images, config=TrainingConfig(warm_up_epochs=1, epochs=1), progress=False)


CASES: dict[str, Case] = {
    "pairs: distances, training solver, d = 10": (
        (30, 100, 300, 1000, 3000),
        lambda n: distances(10, n, rough=True),
    ),
    "pairs: distances, d = 2": ((100, 300, 1000, 3000), lambda n: distances(2, n)),
    "d: ten distances": ((2, 4, 8, 16, 32), lambda n: distances(n, 10)),
    "outputs: G at 20,000 points, d = 10": ((196, 784, 3136, 12_544), tensors),
    "outputs: ten distances, d = 10": ((196, 784, 3136, 12_544), lambda n: distances(10, 10, n)),
    "kernels: G at 100 points, d = 16": ((4000, 16_000, 64_000, 256_000), kernel_tensors),
    "kernels: 1,000 draws of the uniform with set-up, d = 16": ((250, 1000, 4000), uniform),
    "images: two epochs of a VAE, d = 2": ((2000, 4000, 8000, 16_000), lambda n: training(False, n)),
    "images: two epochs of an R-VAE, d = 2": ((2000, 4000, 8000, 16_000), lambda n: training(True, n)),
}


def steady(call: Callable[[], Any]) -> float:
    """CPU seconds of a call; of the quickest of three, after one to warm up, where it takes less than three seconds."""
    first = cpu_seconds(call, repeats=1)
    return first if first > 3 else cpu_seconds(call)


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Of the power law through the last two sizes."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def draw(curves: dict[str, tuple[tuple[int, ...], list[float]]], path: Path) -> None:
    """Each curve relative to its first size, by what grows, with its exponent."""
    kinds = list(dict.fromkeys(case.partition(":")[0] for case in curves))
    figure = Figure(figsize=(2.6 * len(kinds), 3.4), layout="constrained")
    for kind, ax in zip(kinds, figure.subplots(1, len(kinds)), strict=True):
        for case, (sizes, seconds) in curves.items():
            if case.startswith(kind + ":"):
                label = f"{case.partition(': ')[2]}: {exponent(sizes, seconds):.2f}"
                ax.loglog(sizes, seconds, "o-", markersize=3, label=textwrap.fill(label, 30))
        shown = sorted({size for case, (sizes, _) in curves.items() if case.startswith(kind + ":") for size in sizes})
        ax.set_xticks(shown, [f"{size:,}" for size in shown], rotation=60, fontsize=7)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel=kind, ylabel="CPU seconds" if ax.get_subplotspec().is_first_col() else "")
        ax.legend(fontsize=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def run() -> list[dict[str, Any]]:
    rows, curves = [], {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pairs that did not converge: time is asked for
        for case, (sizes, make) in CASES.items():
            with torch.enable_grad() if case.startswith("images") else nullcontext():
                seconds = [steady(make(size)) for size in sizes]
            curves[case] = sizes, seconds
            of_all = exponent(sizes, seconds)
            rows += [
                {
                    "benchmark": "growth",
                    "case": case,
                    "method": f"{size:,}",
                    "seconds": value,
                    "floor_seconds": None,
                    "ratio_to_floor": None,
                    "exponent": of_all if size == sizes[-1] else None,
                }
                for size, value in zip(sizes, seconds, strict=True)
            ]
    draw(curves, FOLDER / "growth.png")
    return rows


@pytest.mark.benchmark
def test_nothing_grows_faster_than_it_must() -> None:
    """Linear in pairs, outputs, kernels and images, with some room for what the machine does."""
    slopes = {row["case"]: row["exponent"] for row in run() if row["exponent"] is not None}
    assert all(slope < 1.2 for case, slope in slopes.items() if not case.startswith("d:"))
    assert slopes["d: ten distances"] < 3.2
