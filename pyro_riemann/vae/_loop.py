"""The training loop of every model of the package: epochs of SVI steps, the best weights, checkpoints that resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from torch import Tensor

from pyro_riemann._formulas.training import History
from pyro_riemann._safe_points import SafePoints
from pyro_riemann._seed import seeded
from pyro_riemann.vae._callbacks import Callback, told
from pyro_riemann.vae._checkpoint import generators, load_checkpoint, open_folder, set_generators
from pyro_riemann.vae._data import Data, as_rows
from pyro_riemann.vae._objective import Objective
from pyro_riemann.vae._saved_run import RunState, identity_of, load_run, save_run


def run_training(
    objective: Objective,
    data: Data,
    validation: Data | None,
    callbacks: Sequence[Callback],
    checkpoint: str | Path | None,
    resume: bool,
    device: str | torch.device | None = None,
) -> History:
    """Train by an objective, through all of its phases, or what a checkpoint says is missing of them."""
    with closing(objective.processes) as processes:
        safe = SafePoints(active=checkpoint is not None, agreed=processes.agreed)
        run = TrainingRun(objective, data, validation, checkpoint, device, safe)
        heard = callbacks if processes.first else ()
        with run.folder_held(resume), safe, told(heard, sum(objective.phases), len(run.history)) as tell:
            while run.next_epoch():
                tell(run.train_epoch(), run.module)
                run.epoch_told()
    return run.history


class TrainingRun(RunState):
    """The state of one training, which is what its checkpoint holds, and the work of an epoch.

    :meth:`next_epoch` closes a phase that is over and prepares the next; :meth:`train_epoch` takes the steps of one
    epoch, validates, and keeps the best weights; :meth:`epoch_told` saves. The order of the data and the noise of an
    epoch are a function of the seed and the number of epochs before it: a checkpoint between two epochs needs no
    state of a generator; one between two steps holds it.
    """

    def __init__(
        self,
        objective: Objective,
        data: Data,
        validation: Data | None,
        checkpoint: str | Path | None,
        device: str | torch.device | None,
        safe: SafePoints,
    ) -> None:
        self.safe = safe
        place = torch.device(device) if device is not None else next(objective.module.parameters()).device
        super().__init__(objective, None if checkpoint is None else Path(checkpoint), place)
        like = next(self.module.to(place).parameters())
        self.data = objective.checked("data", as_rows("data", data, objective.data_dim).to(like))
        self.validation: Tensor | None = None
        if validation is not None:
            rows = as_rows("validation", validation, objective.data_dim).to(like)
            self.validation = objective.checked("validation", rows)
        self.processes = objective.processes
        if self.folder is not None or self.processes.count > 1:
            self.identity = identity_of(self.module, self.data, self.validation, objective.config)
            self.processes.check_equal(self.module, self.identity)
            self.processes.make_equal(self.module)
        self.batches = math.ceil(len(self.data) / objective.config.batch_size)
        self.started = (0.0, 0.0)
        self.svi: SVI | None = None
        self._parameters: Any = {"params": {}, "constraints": {}}  # this run's own parameter store
        self._in_store = False

    @contextmanager
    def folder_held(self, resume: bool) -> Iterator[None]:
        """Hold the folder of checkpoints, alone, and go on from what it has; else start over."""
        if self.folder is None:
            yield
            return
        folder = self.folder
        with ExitStack() as held:
            if self.processes.by_first(lambda: held.enter_context(open_folder(folder, resume))):
                load_run(self, *self.processes.by_first(lambda: load_checkpoint(folder)))
            yield

    # ---------------------------------------------------------------- epochs

    def next_epoch(self) -> bool:
        """Prepare the coming epoch, through the end of a phase where that is due; false if there is none."""
        objective = self.objective
        self.module.eval()  # also of a run that resumes where a phase begins or ends
        while not self.finished:
            if self.epoch < objective.phases[self.phase - 1] and not objective.stopped(self.stale):
                objective.enter_phase(self.phase)  # also of a run that resumes within one
                if self.epoch == 0 and self.begun != self.phase:
                    self._begin_phase()
                return True
            self._end_phase()
        with seeded(objective.config.seed, self.device):
            objective.finish(self.data)
        return False

    def train_epoch(self) -> dict[str, Any]:
        """One epoch, or the rest of one that was saved within; its record."""
        now = time.perf_counter(), time.process_time()
        self.started = now[0] - self.spent[0], now[1] - self.spent[1]
        if not self.losses:
            self.objective.begin_epoch(self.phase, self.epoch, self.data)
        self.module.train()
        loss = self._steps()
        self.module.eval()
        held_out = loss if self.validation is None else self._validation_loss(self.validation)
        if math.isnan(held_out):
            self._check(held_out)
        if self.objective.comparable(self.phase, self.epoch):
            if held_out < self.best:
                self.best, self.stale = held_out, 0
                self.best_state = {key: value.clone() for key, value in self.module.state_dict().items()}
            else:
                self.stale += 1
        self.epoch += 1
        wall, processor = self._seconds()
        record = {"phase": self.phase, "epoch": self.epoch, **self.objective.record(loss, held_out, self.history)}
        record |= {"seconds": wall, "processor_seconds": processor}
        self.history.epochs.append(record)
        self.spent, self.noise = (0.0, 0.0), {}
        return record

    def epoch_told(self) -> None:
        """Save where that is due, and stop if a signal asked for it."""
        if len(self.history) % self.objective.config.checkpoint_every == 0:
            self._save()
        self.safe.reached(self._save)

    def _steps(self) -> float:
        """All steps of an epoch; the mean of their losses per datum."""
        objective, count = self.objective, len(self.data)
        with self._store(), self._epoch_seed():
            svi = self.svi or self._make_svi()
            names = {value: name for name, value in objective.named_parameters().items()}
            for parameter, adam in svi.optim.optim_objs.items():
                adam.param_groups[0]["lr"] = self.rate(names[parameter])
            order = torch.randperm(count, device="cpu").to(self.device).split(objective.config.batch_size)
            if self.losses:
                set_generators(self.noise, self.device)
            for rows in order[len(self.losses) :]:
                loss = objective.step(svi, self.data[rows], count, self.phase, self.epoch)
                self.losses.append(self._check(loss))
                if len(self.losses) < len(order):
                    self.safe.reached(self._save_within_epoch)
        loss, self.losses = sum(self.losses) / len(self.losses), []
        return loss

    def _epoch_seed(self) -> Any:
        return seeded(self.objective.config.seed * 100_003 + len(self.history), self.device)

    def _validation_loss(self, data: Tensor) -> float:
        """Loss per datum, with noise of its own fixed seed: epochs compare, and training is not disturbed."""
        config = self.objective.config
        with seeded(config.seed + 1, self.device), torch.no_grad(), self._store():
            parts = data.split(max(config.batch_size, 500))
            total = sum(self.processes.total(self.objective.total_loss, rows) for rows in parts)
        return total / len(data)

    def _check(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss of {type(self.module).__name__} became {loss} in epoch {len(self.history) + 1}: lower the "
                f"learning rate{self.objective.hint}."
            )
        return loss

    # ---------------------------------------------------------------- phases

    def _begin_phase(self) -> None:
        self.begun, self.svi, self.optimizer_state = self.phase, None, {}
        with seeded(self.objective.config.seed, self.device):
            self.objective.begin_phase(self.phase, self.data)
        self.processes.make_equal(self.module)

    def _end_phase(self) -> None:
        if self.best_state is not None:
            self.module.load_state_dict(self.best_state)
        self.best, self.best_state, self.stale = math.inf, None, 0
        if self.phase < len(self.objective.phases):
            self.phase, self.epoch, self.svi, self.optimizer_state = self.phase + 1, 0, None, {}
            return
        self.finished = True
        if self.objective.phases[-1] == 0:
            self.objective.enter_phase(self.phase)
            self._begin_phase()
        self.objective.end(self.data)
        self.processes.make_equal(self.module)
        self._save()

    # ---------------------------------------------------------------- the optimiser

    def optimizer_states(self) -> dict[str, Any]:
        if self.svi is None:
            return super().optimizer_states()
        with self._store():
            state: dict[str, Any] = self.svi.optim.get_state()
            return state

    def _make_svi(self) -> SVI:
        optimizer = pyro.optim.Adam(lambda name: {"lr": self.rate(name)})
        optimizer.set_state(self.optimizer_state)
        self.svi = self.objective.svi(optimizer)
        return self.svi

    @contextmanager
    def _store(self) -> Iterator[None]:
        """This run's own parameter store; Pyro's scopes do not nest, and a step may be saved within."""
        if self._in_store:
            yield
            return
        self._in_store = True
        try:
            with pyro.get_param_store().scope(self._parameters):
                yield
        finally:
            self._in_store = False

    # ---------------------------------------------------------------- checkpoints

    def _seconds(self) -> tuple[float, float]:
        return time.perf_counter() - self.started[0], time.process_time() - self.started[1]

    def _save(self) -> None:
        """Write a checkpoint of this moment, if there is a folder for it."""
        if self.folder is not None:
            self.processes.by_first(lambda: save_run(self))
            self.safe.saved()

    def _save_within_epoch(self) -> None:
        """Write one between two steps: the state of the generators belongs to it."""
        self.noise, self.spent = generators(self.device), self._seconds()
        self._save()
