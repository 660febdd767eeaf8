"""The training that all models share: Adam, halved on plateaus, best validation weights, checkpoints that resume."""

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
from torch import Tensor, nn

from pyro_riemann.vae import load_checkpoint, save_checkpoint


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
    progress: bool,
) -> FitHistory:
    """See :meth:`Autoencoder.fit`."""
    run = _Run(model, data, validation, config, None if checkpoint is None else Path(checkpoint))
    with pyro.get_param_store().scope(), _bar(progress, config.epochs) as advance:
        advance(run.history)
        while len(run.history) < config.epochs:
            run.one_epoch()
            advance(run.history)
            if run.folder is not None and (
                len(run.history) % config.checkpoint_every == 0 or len(run.history) == config.epochs
            ):
                run.save()
    model.load_state_dict(run.best_state)
    model.eval()
    with seeded(config.seed, run.data.device):
        model.finish(run.data)
    return run.history


class _Run:
    """One training: the state that a checkpoint holds."""

    def __init__(
        self, model: Any, data: Tensor, validation: Tensor | None, config: FitConfig, folder: Path | None
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        like = next(model.parameters())
        self.data = data.to(like)
        self.validation = None if validation is None else validation.to(like)
        self.history = FitHistory()
        self.rate, self.best, self.stale = config.learning_rate, math.inf, 0
        model.encoder.standardize(self.data)
        model.decoder.standardize(self.data)
        with seeded(config.seed, self.data.device):
            model.prepare(self.data)
        trained = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=self.rate)
        self.best_state: dict[str, Tensor] = _copy(model)
        if folder is not None and (folder / "checkpoint.json").exists():
            self.load()

    def one_epoch(self) -> None:
        config, started = self.config, time.process_time()
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        total = 0.0
        with seeded(config.seed * 100_003 + len(self.history) + 1, self.data.device):
            for rows in torch.randperm(len(self.data)).to(self.data.device).split(config.batch_size):
                self.optimizer.zero_grad()
                loss = self.model.loss(self.data[rows])
                if not math.isfinite(value := loss.item()):
                    raise ValueError(
                        f"the loss of {type(self.model).__name__} became {value} in epoch {len(self.history) + 1}: "
                        "lower the learning rate."
                    )
                loss.backward()
                self.optimizer.step()
                total += value * len(rows) / len(self.data)
        self.model.eval()
        held_out = total if self.validation is None else self.validate(self.validation)
        entry = {"loss": total, "validation": held_out, "learning_rate": self.rate}
        self.history.epochs.append({**entry, "cpu_seconds": time.process_time() - started})
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

    def save(self) -> None:
        assert self.folder is not None
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"best/{key}": value for key, value in self.best_state.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        info = {
            "model": type(self.model).__name__,
            "config": dataclasses.asdict(self.config),
            "history": self.history.epochs,
            "rate": self.rate,
            "best": self.best,
            "stale": self.stale,
        }
        save_checkpoint(self.folder, tensors, info)

    def load(self) -> None:
        assert self.folder is not None
        tensors, info = load_checkpoint(self.folder, self.data.device)
        mine = {"model": type(self.model).__name__, **dataclasses.asdict(self.config)}
        theirs = {"model": info["model"], **info["config"]}
        if changed := sorted(key for key in mine if mine[key] != theirs.get(key)):
            raise ValueError(
                f"the checkpoint in {self.folder} was made with other settings ({', '.join(changed)} differ): resume "
                "with the same, or choose another folder."
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        self.best_state = part("best/")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("adam/").items():
            index, key = name.split("/")
            # Adam counts its steps on the processor, wherever the moments are
            moments.setdefault(int(index), {})[key] = value.cpu() if key == "step" else value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.history, self.rate = FitHistory(info["history"]), info["rate"]
        self.best, self.stale = info["best"], info["stale"]


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
