"""Command line: ``python -m pyro_riemann`` or ``pyro-riemann``."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pyro_riemann import __version__
from pyro_riemann.cli._command import Data, Device, Fresh, Quiet, Threads, clear_errors, work
from pyro_riemann.cli._reproduce import reproduce

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
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


@app.command()
def quickstart(
    dataset: Annotated[
        Dataset, typer.Option(help="Digits come with scikit-learn; the others need --data.")
    ] = Dataset.digits,
    data: Data = None,
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
    device: Device = "cpu",
    threads: Threads = None,
    quiet: Quiet = False,
    fresh: Fresh = False,
) -> None:
    """Train an R-VAE and a plain VAE on digits, run NUTS in the latent space, judge and draw the result.

    Run again with the same options after an interruption: training resumes from the checkpoints in the output folder.
    """
    settings = dict(locals())  # which bear the names of the options, but for these
    for name in ("dataset", "threads", "fresh"):
        del settings[name]
    from pyro_riemann.experiments.quickstart import configure, run

    config = configure(dataset.value, **settings, resume=not fresh)
    with work(f"resumes from {config.output}/checkpoints", devices=[device], threads=threads):
        run(config)


@app.command()
def explore(
    run: Annotated[Path, typer.Argument(help="Output folder of the quickstart.")],
    model: Annotated[str, typer.Option(help="rvae or vae.")] = "rvae",
    data: Data = None,
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
    from pyro_riemann._files import write_file
    from pyro_riemann.explorer import PageServer, load_run, run_page

    with clear_errors("Stopped."):
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
