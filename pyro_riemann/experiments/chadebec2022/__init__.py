"""Chadebec & Allassonniere (2022), A Geometric Perspective on Variational Autoencoders: tables, curves, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pyro_riemann.experiments._jobs import run_jobs, start_over
from pyro_riemann.experiments.chadebec2022._protocol import PARTS, PROTOCOLS, Protocol, grid
from pyro_riemann.experiments.chadebec2022._report import write_report
from pyro_riemann.experiments.chadebec2022._runs import one_run
from pyro_riemann.experiments.chadebec2022._study import Study

__all__ = ["PARTS", "PROTOCOLS", "Protocol", "grid", "run", "write_report"]


def run(
    protocol: Protocol,
    output: Path,
    cache: Path,
    data: Path | None = None,
    parts: tuple[str, ...] = PARTS,
    console: Console | None = None,
    device: str = "cpu",
    fresh: bool = False,
) -> None:
    """Do all runs of the grid that have no result yet.

    Args:
        protocol: the settings.
        output: folder of the results, one JSON file a run, written as soon as it ends.
        cache: folder of checkpoints, from which an interrupted training resumes.
        data: folder of the data sets, see :func:`~pyro_riemann.datasets.load_dataset`.
        parts: which parts of the grid.
        console: where to report; also shows progress of training.
        device: where models are trained.
        fresh: start over, whatever results of these runs and checkpoints there are.

    Raises:
        ValueError: for an unknown part, or results of another protocol in the folder.
        ImportError, FileNotFoundError: as :func:`~pyro_riemann.datasets.load_dataset`.
    """
    study = Study(protocol, data, cache, quiet=console is None or console.quiet, device=device)

    def work(settings: dict[str, Any], _: str) -> dict[str, Any]:
        return one_run(study, settings)

    if fresh:
        start_over(cache)
    run_jobs(grid(protocol, parts), work, output, devices=(device,), console=console, fresh=fresh)
