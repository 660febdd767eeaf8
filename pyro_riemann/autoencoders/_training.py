"""The training that all models share: Adam, halved on plateaus, best validation weights, checkpoints that resume."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_riemann._identity import describe, fingerprint
from pyro_riemann._safe_points import SafePoints
from pyro_riemann._store import check_tensors
from pyro_riemann.vae import load_checkpoint, save_checkpoint
from pyro_riemann.vae._checkpoint import (
    CHECKPOINT,
    check_identity,
    check_losses,
    check_moments,
    check_noise,
    check_numbers,
    generators,
    open_folder,
    part_of,
    refuse,
    set_generators,
)


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Settings of :meth:`Autoencoder.fit`; the defaults are those of C22, appendix E, for MNIST.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows a step.
        learning_rate: Adam's first rate.
        patience: halve the rate after so many epochs without a better validation loss.
        checkpoint_every: epochs between checkpoints.
        seed: order and noise of epoch e are functions of (seed, e) alone.

    Raises:
        ValueError: if a count is less than 1, or the rate is not positive.

    Example:
        >>> FitConfig(epochs=10).learning_rate
        0.001
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    patience: int = 5
    checkpoint_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")


@dataclasses.dataclass
class FitHistory:
    """Training and validation loss, learning rate and processor seconds of each epoch.

    Attributes:
        epochs: one entry an epoch: ``loss``, ``validation``, ``learning_rate``, ``cpu_seconds``.

    Example:
        >>> FitHistory([{"loss": 2.0, "validation": 3.0, "learning_rate": 1e-3, "cpu_seconds": 0.1}])["validation"]
        [3.0]
    """

    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def __getitem__(self, key: str) -> list[float]:
        return [entry[key] for entry in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)


def fit(
    model: Any,
    data: Tensor,
    validation: Tensor | None,
    config: FitConfig,
    checkpoint: str | Path | None,
    resume: bool,
    progress: bool,
) -> FitHistory:
    """See :meth:`Autoencoder.fit`."""
    folder = None if checkpoint is None else Path(checkpoint)
    with nullcontext(False) if folder is None else open_folder(folder, resume) as found:
        safe = SafePoints(active=folder is not None)
        run = _Run(model, data, validation, config, folder, safe)
        if found:
            run.load()
        with safe, pyro.get_param_store().scope(), _bar(progress, config.epochs) as advance:
            advance(run.history)
            while len(run.history) < config.epochs:
                run.one_epoch()
                advance(run.history)
                if len(run.history) % config.checkpoint_every == 0 or len(run.history) == config.epochs:
                    run.save()
                safe.reached(run.save)
    model.load_state_dict(run.best_state)
    model.eval()
    with seeded(config.seed, run.data.device):
        model.finish(run.data)
    return run.history


class _Run:
    """One training: the state that a checkpoint holds."""

    def __init__(
        self,
        model: Any,
        data: Tensor,
        validation: Tensor | None,
        config: FitConfig,
        folder: Path | None,
        safe: SafePoints,
    ) -> None:
        self.model, self.config, self.folder, self.safe = model, config, folder, safe
        like = next(model.parameters())
        self.data = data.to(like)
        self.validation = None if validation is None else validation.to(like)
        self.history = FitHistory()
        self.rate, self.best, self.stale = config.learning_rate, math.inf, 0
        self.losses: list[float] = []  # of the steps so far, where the epoch was saved between two of them
        self.noise: dict[str, Tensor] = {}  # states of the generators there
        self.spent, self.started = 0.0, 0.0  # processor seconds
        model.encoder.standardize(self.data)
        model.decoder.standardize(self.data)
        with seeded(config.seed, self.data.device):
            model.prepare(self.data)
        self.trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=self.rate)
        self.best_state: dict[str, Tensor] = _copy(model)
        self.identity = {} if folder is None else self.identify()

    def identify(self) -> dict[str, Any]:
        """Data, model and settings, which a checkpoint must have in common with the run."""
        return {
            "data": {
                "training data": fingerprint(self.data),
                "validation data": None if self.validation is None else fingerprint(self.validation),
            },
            "model": describe(self.model),
            "settings": dataclasses.asdict(self.config),
        }

    def one_epoch(self) -> None:
        """One epoch, or the rest of one."""
        config, self.started = self.config, time.process_time() - self.spent
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        with seeded(config.seed * 100_003 + len(self.history) + 1, self.data.device):
            batches = torch.randperm(len(self.data), device="cpu").to(self.data.device).split(config.batch_size)
            if self.losses:
                set_generators(self.noise, self.data.device)
            for rows in batches[len(self.losses) :]:
                self.optimizer.zero_grad()
                loss = self.model.loss(self.data[rows])
                if not math.isfinite(value := loss.item()):
                    raise ValueError(
                        f"the loss of {type(self.model).__name__} became {value} in epoch {len(self.history) + 1}: "
                        "lower the learning rate."
                    )
                loss.backward()
                self.optimizer.step()
                self.losses.append(value * len(rows) / len(self.data))
                if len(self.losses) < len(batches):
                    self.safe.reached(self.save_within_epoch)
        total, self.losses = sum(self.losses), []
        self.model.eval()
        held_out = total if self.validation is None else self.validate(self.validation)
        entry = {"loss": total, "validation": held_out, "learning_rate": self.rate}
        self.history.epochs.append({**entry, "cpu_seconds": time.process_time() - self.started})
        self.spent, self.noise = 0.0, {}
        if held_out < self.best:
            self.best, self.stale, self.best_state = held_out, 0, _copy(self.model)
        else:
            self.stale += 1
            if self.stale % config.patience == 0:
                self.rate *= 0.5

    def validate(self, rows: Tensor) -> float:
        """Validation loss, with noise of its own fixed seed: epochs compare."""
        with seeded(self.config.seed, rows.device), torch.no_grad():
            parts = rows.split(500)
            return sum(self.model.loss(part).item() * len(part) for part in parts) / len(rows)

    # ---------------------------------------------------------------- checkpoints

    def save_within_epoch(self) -> None:
        """Write a checkpoint between two steps: the state of the generators belongs to it."""
        self.noise, self.spent = generators(self.data.device), time.process_time() - self.started
        self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment, if there is a folder for it."""
        if self.folder is None:
            return
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"best/{key}": value for key, value in self.best_state.items()}
        tensors |= {f"generator/{key}": value for key, value in self.noise.items()}
        for name, value in self.trained.items():
            tensors |= {f"adam/{name}/{key}": moment for key, moment in self.optimizer.state.get(value, {}).items()}
        info = {
            "identity": self.identity,
            "history": self.history.epochs,
            "rate": self.rate,
            "best": self.best if math.isfinite(self.best) else None,
            "stale": self.stale,
            "losses": self.losses,
            "cpu_seconds_of_losses": self.spent,
        }
        save_checkpoint(self.folder, tensors, info)
        self.safe.saved()

    def load(self) -> None:
        """Go on from the checkpoint; the model is changed only if all of it is right."""
        assert self.folder is not None
        tensors, info = load_checkpoint(self.folder)
        check_identity(self.folder, info, self.identity)
        self.check_progress(self.folder, info)
        own, moments, noise = self.model.state_dict(), part_of(tensors, "adam/"), part_of(tensors, "generator/")
        for part in ("model", "best"):
            check_tensors(self.folder, CHECKPOINT, part_of(tensors, f"{part}/"), own, f"the {part}")
        check_moments(self.folder, moments, self.trained)
        check_noise(self.folder, noise, self.data.device if info["losses"] else None)

        self.model.load_state_dict(part_of(tensors, "model/"))
        self.best_state = part_of(tensors, "best/")
        states = [part_of(moments, f"{name}/") for name in self.trained]
        plain = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**plain, "state": {key: one for key, one in enumerate(states) if one}})
        self.history, self.rate, self.stale = FitHistory(info["history"]), info["rate"], info["stale"]
        self.best = math.inf if info["best"] is None else info["best"]
        self.losses, self.noise, self.spent = info["losses"], noise, info["cpu_seconds_of_losses"]

    def check_progress(self, folder: Path, info: dict[str, Any]) -> None:
        """Raise unless history, rate and the rest are of one run with these settings, at one moment."""
        history, epochs, losses = info.get("history"), self.config.epochs, info.get("losses")
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            refuse(folder, "its history is no list of epochs")
        if len(history) > epochs:
            refuse(folder, f"its history has {len(history)} epochs of {epochs}")
        for entry in history:
            check_numbers(folder, entry, dict.fromkeys(("loss", "validation"), (float, -math.inf, math.inf)))
            check_numbers(folder, entry, {"learning_rate": (float, 0, math.inf), "cpu_seconds": (float, 0, math.inf)})
        check_numbers(folder, info, {"stale": (int, 0, len(history)), "rate": (float, 0, self.config.learning_rate)})
        check_numbers(folder, info, {"cpu_seconds_of_losses": (float, 0, math.inf)})
        if history and info.get("best") != min(entry["validation"] for entry in history):
            refuse(folder, "the best of its losses is not in its history")
        check_losses(folder, losses, math.ceil(len(self.data) / self.config.batch_size), len(history) < epochs)
        if not history and not losses:
            refuse(folder, "it has no step of training")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from ``seed`` inside, the caller's generators untouched outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Any]:
    """A function that shows a history on the terminal, or does nothing."""
    if not show:
        yield lambda history: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch") as bar:

        def advance(history: FitHistory) -> None:
            if len(history):
                bar.set_postfix(validation=f"{history.epochs[-1]['validation']:.4g}")
            bar.update(len(history) - bar.n)

        yield advance
