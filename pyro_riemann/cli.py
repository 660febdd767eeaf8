"""Command line: ``python -m pyro_riemann`` or ``pyro-riemann``."""

from __future__ import annotations

import enum
import warnings
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


class Dataset(enum.StrEnum):
    """Data sets of the quickstart."""

    digits = "digits"
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"


@app.callback()
def main() -> None:
    """Pyro models with Riemannian priors."""


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
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore checkpoints in the output folder.")] = False,
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
    try:
        with warnings.catch_warnings():
            # torch's own forward mode uses torch.jit.script and announces its end to whoever differentiates
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            run(config)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. The same command again resumes from {config.output}/checkpoints.", err=True)
        raise typer.Exit(130) from None
    except (ValueError, FileNotFoundError, ImportError) as error:
        hint = " (--fresh starts over)" if "checkpoint" in str(error) else ""
        typer.echo(f"Error: {error}{hint}", err=True)
        raise typer.Exit(2) from None


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r} cannot be used here: {reason}", param_hint="--device") from None
