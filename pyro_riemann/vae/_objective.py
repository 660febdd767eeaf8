"""What a training lowers: the part of a model that the training loop asks."""

from __future__ import annotations

from typing import Protocol

import pyro
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_riemann._formulas.training import History
from pyro_riemann.vae._processes import Processes


class Settings(Protocol):
    """The settings that the loop itself reads, of a frozen dataclass."""

    @property
    def batch_size(self) -> int:
        """Rows a step."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Epochs between checkpoints."""
        ...

    @property
    def seed(self) -> int:
        """Of the order of the data, the noise and what a phase starts from."""
        ...


class Objective:
    """A module, the loss of its data, and what is done where phases and epochs of its training begin and end.

    A subclass has :meth:`named_parameters`, :meth:`svi`, :meth:`step`, :meth:`total_loss` and :meth:`rate`; the others
    do nothing by default.

    Attributes:
        module: what is trained.
        config: its settings.
        data_dim: number D of entries of a datum.
        phases: epochs of each phase.
        entries: names of the numbers that :meth:`record` gives; the validation loss is one, up to its sign.
        hint: what else to do about a loss that is not finite.
        processes: who trains; by default this process alone.
    """

    entries: tuple[str, ...] = ("loss", "validation")
    hint: str = ""

    def __init__(self, module: nn.Module, config: Settings, data_dim: int, phases: tuple[int, ...]) -> None:
        self.module, self.config, self.data_dim, self.phases = module, config, data_dim, phases
        self.processes = Processes()

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by their names in Pyro's parameter store."""
        raise NotImplementedError

    def svi(self, optimizer: pyro.optim.PyroOptim) -> SVI:
        """Model, guide and loss of the steps of a phase."""
        raise NotImplementedError

    def step(self, svi: SVI, rows: Tensor, size: int, phase: int, epoch: int) -> float:
        """One step on a minibatch of ``size`` data in all; the loss per datum before it."""
        raise NotImplementedError

    def total_loss(self, rows: Tensor) -> float:
        """Sum of the losses of held-out ``rows``, without gradient."""
        raise NotImplementedError

    def rate(self, name: str, phase: int, history: History) -> float:
        """Learning rate of the parameter of that name in Pyro's parameter store."""
        raise NotImplementedError

    def checked(self, name: str, rows: Tensor) -> Tensor:
        """``rows``, if they can be data of this model."""
        return rows

    def enter_phase(self, phase: int) -> None:
        """Choose what is trained; before each epoch."""

    def begin_phase(self, phase: int, data: Tensor) -> None:
        """Set starting values, once; draws from the seed of the training."""

    def begin_epoch(self, phase: int, epoch: int, data: Tensor) -> None:
        """Before the steps of an epoch."""

    def end(self, data: Tensor) -> None:
        """After the last epoch, with the best weights, before these are saved."""

    def finish(self, data: Tensor) -> None:
        """At the end of every call, also of one that found all epochs done."""

    def comparable(self, phase: int, epoch: int) -> bool:
        """Whether the validation loss of this epoch is of the same function as that of later ones."""
        return True

    def stopped(self, stale: int) -> bool:
        """Whether so many epochs without a better validation loss end the phase."""
        return False

    def record(self, loss: float, validation: float, history: History) -> dict[str, float]:
        """What the history holds of an epoch."""
        return {"loss": loss, "validation": validation}
