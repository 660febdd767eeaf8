"""Two-phase training of a VAE on Pyro's SVI, with validation, early stopping and checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from pyro_riemann._checks import check_finite
from pyro_riemann.vae._checkpoint import join_state, load_checkpoint, save_checkpoint, split_state
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
from pyro_riemann.vae._settings import History, TrainingConfig


def train(
    vae: VAE,
    data: Tensor,
    validation: Tensor | None = None,
    config: TrainingConfig | None = None,
    *,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
) -> History:
    """Train a VAE in two phases and leave it in evaluation mode, ready for phase 2's use.

    Phase 1, deterministic warm-up: encoder and decoder mean, with one standard deviation for all
    entries, Gaussian posterior, standard normal prior where the VAE's own is Riemannian, and a KL weight that rises
    from 0. Then the precision network gets its centres from the codes, the metric is taken, the prior its starting
    values, and phase 2 trains precision and prior (K20, appendix C).

    Bit for bit: with a ``checkpoint`` folder, a run that was stopped and called again gives the same weights
    as one that was not. Ctrl-C stops at once; the last checkpoint stays valid.

    Args:
        vae: the model; trained in place.
        data: training data ``(n, D)``.
        validation: held-out data ``(m, D)``; without it early stopping uses the training ELBO.
        config: settings.
        device: where to train; the model and the data are moved there. Default: where the model is.
        checkpoint: folder for checkpoints.
        resume: continue from ``checkpoint`` if it holds one (its config must be the same); else start over.
        progress: show a progress bar.

    Returns:
        The history; ELBOs in nats per datum.

    Raises:
        ValueError: for data of the wrong shape, a checkpoint of another config, or a loss that is not finite.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, latent_dim=1, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20)
        >>> history = train(vae, torch.rand(60, 4), config=config, progress=False)
        >>> len(history)
        2
    """
    return _Run(vae, data, validation, config or TrainingConfig(), device, checkpoint, resume, progress).run()


class _Run:
    """State of one training run: what a checkpoint holds, and the loop over epochs."""

    def __init__(
        self,
        vae: VAE,
        data: Tensor,
        validation: Tensor | None,
        config: TrainingConfig,
        device: str | torch.device | None,
        checkpoint: str | Path | None,
        resume: bool,
        progress: bool,
    ) -> None:
        self.device = torch.device(device) if device is not None else next(vae.parameters()).device
        self.vae, self.config, self.progress = vae.to(self.device), config, progress
        like = next(vae.parameters())
        for name, value in (("data", data), ("validation", validation)):
            if value is not None and (value.dim() != 2 or value.shape[-1] != vae.encoder.data_dim or len(value) == 0):
                raise ValueError(f"`{name}` must have shape (n, {vae.encoder.data_dim}), got {tuple(value.shape)}.")
        self.data = check_finite("data", data).to(like)
        self.validation = None if validation is None else check_finite("validation", validation).to(like)
        self.folder = None if checkpoint is None else Path(checkpoint)
        self.history = History()
        self.phase, self.epoch = 1, 0  # epoch within the phase
        self.best, self.stale = -math.inf, 0
        self.best_state: dict[str, Tensor] | None = None
        self.finished = False
        self.svi: SVI | None = None
        self.kept_codes: Tensor | None = None
        self.optimizer_state: dict[str, Any] = {}
        if self.folder is not None and resume and (self.folder / "checkpoint.json").exists():
            self._load()

    # ---------------------------------------------------------------- loop

    def run(self) -> History:
        with pyro.get_param_store().scope(), _progress(self.progress, self._total()) as bar:
            bar.advance(len(self.history))
            while not self.finished:
                limit = self.config.warm_up_epochs if self.phase == 1 else self.config.epochs
                if self.epoch >= limit or self._stopped():
                    self._end_phase()
                    continue
                if self.epoch == 0:
                    self._begin_phase()
                if self.svi is None:
                    self._make_svi()
                entry = self._one_epoch()
                self.history.epochs.append(entry)
                bar.report(entry)
                if self.folder is not None and len(self.history) % self.config.checkpoint_every == 0:
                    self._save()
        set_phase(self.vae, 2, GROUPS)
        self.vae.eval()
        return self.history

    def _total(self) -> int:
        return self.config.warm_up_epochs + self.config.epochs

    def _stopped(self) -> bool:
        return self.config.patience is not None and self.stale >= self.config.patience

    def _begin_phase(self) -> None:
        self.svi, self.optimizer_state = None, {}
        set_phase(self.vae, self.phase, self.config.phase_two)
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
            if self.folder is not None:
                self._save()
        else:
            self.phase, self.epoch, self.svi, self.optimizer_state = 2, 0, None, {}

    def _make_svi(self) -> None:
        set_phase(self.vae, self.phase, self.config.phase_two)
        prior = {id(value) for value in parameter_groups(self.vae)["prior"]}
        slow = {f"{self.vae.store_name}.{key}" for key, value in self.vae.named_parameters() if id(value) in prior}
        config = self.config

        def settings(name: str) -> dict[str, float]:
            return {"lr": config.prior_learning_rate if name in slow and self.phase == 2 else config.learning_rate}

        optimizer = pyro.optim.Adam(settings)
        optimizer.set_state(self.optimizer_state)
        elbo = Trace_ELBO(num_particles=config.num_particles, vectorize_particles=config.num_particles > 1)
        self.svi = SVI(self.vae.model, self.vae.guide, optimizer, elbo)

    def _one_epoch(self) -> dict[str, Any]:
        config, started = self.config, time.perf_counter()
        if self.phase == 2 and self.epoch > 0 and self.epoch % config.refresh_every == 0 and self.vae.needs_metric:
            self.vae.refresh_metric(self._codes())
        weight = config.kl_weight
        if self.phase == 1:
            ramp = max(1, round(config.kl_ramp * config.warm_up_epochs))
            weight *= min(1.0, (self.epoch + 1) / ramp)
        assert self.svi is not None
        self.vae.train()
        with fixed_seed(config.seed * 100_003 + len(self.history), self.device):
            order = torch.randperm(len(self.data)).to(self.device)
            losses = []
            for rows in order.split(config.batch_size):
                loss = self.svi.step(self.data[rows], size=len(self.data), kl_weight=weight)
                if not math.isfinite(loss):
                    raise ValueError(
                        f"the loss became {loss} in phase {self.phase}, epoch {self.epoch}: lower the learning rate, "
                        "or check that the prior's support holds the posterior (a uniform prior's box)."
                    )
                losses.append(loss / len(self.data))
        self.vae.eval()
        elbo = -sum(losses) / len(losses)
        held_out = elbo if self.validation is None else self._validate(self.validation)
        if not (self.phase == 1 and weight < config.kl_weight):  # ELBOs of the ramp do not compare
            if held_out > self.best:
                self.best, self.stale = held_out, 0
                self.best_state = {key: value.clone() for key, value in self.vae.state_dict().items()}
            else:
                self.stale += 1
        self.epoch += 1
        seconds = time.perf_counter() - started
        return {"phase": self.phase, "epoch": self.epoch, "elbo": elbo, "validation": held_out, "seconds": seconds}

    def _validate(self, data: Tensor) -> float:
        """ELBO per datum at weight 1, with noise of its own fixed seed: epochs compare, training is not disturbed."""
        total = 0.0
        with fixed_seed(self.config.seed + 1, self.device), torch.no_grad():
            for rows in data.split(max(self.config.batch_size, 500)):
                total -= Trace_ELBO().loss(self.vae.model, self.vae.guide, rows)
        return total / len(data)

    def _codes(self) -> Tensor:
        """Codes of the training data, encoded once while the encoder does not change."""
        frozen = self.phase == 2 and not any(value.requires_grad for value in self.vae.encoder.loc.parameters())
        if self.kept_codes is None or not frozen:
            self.kept_codes = encode_all(self.vae, self.data)
        return self.kept_codes

    # ---------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        assert self.folder is not None
        tensors = {f"model/{key}": value for key, value in self.vae.state_dict().items()}
        tensors |= {f"best/{key}": value for key, value in (self.best_state or {}).items()}
        state = self.optimizer_state if self.svi is None else self.svi.optim.get_state()
        moments, rest = split_state(state, "optimizer")
        info = {
            "config": dataclasses.asdict(self.config),
            "vae": getattr(self.vae, "config", None),
            "phase": self.phase,
            "epoch": self.epoch,
            "best": self.best if math.isfinite(self.best) else None,
            "stale": self.stale,
            "finished": self.finished,
            "history": self.history.epochs,
            "optimizer": rest,
            "seed": self.config.seed,  # noise and order of epoch e come from (seed, e): no generator state to keep
        }
        save_checkpoint(self.folder, {**tensors, **moments}, info)

    def _load(self) -> None:
        assert self.folder is not None
        tensors, info = load_checkpoint(self.folder, self.device)
        mine = dataclasses.asdict(self.config)
        theirs = {**info["config"], "phase_two": tuple(info["config"]["phase_two"])}
        if changed := sorted(key for key in mine if mine[key] != theirs.get(key)):
            raise ValueError(
                f"the checkpoint in {self.folder} was made with another config ({', '.join(changed)} differ): "
                "resume with the same, or start over with `resume=False`."
            )
        self.vae.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model/")})
        best = {key[5:]: value for key, value in tensors.items() if key.startswith("best/")}
        self.best_state = best or None
        self.phase, self.epoch, self.stale = info["phase"], info["epoch"], info["stale"]
        self.best = -math.inf if info["best"] is None else info["best"]
        self.finished, self.history = info["finished"], History(info["history"])
        self.optimizer_state = join_state(info["optimizer"], tensors)


class _Bar:
    """Progress on the terminal, or nothing."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, count: int) -> None:
        if self.bar is not None:
            self.bar.update(count)

    def report(self, entry: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.set_description(f"phase {entry['phase']}")
            self.bar.set_postfix(elbo=f"{entry['elbo']:.1f}", validation=f"{entry['validation']:.1f}")
            self.bar.update(1)


@contextmanager
def _progress(show: bool, total: int) -> Iterator[_Bar]:
    if not show:
        yield _Bar(None)
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch") as bar:
        yield _Bar(bar)
