"""A training run on disk: what is written of it, and all that must hold before it goes on from there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_riemann._identity import describe, fingerprint
from pyro_riemann._store import check_tensors
from pyro_riemann.vae._checkpoint import (
    CHECKPOINT,
    adam_state,
    check_identity,
    check_losses,
    check_moments,
    check_noise,
    check_numbers,
    load_checkpoint,
    numbers,
    part_of,
    refuse,
    save_checkpoint,
)
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._settings import History, TrainingConfig

ENTRY = ("elbo", "validation", "seconds", "processor_seconds")


class Run(Protocol):
    """What a checkpoint holds of a training run, and what it is compared with."""

    folder: Path | None
    identity: dict[str, Any] | None
    vae: VAE
    data: Tensor
    config: TrainingConfig
    device: torch.device
    phase: int
    epoch: int
    begun: int
    best: float
    best_state: dict[str, Tensor] | None
    stale: int
    finished: bool
    history: History
    losses: list[float]
    noise: dict[str, Tensor]
    spent: tuple[float, float]
    optimizer_state: dict[str, Any]

    def optimizer_states(self) -> dict[str, Any]:
        """State of the optimiser of each parameter, by its name in the parameter store."""
        ...

    def rate(self, name: str) -> float:
        """Learning rate of a parameter."""
        ...


def identity_of(vae: VAE, data: Tensor, validation: Tensor | None, config: TrainingConfig) -> dict[str, Any]:
    """What a run is of: another model, other data or other settings do not go on from its checkpoint."""
    return {
        "data": {
            "training data": fingerprint(data),
            "validation data": None if validation is None else fingerprint(validation),
        },
        "model": describe(vae),
        "settings": {**dataclasses.asdict(config), "phase_two": list(config.phase_two)},
    }


def save_run(run: Run) -> None:
    """Write the run as it is now to its folder."""
    assert run.folder is not None
    tensors = {f"model/{key}": value for key, value in run.vae.state_dict().items()}
    tensors |= {f"best/{key}": value for key, value in (run.best_state or {}).items()}
    tensors |= {f"generator/{key}": value for key, value in run.noise.items()}
    for name, state in run.optimizer_states().items():
        tensors |= {f"adam/{name}/{key}": value for key, value in state["state"].get(0, {}).items()}
    info = {
        "identity": run.identity,
        "phase": run.phase,
        "epoch": run.epoch,
        "best": run.best if math.isfinite(run.best) else None,
        "stale": run.stale,
        "finished": run.finished,
        "history": run.history.epochs,
        # noise and order of epoch e come from (seed, e): generators have a state to keep only within one
        "losses": run.losses,
        "seconds_of_losses": list(run.spent),
    }
    save_checkpoint(run.folder, tensors, info)


def load_run(run: Run) -> None:
    """Put a new run where the one in its folder stopped; nothing of it is changed unless all of that is right.

    Raises:
        ValueError: for a checkpoint that is damaged, or of another run.
    """
    assert run.folder is not None
    assert run.identity is not None
    tensors, info = load_checkpoint(run.folder)
    check_identity(run.folder, info, run.identity)
    check_progress(run.folder, info, run.config, math.ceil(len(run.data) / run.config.batch_size))
    own, best = run.vae.state_dict(), part_of(tensors, "best/")
    check_tensors(run.folder, CHECKPOINT, part_of(tensors, "model/"), own, "the model")
    if best:
        check_tensors(run.folder, CHECKPOINT, best, own, "the best model so far")
    parameters = {f"{run.vae.store_name}.{key}": value for key, value in run.vae.named_parameters()}
    moments = part_of(tensors, "adam/")
    check_moments(run.folder, moments, parameters)
    noise = part_of(tensors, "generator/")
    check_noise(run.folder, noise, run.device if info["losses"] else None)

    run.vae.load_state_dict(part_of(tensors, "model/"))
    run.best_state = best or None
    run.phase, run.epoch, run.stale, run.finished = (info[key] for key in ("phase", "epoch", "stale", "finished"))
    run.best = -math.inf if info.get("best") is None else info["best"]
    run.history = History(info["history"])
    run.losses, run.noise = info["losses"], noise
    run.spent = (info["seconds_of_losses"][0], info["seconds_of_losses"][1])
    if run.losses:
        run.begun = run.phase
    for name in {key.rpartition("/")[0] for key in moments}:
        own_moments = {
            key: value if key == "step" else value.to(run.device)  # Adam counts its steps on the processor
            for key, value in part_of(moments, f"{name}/").items()
        }
        run.optimizer_state[name] = adam_state(parameters[name], run.rate(name), own_moments)


def check_progress(folder: Path, info: dict[str, Any], config: TrainingConfig, batches: int) -> None:
    """Raise unless phase, epoch, history and the rest are of one run with these settings, at one moment."""
    limits = {1: config.warm_up_epochs, 2: config.epochs}
    check_numbers(folder, info, {"phase": (int, 1, 2), "finished": (bool, 0, 1)})
    most = limits[info["phase"]]
    check_numbers(folder, info, {"epoch": (int, 0, most), "stale": (int, 0, most)})
    if info.get("best") is not None:
        check_numbers(folder, info, {"best": (float, -math.inf, math.inf)})
    history = info.get("history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        refuse(folder, "its history is no list of epochs")
    for entry in history:
        check_numbers(folder, entry, dict.fromkeys(ENTRY, (float, -math.inf, math.inf)))
    done = {phase: [entry.get("epoch") for entry in history if entry.get("phase") == phase] for phase in (1, 2)}
    in_order = [entry.get("phase") for entry in history] == [1] * len(done[1]) + [2] * len(done[2])
    if not in_order or any(done[phase] != list(range(1, len(done[phase]) + 1)) for phase in (1, 2)):
        refuse(folder, "the epochs of its history do not follow each other")
    ended = [phase for phase in (1, 2) if info["phase"] > phase or info["finished"]]
    early = config.patience is not None
    if (
        len(done[info["phase"]]) != info["epoch"]
        or len(done[1]) + len(done[2]) != len(history)
        or (info["phase"] == 1 and (done[2] or info["finished"]))
        or any(len(done[phase]) > limits[phase] for phase in (1, 2))
        or any(len(done[phase]) < limits[phase] and not early for phase in ended)
    ):
        refuse(folder, f"its history of {len(history)} epochs does not lead to phase {info['phase']}, {info['epoch']}")
    check_losses(folder, info.get("losses"), batches, not info["finished"] and info["epoch"] < most)
    seconds: Any = info.get("seconds_of_losses")
    if not numbers(seconds) or len(seconds) != 2:
        refuse(folder, "it does not say how long its last steps took")
