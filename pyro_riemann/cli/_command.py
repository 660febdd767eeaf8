"""What commands share: options, devices and threads; errors and interruptions, as one line that says what to do."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyro_riemann import _work

if TYPE_CHECKING:
    from rich.console import Console

Data = Annotated[Path | None, typer.Option(help="Folder of the data sets [default: that of PYRO_RIEMANN_DATA].")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads, all together [default: torch's].")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over, whatever results and models there are.")]


class _Terminated(BaseException):
    """SIGTERM: what ends jobs of a scheduler or a container."""


@contextmanager
def clear_errors(stopped: str) -> Iterator[None]:
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


def check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r} cannot be used here: {reason}", param_hint="--device") from None


@contextmanager
def work(
    goes_on: str, *, devices: Iterable[str] = (), threads: int | None = None, quiet: bool = False
) -> Iterator[Console]:
    """The body of a command that works long; what the same command does after an interruption is said at one."""
    import torch
    from rich.console import Console

    for name in devices:
        check_device(name)
    if threads is not None:
        torch.set_num_threads(threads)
    with clear_errors(f"Stopped. The same command again {goes_on}."), _work.silence() if quiet else nullcontext():
        yield Console(quiet=quiet)
