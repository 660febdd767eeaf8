"""The grid: data sets, weights of the KL divergence, seeds; one file each, with all that is measured of one VAE."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.experiments._jobs import Job, plain, run_jobs
from pyro_riemann.experiments.single_cell._mixtures import disagreement, mixture_test, profile_test
from pyro_riemann.experiments.single_cell._models import CPU, Cells, fit_decoder, fit_vae, load_cells, split, table
from pyro_riemann.experiments.single_cell._priors import BoxKernel, fit_gaussians, fit_kernel, sample_cell
from pyro_riemann.experiments.single_cell._solved import DISTANCES, BoxLaw, box_of, fit_solved_kernel
from pyro_riemann.metrics import EnsembleMetric, GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae import encode_all, importance_log_likelihood


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Sizes of everything.

    Attributes:
        genes: most variable genes kept.
        hidden: widths of the hidden layers.
        epochs: of each VAE; decoders beside it take half as many.
        members: decoders of an ensemble.
        resolution: nodes an axis of a metric's table.
        field: nodes an axis of the distance field about a heat kernel's centre.
        margin: of the table's box beyond the training codes, in shares of its sides.
        nodes: points on a curve.
        evaluations: centres that the search for the heat kernel's may try.
        importance: draws of the importance-weighted bound.
        chains: of NUTS, on the first held-out cell, of seed 0 alone.
        warmup: adaptation steps of a chain.
        draws: kept of a chain.
    """

    genes: int = 2000
    hidden: tuple[int, ...] = (128, 128)
    epochs: int = 120
    members: int = 4
    resolution: int = 64
    field: int = 32
    margin: float = 0.5
    nodes: int = 13
    evaluations: int = 20
    importance: int = 200
    chains: int = 4
    warmup: int = 150
    draws: int = 300


@dataclasses.dataclass(frozen=True)
class SolvedProtocol:
    """Sizes of runs in more dimensions than a table has; those that :class:`Protocol` names mean the same.

    Attributes:
        latent_dim: latent dimension d.
        mass_draws: draws of the mass of a heat kernel.
        steps: of the search for its centre, at most.
    """

    latent_dim: int = 10
    genes: int = 2000
    hidden: tuple[int, ...] = (128, 128)
    epochs: int = 120
    members: int = 4
    margin: float = 0.5
    nodes: int = 13
    importance: int = 50
    mass_draws: int = 600
    steps: int = 4


#: data set, weight of the KL divergence in training, seeds
GRID = (("RNAmix_celseq2", 1.0, (0, 1, 2)), ("sc_celseq2", 1.0, (0, 1, 2)))
SOLVED_GRID = (("RNAmix_celseq2", 1.0, (0, 1)), ("sc_celseq2", 1.0, (0, 1)))


def jobs(protocol: Protocol, solved: SolvedProtocol) -> list[Job]:
    """All runs."""
    return [
        Job(f"{name}{label}-kl{weight:g}-seed{seed}", {"data": name, "kl_weight": weight, "seed": seed, **plain(sizes)})
        for cells, label, sizes in ((GRID, "", protocol), (SOLVED_GRID, f"-d{solved.latent_dim}", solved))
        for name, weight, seeds in cells
        for seed in seeds
    ]


def run(
    results: Path,
    root: Path | None = None,
    protocol: Protocol | None = None,
    solved: SolvedProtocol | None = None,
    console: Console | None = None,
) -> None:
    """Do what is missing in ``results``: one file for each data set, weight and seed, written when it is complete.

    Args:
        results: folder of the JSON files.
        root: folder of the data, see :func:`load_cells`.
        protocol: sizes of the runs in the plane; by default those of the page.
        solved: sizes of the runs in more dimensions; by default those of the page.
        console: where to report.
    """

    def work(settings: dict[str, Any], device: str) -> dict[str, Any]:
        return one_run(load_cells(settings["data"], root, num_genes=settings["genes"]), settings)

    run_jobs(jobs(protocol or Protocol(), solved or SolvedProtocol()), work, results, console=console)


