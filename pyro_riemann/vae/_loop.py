"""One training run: its two phases, its epochs, its checkpoints."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from pyro_riemann._checks import check_finite
from pyro_riemann._safe_points import SafePoints
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae._checkpoint import generators, open_folder, set_generators
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._phases import (
    GROUPS,
    encode_all,
    fixed_seed,
    parameter_groups,
    set_phase,
    start_phase_one,
    start_phase_two,
)
from pyro_riemann.vae._saved_run import identity_of, load_run, save_run
from pyro_riemann.vae._settings import History, TrainingConfig
from pyro_riemann.vae._shortcuts import constants_left_out

MAX_TABLE_ERROR = 0.1  # relative error of G, see `GridMetric.interpolation_error`
Clocks = tuple[float, float]


def clocks(since: Clocks = (0.0, 0.0)) -> Clocks:
    """Seconds on the wall and of the processor, since some moment."""
    return time.perf_counter() - since[0], time.process_time() - since[1]


class TrainingRun:
    """One VAE on its way through both phases: what a checkpoint holds, and the work of an epoch.

    :meth:`ready` leads to the next epoch, :meth:`train_epoch` does it: who trains several VAEs at once puts another way
    to do the steps between its start and its end.
    """

    def __init__(
        self,
        vae: VAE,
        data: Tensor,
        validation: Tensor | None,
        config: TrainingConfig,
        device: str | torch.device | None,
        checkpoint: str | Path | None,
        safe: SafePoints,
    ) -> None:
        self.device = torch.device(device) if device is not None else next(vae.parameters()).device
        self.vae, self.config = vae.to(self.device), config
        like = next(vae.parameters())
        for name, value in (("data", data), ("validation", validation)):
            if value is not None and (value.dim() != 2 or value.shape[-1] != vae.encoder.data_dim or len(value) == 0):
                raise ValueError(f"`{name}` must have shape (n, {vae.encoder.data_dim}), got {tuple(value.shape)}.")
        self.data = check_finite("data", data).to(like)
        self.validation = None if validation is None else check_finite("validation", validation).to(like)
        self.folder, self.safe = None if checkpoint is None else Path(checkpoint), safe
        self.identity = None if self.folder is None else identity_of(vae, self.data, self.validation, config)
        self.history = History()
        self.phase, self.epoch = 1, 0  # epoch within the phase
        self.begun = 0  # the phase that has been prepared
        self.best, self.stale = -math.inf, 0
        self.best_state: dict[str, Tensor] | None = None
        self.finished = False
        self.svi: SVI | None = None
        self.parameters: Any = {"params": {}, "constraints": {}}  # this run's own parameter store
        self.in_store = False
        self.kept_codes: Tensor | None = None
        self.optimizer_state: dict[str, Any] = {}
        self.losses: list[float] = []  # of the steps so far, where the epoch was saved between two of them
        self.noise: dict[str, Tensor] = {}  # states of the generators there
        self.spent: Clocks = (0.0, 0.0)  # on these steps
        self.started = clocks()  # the epoch

    @contextmanager
    def at_work(self, resume: bool) -> Iterator[None]:
        """Hold the folder, alone, and go on from what it has; else start over."""
        if self.folder is None:
            yield
            return
        with open_folder(self.folder, resume) as found:
            if found:
                load_run(self)
            yield

    # ---------------------------------------------------------------- epochs

    def ready(self) -> bool:
        """Bring the run to its next epoch, through the end of a phase where that is due; false if there is none."""
        while not self.finished:
            limit = self.config.warm_up_epochs if self.phase == 1 else self.config.epochs
            if self.epoch < limit and not self._stopped():
                set_phase(self.vae, self.phase, self.config.phase_two)  # also for a run that resumes within one
                if self.epoch == 0 and self.begun != self.phase:
                    self._begin_phase()
                return True
            self._end_phase()
        set_phase(self.vae, 2, GROUPS)
        self.vae.eval()
        return False

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term in the coming epoch."""
        ramp = max(1, round(self.config.kl_ramp * self.config.warm_up_epochs))
        return self.config.kl_weight * (min(1.0, (self.epoch + 1) / ramp) if self.phase == 1 else 1.0)

    def train_epoch(self) -> dict[str, Any]:
        """One epoch by SVI, or the rest of one; returns its record."""
        self.started = clocks(self.spent)
        self.start_epoch()
        return self.end_epoch(self.steps(), self.started)

    def start_epoch(self) -> None:
        """Renew the metric where that is due."""
        due = self.epoch > 0 and self.epoch % self.config.refresh_every == 0
        if self.phase == 2 and due and self.vae.needs_metric and not self.losses:  # else it was, before these steps
            self.vae.refresh_metric(self._codes())
        self.vae.train()

    def draw_order(self) -> Tensor:
        """A random order of the training data, from the present generator."""
        return torch.randperm(len(self.data), device="cpu").to(self.device)

    def randomness(self) -> AbstractContextManager[None]:
        """The noise and the order of the coming epoch: a function of seed and epoch alone."""
        return fixed_seed(self.config.seed * 100_003 + len(self.history), self.device)

    def steps(self) -> float:
        """All steps of an epoch by SVI; returns the mean ELBO per datum."""
        with self._store(), self.randomness(), constants_left_out(self.vae):
            svi, weight = self.svi or self._make_svi(), self.kl_weight
            batches = self.draw_order().split(self.config.batch_size)
            if self.losses:
                set_generators(self.noise, self.device)
            for rows in batches[len(self.losses) :]:
                loss = svi.step(self.data[rows], size=len(self.data), kl_weight=weight)
                self.losses.append(self.checked(loss) / len(self.data))
                if len(self.losses) < len(batches):
                    self.safe.reached(self._save_within_epoch)
        elbo, self.losses = -sum(self.losses) / len(self.losses), []
        return elbo

    def checked(self, loss: float) -> float:
        """The loss, if it is finite.

        Raises:
            ValueError: if it is not.
        """
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} in phase {self.phase}, epoch {self.epoch}: lower the learning rate, "
                "or check that the prior's support holds the posterior (a uniform prior's box)."
            )
        return loss

    def end_epoch(self, elbo: float, started: Clocks, shared_by: int = 1) -> dict[str, Any]:
        """Validate, keep the best weights, record the epoch and save it; returns the record."""
        self.vae.eval()
        held_out = elbo if self.validation is None else self._validate(self.validation)
        if math.isnan(held_out):
            self.checked(held_out)
        if not (self.phase == 1 and self.kl_weight < self.config.kl_weight):  # ELBOs of the ramp do not compare
            if held_out > self.best:
                self.best, self.stale = held_out, 0
                self.best_state = {key: value.clone() for key, value in self.vae.state_dict().items()}
            else:
                self.stale += 1
        self.epoch += 1
        wall, processor = (seconds / shared_by for seconds in clocks(started))
        entry = {"phase": self.phase, "epoch": self.epoch, "elbo": elbo, "validation": held_out}
        entry |= {"seconds": wall, "processor_seconds": processor}
        self.history.epochs.append(entry)
        self.spent, self.noise = (0.0, 0.0), {}
        if len(self.history) % self.config.checkpoint_every == 0:
            self._save()
        self.safe.reached(self._save)
        return entry

    def _save(self) -> None:
        """Write a checkpoint of this moment, if there is a folder for it."""
        if self.folder is not None:
            save_run(self)
            self.safe.saved()

    def _save_within_epoch(self) -> None:
        """Write one between two steps: the state of the generators belongs to it."""
        self.noise, self.spent = generators(self.device), clocks(self.started)
        self._save()

    def optimizer_states(self) -> dict[str, Any]:
        """State of the optimiser of each parameter, by its name in the parameter store."""
        if self.svi is None:
            return self.optimizer_state
        with self._store():
            state: dict[str, Any] = self.svi.optim.get_state()
            return state

    @contextmanager
    def _store(self) -> Iterator[None]:
        """This run's own parameter store; Pyro's scopes do not nest, and a step may be saved within."""
        if self.in_store:
            yield
            return
        self.in_store = True
        try:
            with pyro.get_param_store().scope(self.parameters):
                yield
        finally:
            self.in_store = False

    def _stopped(self) -> bool:
        return self.config.patience is not None and self.stale >= self.config.patience

    def _begin_phase(self) -> None:
        self.begun, self.svi, self.optimizer_state = self.phase, None, {}
        if self.phase == 1:
            start_phase_one(self.vae, self.data)
        else:
            start_phase_two(self.vae, self.data, seed=self.config.seed)

    def _end_phase(self) -> None:
        if self.best_state is not None:
            self.vae.load_state_dict(self.best_state)
        self.best, self.best_state, self.stale = -math.inf, None, 0
        if self.phase == 2:
            self.finished = True
            if self.config.epochs == 0:
                set_phase(self.vae, 2, self.config.phase_two)
                start_phase_two(self.vae, self.data, seed=self.config.seed)
            elif self.vae.needs_metric:
                self.vae.refresh_metric(self._codes())
            self._judge_table()
            self._save()
        else:
            self.phase, self.epoch, self.svi, self.optimizer_state = 2, 0, None, {}

    def _judge_table(self) -> None:
        """Warn if the metric is a table that is wrong where the codes are."""
        if not self.vae.needs_metric or not isinstance(self.vae.metric, GridMetric):
            return
        if (error := float(self.vae.metric.interpolation_error)) > MAX_TABLE_ERROR:
            warnings.warn(
                f"the table of the metric is off by up to {error:.2g} of the metric at 90 % of the training codes "
                f"(bound: {MAX_TABLE_ERROR}): distances in training were as wrong. Raise `grid_resolution` "
                f"(now {self.vae.grid_resolution}), or use `metric='fixed'`.",
                UserWarning,
                stacklevel=4,
            )

    def rate(self, name: str) -> float:
        """Adam's rate in this phase for the parameter of that name in the parameter store."""
        prior = {id(value) for value in parameter_groups(self.vae)["prior"]}
        slow = {f"{self.vae.store_name}.{key}" for key, value in self.vae.named_parameters() if id(value) in prior}
        return self.config.prior_learning_rate if name in slow and self.phase == 2 else self.config.learning_rate

    def _make_svi(self) -> SVI:
        config = self.config
        optimizer = pyro.optim.Adam(lambda name: {"lr": self.rate(name)})
        optimizer.set_state(self.optimizer_state)
        # a nesting that is not given would be found by a run of the model that draws: not the noise of a resumed run
        elbo = Trace_ELBO(config.num_particles, max_plate_nesting=1, vectorize_particles=config.num_particles > 1)
        self.svi = SVI(self.vae.model, self.vae.guide, optimizer, elbo)
        return self.svi

    def _validate(self, data: Tensor) -> float:
        """ELBO per datum at weight 1, with noise of its own fixed seed: epochs compare, training is not disturbed."""
        total = 0.0
        with fixed_seed(self.config.seed + 1, self.device), torch.no_grad(), self._store():
            for rows in data.split(max(self.config.batch_size, 500)):
                total -= Trace_ELBO().loss(self.vae.model, self.vae.guide, rows)
        return total / len(data)

    def _codes(self) -> Tensor:
        """Codes of the training data, encoded once while the encoder does not change."""
        frozen = self.phase == 2 and not any(value.requires_grad for value in self.vae.encoder.loc.parameters())
        if self.kept_codes is None or not frozen:
            self.kept_codes = encode_all(self.vae, self.data)
        return self.kept_codes
