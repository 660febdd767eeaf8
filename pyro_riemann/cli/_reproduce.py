"""The commands that run the experiments of the papers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pyro_riemann.cli._command import Data, Device, Fresh, Quiet, Threads, work

Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Models = Annotated[Path, typer.Option(help="Folder of the models.")]
Page = Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")]
Beside = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of another protocol's results, for the same page; repeat it for several."),
]
Report = Annotated[bool, typer.Option("--report", help="Only write the page, tables and figures of what is there.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds [default: the protocol's].")]

reproduce = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)


@reproduce.callback()
def reproduce_group() -> None:
    """Experiments of the papers, each resumable; tables and figures are made from the saved results."""


def told(files: Iterable[Path], quiet: bool = False) -> None:
    for path in () if quiet else files:
        typer.echo(path)


@reproduce.command()
def kalatzis2020(
    dataset: Annotated[
        list[str] | None, typer.Option(help="mnist, fashion-mnist or digits; repeat it for several [default: mnist].")
    ] = None,
    latent_dim: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeat it for several [default: 2, 5 and 10].")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="vae, vae-fitted, vamp128, vamp256, vamp512 or rvae; repeat it for several [default: all]."),
    ] = None,
    seeds: Seeds = None,
    protocol: Annotated[
        str, typer.Option(help="paper: appendix C, 300 epochs; reduced: hours on two cores; smoke: a trial.")
    ] = "reduced",
    results: Results = Path("runs/kalatzis2020/results"),
    checkpoints: Models = Path("runs/kalatzis2020/models"),
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, on this machine.")] = 1,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1, ...; repeat it for several [default: cpu].")
    ] = None,
    threads: Threads = None,
    report: Report = False,
    page: Page = None,
    beside: Beside = None,
    fresh: Fresh = False,
) -> None:
    """Run the experiments of Kalatzis et al. (2020); start again after an interruption to go on.

    MNIST and Fashion-MNIST are found through the environment variable PYRO_RIEMANN_DATA.
    """
    from pyro_riemann._checks import check_one_of
    from pyro_riemann.experiments import kalatzis2020 as experiment

    devices, dims, models = device or ["cpu"], latent_dim or [2, 5, 10], model or experiment.MODELS
    with work(f"goes on from {checkpoints}", devices=devices, threads=threads) as console:
        check_one_of("protocol", protocol, tuple(experiment.PROTOCOLS))
        for name in [] if report else dataset or ["mnist"]:
            grid = (name, dims, models, experiment.PROTOCOLS[protocol], seeds)
            experiment.run(*grid, results, checkpoints, processes, devices, console, fresh)
        told(experiment.write_report(results, page or results.with_suffix(".md"), beside or []))


@reproduce.command()
def chadebec2022(
    protocol: Annotated[str, typer.Option(help="full, full-mlp, quarter, eighth, reduced or tiny.")] = "reduced",
    model: Annotated[
        list[str] | None, typer.Option(help="Model of tables and curves; repeat it for several [default: all].")
    ] = None,
    data: Data = None,
    results: Annotated[Path | None, typer.Option(help="Of the results [default: runs/chadebec2022-PROTOCOL].")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Of the models [default: in that of the results].")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Part of the grid; repeat it for several [default: all].")
    ] = None,
    seeds: Seeds = None,
    report: Report = False,
    device: Device = "cpu",
    page: Page = None,
    fresh: Fresh = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Run the experiments of Chadebec & Allassonniere (2022); start again after an interruption to go on."""
    from pyro_riemann._checks import check_one_of
    from pyro_riemann.experiments import chadebec2022 as experiment

    folder = results or Path(f"runs/chadebec2022-{protocol}")
    goes_on = f"does what is missing in {folder}"
    with work(goes_on, devices=[device], threads=threads, quiet=quiet) as console:
        check_one_of("protocol", protocol, tuple(experiment.PROTOCOLS))
        chosen = experiment.PROTOCOLS[protocol]
        if seeds is not None:
            chosen = dataclasses.replace(chosen, seeds=tuple(range(seeds)))
        if model:
            for name in model:
                check_one_of("model", name, chosen.models)
            chosen = dataclasses.replace(chosen, models=tuple(model))
        if not report:
            parts, models = tuple(part or experiment.PARTS), checkpoints or folder / "checkpoints"
            experiment.run(chosen, folder, models, data, parts, console, device, fresh)
        told(experiment.write_report(folder, page or folder.with_suffix(".md")), quiet)


@reproduce.command()
def earth(data: Data = None, results: Results = Path("runs/earth"), page: Page = None, report: Report = False) -> None:
    """Fit densities to places on Earth, the benchmark of Mathieu & Nickel (2020); start again to go on.

    The data are earth/*.csv in their folder.
    """
    from pyro_riemann.experiments import earth as experiment

    with work(f"does what is missing in {results}"):
        if not report:
            experiment.run(results, data)
        told(experiment.write_report(results, page or results.with_suffix(".md")))


@reproduce.command()
def single_cell(
    data: Data = None,
    results: Results = Path("runs/single_cell"),
    page: Page = None,
    report: Report = False,
    threads: Threads = None,
) -> None:
    """Fit negative binomial VAEs to cells and to mixtures of Tian et al. (2019); start again to go on.

    The data are single-cell/*.csv.gz in their folder.
    """
    from pyro_riemann.experiments import single_cell as experiment

    with work(f"does what is missing in {results}", threads=threads) as console:
        if not report:
            experiment.run(results, data, console=console)
        told(experiment.write_report(results, page or results.with_suffix(".md")))


@reproduce.command()
def identifiability(
    data: Data = None,
    results: Results = Path("runs/identifiability/results"),
    checkpoints: Models = Path("runs/identifiability/models"),
    page: Page = None,
    report: Report = False,
    threads: Threads = None,
) -> None:
    """Compare distances over retrainings of a VAE, as Syrota et al. (2025) do; start again to go on.

    The data are MNIST/raw in their folder.
    """
    from pyro_riemann.experiments import identifiability as experiment

    with work(f"goes on from {checkpoints}", threads=threads) as console:
        if not report:
            experiment.run(results, data, console=console, checkpoints=checkpoints)
        told(experiment.write_report(results, page or results.with_suffix(".md")))
