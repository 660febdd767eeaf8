"""The experiments of Kalatzis et al. (2020): runs, tables, figures.

Each run is a JSON file; tables and figures are made from these files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pyro_riemann.experiments._jobs import Job, is_done, run_jobs, start_over, understood
from pyro_riemann.experiments._report import Records, write
from pyro_riemann.experiments.kalatzis2020._draw import draw_all
from pyro_riemann.experiments.kalatzis2020._protocol import DATASETS, MODELS, PROTOCOLS, TITLES, Protocol, grid
from pyro_riemann.experiments.kalatzis2020._report import report
from pyro_riemann.experiments.kalatzis2020._work import work

__all__ = ["DATASETS", "MODELS", "PROTOCOLS", "Protocol", "grid", "progress_table", "run", "write_report"]


def run(
    dataset: str,
    latent_dims: Sequence[int],
    models: Sequence[str],
    protocol: Protocol,
    seeds: int | None,
    results: Path,
    checkpoints: Path,
    processes: int | None = None,
    devices: Sequence[str] = ("cpu",),
    console: Console | None = None,
    fresh: bool = False,
) -> None:
    """Do whatever of the grid is missing; an interrupted model resumes from its checkpoint.

    Args:
        dataset: name of the data set.
        latent_dims: latent dimensions.
        models: names of the models.
        protocol: the settings.
        seeds: number of seeds; the protocol's own if None.
        results: folder of the results, one JSON file a run, written as soon as it ends.
        checkpoints: folder of checkpoints, from which an interrupted training resumes.
        processes: runs at once; by default as ``joblib.parallel_config`` says, else one.
        devices: where models are trained, in turn.
        console: where to report.
        fresh: start over, whatever results and checkpoints of these runs there are.

    Raises:
        ValueError: for unknown names, or results of another protocol in the folder.
    """
    console = console or Console(quiet=True)
    jobs = grid(dataset, latent_dims, models, seeds or protocol.seeds, protocol)
    if fresh:
        start_over(checkpoints, f"{dataset}-")
    else:
        console.print(progress_table(jobs, results))
    one = partial(work, checkpoints=checkpoints)
    run_jobs(jobs, one, results, processes=processes, devices=devices, console=console, fresh=fresh)
    console.print(progress_table(jobs, results))


def progress_table(jobs: Sequence[Job], results: Path) -> Table:
    """Runs that are done, of all, by model and dimension.

    Args:
        jobs: the runs of a grid, at least one.
        results: folder of the results.

    Raises:
        ValueError: for results of another protocol in the folder.
    """
    dims = sorted({job.settings["latent_dim"] for job in jobs})
    table = Table("run", *(f"d = {dim}" for dim in dims), title=f"runs done: {jobs[0].settings['dataset']}")
    done: dict[str, dict[int, list[bool]]] = {}
    for job in jobs:
        kind = job.settings.get("model", job.settings["kind"])
        done.setdefault(kind, {}).setdefault(job.settings["latent_dim"], []).append(is_done(job, results))
    for kind, own in done.items():
        cells = (f"{sum(own[dim])}/{len(own[dim])}" if dim in own else "" for dim in dims)
        table.add_row(TITLES.get(kind, kind), *cells)
    return table


def write_report(results: Path, page: Path, beside: Sequence[Path] = ()) -> list[Path]:
    """Tables and figures of all results in a folder; returns the files.

    Args:
        results: the folder; figures go to its ``figures``.
        page: the Markdown file.
        beside: folders of the results of other protocols, whose tables stand beside those; their figures are there.

    Raises:
        FileNotFoundError: if there are no results.
    """
    with understood(results):
        figures = draw_all(Records.read(results))
        return write(page, report(results, page, beside), figures, results / "figures")
