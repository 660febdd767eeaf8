"""The commands that run the experiments of the papers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from pyro_riemann import _work
from pyro_riemann.cli._clear import check_device, clear_errors

# options of several commands
Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Models = Annotated[Path, typer.Option(help="Folder of the models.")]
Page = Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")]
Report = Annotated[bool, typer.Option("--report", help="Only write the page of what is there.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads [default: torch's].")]

reproduce = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)


@reproduce.callback()
def reproduce_group() -> None:
    """Experiments of the papers, each resumable; tables and figures are made from the saved results."""


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
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds [default: the protocol's].")] = None,
    protocol: Annotated[
        str, typer.Option(help="paper: appendix C, 300 epochs; reduced: hours on two cores; smoke: a trial.")
    ] = "reduced",
    results: Results = Path("runs/kalatzis2020/results"),
    checkpoints: Models = Path("runs/kalatzis2020/models"),
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, on this machine.")] = 1,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1, ...; repeat it for several [default: cpu].")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads, all processes together.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write tables and figures of what is there.")] = False,
    page: Page = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of another protocol's results, for the same page; repeat it for several."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do all of these runs again, whatever results and models there are.")
    ] = False,
) -> None:
    """Run the experiments of Kalatzis et al. (2020); start again after an interruption to go on.

    MNIST and Fashion-MNIST are found through the environment variable PYRO_RIEMANN_DATA.
    """
    import torch
    from rich.console import Console

    from pyro_riemann._checks import check_one_of
    from pyro_riemann.experiments import kalatzis2020 as experiment

    devices = device or ["cpu"]
    for name in devices:
        check_device(name)
    if threads is not None:
        torch.set_num_threads(threads)
    with clear_errors(f"Stopped. The same command again goes on from {checkpoints}."):
        check_one_of("protocol", protocol, tuple(experiment.PROTOCOLS))
        for name in [] if report else dataset or ["mnist"]:
            experiment.run(
                name,
                latent_dim or [2, 5, 10],
                model or experiment.MODELS,
                experiment.PROTOCOLS[protocol],
                seeds,
                results,
                checkpoints,
                processes,
                devices,
                Console(),
                fresh,
            )
        for path in experiment.write_report(results, page or results.with_suffix(".md"), beside or []):
            typer.echo(path)


@reproduce.command()
def chadebec2022(
    protocol: Annotated[str, typer.Option(help="full, full-mlp, reduced or tiny.")] = "reduced",
    data: Annotated[Path | None, typer.Option(help="Folder that holds MNIST/raw and FashionMNIST/raw.")] = None,
    results: Annotated[Path | None, typer.Option(help="Of the results [default: runs/chadebec2022-PROTOCOL].")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Of the models [default: in that of the results].")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Part of the grid; repeat it for several [default: all].")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds [default: the protocol's].")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write tables and figures of what is there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...: where models are trained.")] = "cpu",
    page: Page = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do all of these runs again, whatever results and models there are.")
    ] = False,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run the experiments of Chadebec & Allassonniere (2022); start again after an interruption to go on."""
    import dataclasses

    import torch
    from rich.console import Console

    from pyro_riemann._checks import check_one_of
    from pyro_riemann.experiments import chadebec2022 as experiment

    check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    folder = results or Path(f"runs/chadebec2022-{protocol}")
    with clear_errors(f"Stopped. The same command again does what is missing in {folder}."):
        check_one_of("protocol", protocol, tuple(experiment.PROTOCOLS))
        chosen = experiment.PROTOCOLS[protocol]
        if seeds is not None:
            chosen = dataclasses.replace(chosen, seeds=tuple(range(seeds)))
        if not report:
            wanted = experiment.PARTS if part is None else tuple(part)
            console = Console(quiet=quiet)
            with _work.silence() if quiet else nullcontext():
                experiment.run(
                    chosen, folder, checkpoints or folder / "checkpoints", data, wanted, console, device, fresh
                )
        written = page or folder.with_suffix(".md")
        experiment.write_report(folder, written)
        if not quiet:
            typer.echo(written)


@reproduce.command()
def earth(
    data: Annotated[Path | None, typer.Option(help="Folder with earth/*.csv [default: PYRO_RIEMANN_DATA].")] = None,
    results: Results = Path("runs/earth"),
    page: Page = None,
    report: Report = False,
) -> None:
    """Fit densities to places on Earth, the benchmark of Mathieu & Nickel (2020); start again to go on."""
    from pyro_riemann.experiments import earth as experiment

    with clear_errors(f"Stopped. The same command again does what is missing in {results}."):
        if not report:
            experiment.run(results, data)
        written = page or results.with_suffix(".md")
        experiment.write_report(results, written)
        typer.echo(written)


@reproduce.command()
def single_cell(
    data: Annotated[
        Path | None, typer.Option(help="Folder with single-cell/*.csv.gz [default: PYRO_RIEMANN_DATA].")
    ] = None,
    results: Results = Path("runs/single_cell"),
    page: Page = None,
    report: Report = False,
    threads: Threads = None,
) -> None:
    """Fit negative binomial VAEs to cells and to mixtures of Tian et al. (2019); start again to go on."""
    import torch
    from rich.console import Console

    from pyro_riemann.experiments import single_cell as experiment

    if threads is not None:
        torch.set_num_threads(threads)
    with clear_errors(f"Stopped. The same command again does what is missing in {results}."):
        if not report:
            experiment.run(results, data, console=Console())
        written = page or results.with_suffix(".md")
        experiment.write_report(results, written)
        typer.echo(written)


@reproduce.command()
def identifiability(
    data: Annotated[Path | None, typer.Option(help="Folder with MNIST/raw [default: PYRO_RIEMANN_DATA].")] = None,
    results: Results = Path("runs/identifiability/results"),
    checkpoints: Models = Path("runs/identifiability/models"),
    page: Page = None,
    report: Report = False,
    threads: Threads = None,
) -> None:
    """Compare distances over retrainings of a VAE, as Syrota et al. (2025) do; start again to go on."""
    import torch
    from rich.console import Console

    from pyro_riemann.experiments import identifiability as experiment

    if threads is not None:
        torch.set_num_threads(threads)
    with clear_errors(f"Stopped. The same command again goes on from {checkpoints}."):
        if not report:
            experiment.run(results, data, console=Console(), checkpoints=checkpoints)
        for path in experiment.write_report(results, page or results.with_suffix(".md")):
            typer.echo(path)
