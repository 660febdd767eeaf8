"""Command line: ``python -m pyro_riemann`` or ``pyro-riemann``."""

from __future__ import annotations

import enum
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_riemann import __version__, _work

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
reproduce = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
app.add_typer(reproduce, name="reproduce")


class Dataset(enum.StrEnum):
    """Data sets of the quickstart."""

    digits = "digits"
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pyro-riemann {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Pyro models with Riemannian priors."""


@reproduce.callback()
def reproduce_group() -> None:
    """Experiments of the papers, each resumable; tables and figures are made from the saved results."""


@app.command()
def quickstart(
    dataset: Annotated[
        Dataset, typer.Option(help="Digits come with scikit-learn; the others need --data.")
    ] = Dataset.digits,
    data: Annotated[Path | None, typer.Option(help="Folder that holds MNIST/raw or FashionMNIST/raw.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of results [default: runs/quickstart-DATASET].")] = None,
    warm_up_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of phase 1, each model.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of phase 2, each model.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    num_centers: Annotated[int | None, typer.Option(min=1, help="Centres of the precision network.")] = None,
    resolution: Annotated[int | None, typer.Option(min=8, help="Nodes an axis of the tabulated metric.")] = None,
    image: Annotated[int, typer.Option(min=0, help="Test image whose latent posterior NUTS samples.")] = 0,
    warmup: Annotated[int, typer.Option(min=1, help="Adaptation steps of each chain.")] = 250,
    draws: Annotated[int, typer.Option(min=4, help="Draws kept of each chain.")] = 750,
    iwae_draws: Annotated[int, typer.Option(min=1, help="Draws of the importance-weighted likelihood.")] = 500,
    limit: Annotated[int | None, typer.Option(min=10, help="Use only so many training images, for a trial.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads [default: torch's].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, whatever the output folder holds.")] = False,
) -> None:
    """Train an R-VAE and a plain VAE on digits, run NUTS in the latent space, judge and draw the result.

    Run again with the same options after an interruption: training resumes from the checkpoints in the output folder.
    """
    import torch

    from pyro_riemann.experiments.quickstart import configure, run

    _check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    config = configure(
        dataset.value,
        data=data,
        output=output,
        warm_up_epochs=warm_up_epochs,
        epochs=epochs,
        batch_size=batch_size,
        num_centers=num_centers,
        resolution=resolution,
        image=image,
        warmup=warmup,
        draws=draws,
        iwae_draws=iwae_draws,
        limit=limit,
        seed=seed,
        device=device,
        resume=not fresh,
        quiet=quiet,
    )
    stopped = f"Stopped. The same command again resumes from {config.output}/checkpoints."
    with _clear_errors(stopped):
        run(config)


@app.command()
def explore(
    run: Annotated[Path, typer.Argument(help="Output folder of the quickstart.")],
    model: Annotated[str, typer.Option(help="rvae or vae.")] = "rvae",
    data: Annotated[
        Path | None, typer.Option(help="Folder of MNIST or Fashion-MNIST [default: that of PYRO_RIEMANN_DATA].")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the page to this HTML file, which needs no server, and stop.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any that is free.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    resolution: Annotated[int, typer.Option(min=8, max=400, help="Nodes an axis of the metric's table.")] = 200,
) -> None:
    """Show the latent plane of a trained model in the browser: geodesics, Brownian motion, decoded images.

    The page is served to this machine alone, until Ctrl-C.
    """
    from pyro_riemann._store import write_file
    from pyro_riemann.explorer import PageServer, load_run, run_page

    with _clear_errors("Stopped."):
        page = run_page(load_run(run, model, data), resolution=resolution)
        if export is not None:
            if not export.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {export.parent} to write {export.name} to.")
            write_file(export, page)
            typer.echo(export)
            return
        with PageServer(page, port) as server:
            typer.echo(f"The latent explorer is at {server.url} (Ctrl-C ends it).")
            if not no_browser:
                typer.launch(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:  # the ordinary end, not an error
                typer.echo("\nStopped.")


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
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/kalatzis2020/results"),
    checkpoints: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("runs/kalatzis2020/models"),
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, on this machine.")] = 1,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1, ...; repeat it for several [default: cpu].")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads, all processes together.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write tables and figures of what is there.")] = False,
    page: Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")] = None,
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
        _check_device(name)
    if threads is not None:
        torch.set_num_threads(threads)
    with _clear_errors(f"Stopped. The same command again goes on from {checkpoints}."):
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
    page: Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do all of these runs again, whatever results and models there are.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads [default: torch's].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run the experiments of Chadebec & Allassonniere (2022); start again after an interruption to go on."""
    import dataclasses

    import torch
    from rich.console import Console

    from pyro_riemann._checks import check_one_of
    from pyro_riemann.experiments import chadebec2022 as experiment

    _check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    folder = results or Path(f"runs/chadebec2022-{protocol}")
    with _clear_errors(f"Stopped. The same command again does what is missing in {folder}."):
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
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/earth"),
    page: Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write the page of what is there.")] = False,
) -> None:
    """Fit densities to places on Earth, the benchmark of Mathieu & Nickel (2020); start again to go on."""
    from pyro_riemann.experiments import earth as experiment

    with _clear_errors(f"Stopped. The same command again does what is missing in {results}."):
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
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/single_cell"),
    page: Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write the page of what is there.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads [default: torch's].")] = None,
) -> None:
    """Fit negative binomial VAEs to cells and to mixtures of Tian et al. (2019); start again to go on."""
    import torch
    from rich.console import Console

    from pyro_riemann.experiments import single_cell as experiment

    if threads is not None:
        torch.set_num_threads(threads)
    with _clear_errors(f"Stopped. The same command again does what is missing in {results}."):
        if not report:
            experiment.run(results, data, console=Console())
        written = page or results.with_suffix(".md")
        experiment.write_report(results, written)
        typer.echo(written)


@reproduce.command()
def identifiability(
    data: Annotated[Path | None, typer.Option(help="Folder with MNIST/raw [default: PYRO_RIEMANN_DATA].")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/identifiability/results"),
    checkpoints: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("runs/identifiability/models"),
    page: Annotated[Path | None, typer.Option(help="Where the report goes [default: RESULTS.md].")] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write the page of what is there.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads [default: torch's].")] = None,
) -> None:
    """Compare distances over retrainings of a VAE, as Syrota et al. (2025) do; start again to go on."""
    import torch
    from rich.console import Console

    from pyro_riemann.experiments import identifiability as experiment

    if threads is not None:
        torch.set_num_threads(threads)
    with _clear_errors(f"Stopped. The same command again goes on from {checkpoints}."):
        if not report:
            experiment.run(results, data, console=Console(), checkpoints=checkpoints)
        for path in experiment.write_report(results, page or results.with_suffix(".md")):
            typer.echo(path)


class _Terminated(BaseException):
    """SIGTERM: what ends jobs of a scheduler or a container."""


@contextmanager
def _clear_errors(stopped: str) -> Iterator[None]:
    """Turn what the user can mend into one line, and an interruption into how to go on."""
    try:
        with warnings.catch_warnings(), _termination():
            # torch's own forward mode uses torch.jit.script and announces its end to whoever differentiates
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            yield
    except (KeyboardInterrupt, _Terminated) as error:
        typer.echo(f"\n{stopped}", err=True)
        raise typer.Exit(143 if isinstance(error, _Terminated) else 130) from None
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _termination() -> Iterator[None]:
    """SIGTERM raises :class:`_Terminated` inside, as SIGINT raises ``KeyboardInterrupt``."""

    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # others can have no handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r} cannot be used here: {reason}", param_hint="--device") from None