def one_run(cells: Cells, settings: dict[str, Any]) -> dict[str, Any]:
    """Train one VAE and measure: its mixtures if there are any, its priors, the posterior of one cell.

    Args:
        cells: the data.
        settings: those of a job.
    """
    seed, hidden, epochs = settings["seed"], tuple(settings["hidden"]), settings["epochs"]
    dim = settings.get("latent_dim", 2)
    learned, test = split(len(cells.counts), seed)
    train, chosen = learned[: len(learned) * 7 // 8], learned[len(learned) * 7 // 8 :]
    counts, held_out = cells.counts[train], cells.counts[test]
    vae = fit_vae(
        counts,
        cells.counts[chosen],
        latent_dim=dim,
        hidden=hidden,
        epochs=epochs,
        kl_weight=settings["kl_weight"],
        seed=seed,
    )
    with seeded(seed, CPU), torch.no_grad():
        draws = vae.posterior(counts).sample((4,)).flatten(0, 1)

    def measured(metric: RiemannianMetric) -> RiemannianMetric:
        """A table of the metric in the plane; elsewhere the metric, with a solver for many distances."""
        if metric.dim == 2:
            return table(metric, draws, margin=settings["margin"], resolution=settings["resolution"])
        metric.solver = DISTANCES
        return metric

    fisher = measured(PullbackMetric(vae.decoder, dim))
    result: dict[str, Any] = {"cells": [len(train), len(chosen), len(test)]}
    if isinstance(fisher, GridMetric):
        result["table_error"] = float(fisher.interpolation_error)
    if bool(((cells.proportions > 0) & (cells.proportions < 1)).any()):
        more = [
            fit_decoder(vae, counts, hidden=hidden, epochs=epochs // 2, seed=1000 * seed + member)
            for member in range(1, settings["members"])
        ]
        ensemble = EnsembleMetric([fisher, *(measured(PullbackMetric(decoder, dim)) for decoder in more)])
        mean = measured(PullbackMetric(vae.decoder, dim, output="mean"))
        metrics = {"mean": mean, "fisher": fisher, "ensemble": measured(ensemble)}
        codes = encode_all(vae, cells.counts)
        result |= {
            "mixtures": mixture_test(codes, cells.proportions, metrics, vae.decoder, nodes=settings["nodes"]),
            "profiles": profile_test(cells.counts, cells.proportions),
            "disagreement": disagreement(ensemble, codes, cells.proportions),
        }
    kernel, known = _kernel(fisher, draws, settings)
    if isinstance(kernel, BoxKernel) and seed == 0:
        sizes = {key: settings[key] for key in ("chains", "warmup", "draws")}
        result["nuts"] = sample_cell(vae, kernel, held_out[0], **sizes, seed=seed)
    bounds = {
        name: importance_log_likelihood(vae, held_out, settings["importance"], prior=law, seed=seed).double()
        for name, law in {**fit_gaussians(draws, seed), "heat_kernel": kernel}.items()
    }
    gains = {name: bounds["heat_kernel"] - bound for name, bound in bounds.items()}
    return {
        **result,
        "iwae": {name: float(bound.mean()) for name, bound in bounds.items()},
        "gain": {name: [float(gain.mean()), float(gain.std() / len(gain) ** 0.5)] for name, gain in gains.items()},
        **known,
    }


def _kernel(fisher: RiemannianMetric, draws: Tensor, settings: dict[str, Any]) -> tuple[BoxLaw, dict[str, Any]]:
    """The heat kernel on a table or, in more dimensions, with solved distances; and what is to be kept of its fit."""
    if isinstance(fisher, GridMetric):
        kernel = fit_kernel(fisher, draws, resolution=settings["field"], evaluations=settings["evaluations"])
        return kernel, {"time": kernel.time}
    box, some = box_of(draws, settings["margin"]), draws[: len(draws) // 4]  # one draw a cell
    sizes = {"draws": settings["mass_draws"], "steps": settings["steps"], "seed": settings["seed"]}
    fit = fit_solved_kernel(fisher, some, box, **sizes)
    known = {"time": fit.kernel.time, "mass_share": fit.share, "mass_error": fit.error, "likelihood": fit.likelihood}
    return fit.kernel, known
