"""What watches a training: after each epoch its record goes to callbacks, of which the progress bar is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn

from pyro_riemann._work import shows_itself

Record = Mapping[str, Any]
"""What is recorded of an epoch, see :class:`~pyro_riemann.vae.History`."""


@runtime_checkable
class Callback(Protocol):
    """Is told of a training: a subclass overrides what it wants to hear of.

    A callback sees the model between two epochs and must not change it: a run that resumes would not end at the same
    weights. An epoch is told before it is saved, so that one that a crash undoes is told again.

    Example:
        >>> class Printer(Callback):
        ...     def epoch(self, record, model):
        ...         print(record["epoch"])
        >>> Printer().epoch({"epoch": 3}, nn.Identity())
        3
    """

    def start(self, num_epochs: int, num_done: int) -> None:
        """Training begins.

        Args:
            num_epochs: of all phases.
            num_done: of these, done before by a run that resumes.
        """
        return

    def epoch(self, record: Record, model: nn.Module) -> None:
        """An epoch has ended.

        Args:
            record: its entry of the history.
            model: the model, in evaluation mode.
        """
        return

    def stop(self) -> None:
        """Training has ended, or was interrupted."""
        return


@runtime_checkable
class ScalarWriter(Protocol):
    """What can draw curves of numbers, such as the ``SummaryWriter`` of ``torch.utils.tensorboard``.

    Example:
        >>> class Lines:
        ...     def add_scalar(self, tag, scalar_value, global_step=None):
        ...         print(tag, scalar_value, global_step)
        >>> isinstance(Lines(), ScalarWriter)
        True
    """

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Add a point to a curve.

        Args:
            tag: name of the curve.
            scalar_value: a number.
            global_step: its place.
        """
        ...


Watcher = Callback | ScalarWriter | Callable[[Record], object]
"""What training takes as a callback."""
Tell = Callable[[Record, nn.Module], None]


class ProgressBar(Callback):
    """A bar on the terminal, by tqdm.

    Example:
        >>> bar = ProgressBar()
        >>> bar.start(num_epochs=3, num_done=0)
        >>> bar.stop()
    """

    def start(self, num_epochs: int, num_done: int) -> None:
        from tqdm import tqdm

        shows_itself()
        self.bar = tqdm(total=num_epochs, initial=num_done, unit="epoch")

    def epoch(self, record: Record, model: nn.Module) -> None:
        self.bar.set_postfix(phase=record["phase"], validation=f"{record['validation']:.5g}")
        self.bar.update(1)

    def stop(self) -> None:
        self.bar.close()


@contextmanager
def told(
    callbacks: Sequence[Callback], num_epochs: int, num_done: int
) -> Iterator[Callable[[Record, nn.Module], None]]:
    """Tell that training begins and, however it does, that it ends; gives what tells of an epoch."""
    count = num_done

    def epoch(record: Record, model: nn.Module) -> None:
        nonlocal count
        count += 1
        for one in callbacks:
            one.epoch({**record, "step": count}, model)

    for one in callbacks:
        one.start(num_epochs, num_done)
    try:
        yield epoch
    finally:
        for one in callbacks:
            one.stop()


def as_callbacks(given: Sequence[Watcher], progress: bool) -> list[Callback]:
    """What was given as callbacks, and on request a progress bar."""
    return [*map(_callback, given), *([ProgressBar()] if progress else [])]


class _Scalars(Callback):
    """A writer of scalars as a callback: each number of a record by its name, over all epochs of all phases."""

    def __init__(self, writer: ScalarWriter) -> None:
        self.writer = writer

    def epoch(self, record: Record, model: nn.Module) -> None:
        for name, value in record.items():
            if isinstance(value, float):
                self.writer.add_scalar(f"training/{name}", value, record["step"])


class _Function(Callback):
    def __init__(self, function: Callable[[Record], object]) -> None:
        self.function = function

    def epoch(self, record: Record, model: nn.Module) -> None:
        self.function(record)


def _callback(given: Watcher) -> Callback:
    if isinstance(given, Callback):
        return given
    if isinstance(given, ScalarWriter):
        return _Scalars(given)
    if callable(given):
        return _Function(given)
    raise TypeError(
        "`callbacks` must hold `Callback`s, functions of a record or writers with `add_scalar`, got "
        f"{type(given).__name__}."
    )
