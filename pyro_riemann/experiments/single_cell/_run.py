"""The grid: data sets, weights of the KL divergence, seeds; one file each, with all that is measured of one VAE."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from rich.console import Console
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.experiments._jobs import Job, run_jobs
from pyro_riemann.experiments.single_cell._cell import sample_cell
from pyro_riemann.experiments.single_cell._data import Cells, load_cells, split
from pyro_riemann.experiments.single_cell._mixtures import disagreement, mixture_test, profile_test
from pyro_riemann.experiments.single_cell._models import CPU, fit_decoder, fit_vae, table
from pyro_riemann.experiments.single_cell._priors import fit_gaussians, fit_kernel
from pyro_riemann.experiments.single_cell._solved import DISTANCES, box_of, fit_solved_kernel
from pyro_riemann.metrics import EnsembleMetric, GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae import VAE, encode_all, importance_log_likelihood


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
    small = [
        Job(f"{name}-kl{weight:g}-seed{seed}", {"data": name, "kl_weight": weight, "seed": seed, **_sizes(protocol)})
        for name, weight, seeds in GRID
        for seed in seeds
    ]
    large = [
        Job(
            f"{name}-d{solved.latent_dim}-kl{weight:g}-seed{seed}",
            {"data": name, "kl_weight": weight, "seed": seed, **_sizes(solved)},
        )
        for name, weight, seeds in SOLVED_GRID
        for seed in seeds
    ]
    return small + large


def _sizes(protocol: Protocol | SolvedProtocol) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(protocol).items()}


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
    results.mkdir(parents=True, exist_ok=True)

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
    fisher = _measured(PullbackMetric(vae.decoder, dim), draws, settings)
    result: dict[str, Any] = {"cells": [len(train), len(chosen), len(test)]}
    if isinstance(fisher, GridMetric):
        result["table_error"] = float(fisher.interpolation_error)
    if bool(((cells.proportions > 0) & (cells.proportions < 1)).any()):
        more = [
            fit_decoder(vae, counts, hidden=hidden, epochs=epochs // 2, seed=1000 * seed + member)
            for member in range(1, settings["members"])
        ]
        members = [fisher, *(_measured(PullbackMetric(decoder, dim), draws, settings) for decoder in more)]
        result |= _mixtures(vae, cells, members, draws, settings)
    if isinstance(fisher, GridMetric):
        return result | _priors(vae, fisher, draws, held_out, settings)
    return result | _solved_priors(vae, fisher, draws, held_out, settings)


def _measured(metric: RiemannianMetric, codes: Tensor, settings: dict[str, Any]) -> RiemannianMetric:
    """A table of the metric in the plane; elsewhere the metric, with a solver for many distances."""
    if metric.dim == 2:
        return table(metric, codes, margin=settings["margin"], resolution=settings["resolution"])
    metric.solver = DISTANCES
    return metric


def _mixtures(
    vae: VAE, cells: Cells, members: list[RiemannianMetric], draws: Tensor, settings: dict[str, Any]
) -> dict[str, Any]:
    """The test of the geometries, the same without a model, and how far the ensemble disagrees."""
    ensemble = EnsembleMetric(members)
    metrics = {
        "mean": _measured(PullbackMetric(vae.decoder, ensemble.dim, output="mean"), draws, settings),
        "fisher": members[0],
        "ensemble": _measured(ensemble, draws, settings),
    }
    codes = encode_all(vae, cells.counts)
    return {
        "mixtures": mixture_test(codes, cells.proportions, metrics, vae.decoder, nodes=settings["nodes"]),
        "profiles": profile_test(cells.counts, cells.proportions),
        "disagreement": disagreement(ensemble, codes, cells.proportions),
    }


def _priors(vae: VAE, fisher: GridMetric, draws: Tensor, held_out: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """Bounds of held-out cells under each prior, and one cell's posterior under the heat kernel."""
    seed = settings["seed"]
    kernel = fit_kernel(fisher, draws, resolution=settings["field"], evaluations=settings["evaluations"])
    sizes = {key: settings[key] for key in ("chains", "warmup", "draws")}
    nuts = {"nuts": sample_cell(vae, kernel, held_out[0], **sizes, seed=seed)} if seed == 0 else {}
    return nuts | _bounds(vae, kernel, draws, held_out, settings) | {"time": kernel.time}


def _solved_priors(
    vae: VAE, fisher: RiemannianMetric, draws: Tensor, held_out: Tensor, settings: dict[str, Any]
) -> dict[str, Any]:
    """Bounds of held-out cells under each prior, the heat kernel's distances by the solver."""
    seed, box = settings["seed"], box_of(draws, settings["margin"])
    some = draws[: len(draws) // 4]  # one draw a cell
    fit = fit_solved_kernel(fisher, some, box, draws=settings["mass_draws"], steps=settings["steps"], seed=seed)
    known = {"time": fit.kernel.time, "mass_share": fit.share, "mass_error": fit.error, "likelihood": fit.likelihood}
    return _bounds(vae, fit.kernel, draws, held_out, settings) | known


def _bounds(
    vae: VAE, kernel: TorchDistribution, draws: Tensor, held_out: Tensor, settings: dict[str, Any]
) -> dict[str, Any]:
    seed = settings["seed"]
    bounds = {
        name: importance_log_likelihood(vae, held_out, settings["importance"], prior=law, seed=seed).double()
        for name, law in {**fit_gaussians(draws, seed), "heat_kernel": kernel}.items()
    }
    return {
        "iwae": {name: float(bound.mean()) for name, bound in bounds.items()},
        "gain": {name: _mean_and_error(bounds["heat_kernel"] - bound) for name, bound in bounds.items()},
    }


def _mean_and_error(values: Tensor) -> list[float]:
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]
