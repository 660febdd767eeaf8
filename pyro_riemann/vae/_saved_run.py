"""A training run on disk: what is written of it, and all that must hold before it goes on from there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann._formulas.training import History
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
    numbers,
    part_of,
    refuse,
    save_checkpoint,
)
from pyro_riemann.vae._objective import Objective


class RunState:
    """What a checkpoint holds of a training run, and what it is compared with."""

    def __init__(self, objective: Objective, folder: Path | None, device: torch.device) -> None:
        self.objective, self.module, self.folder, self.device = objective, objective.module, folder, device
        self.identity: dict[str, Any] | None = None
        self.batches = 0  # steps of an epoch
        self.history = History()
        self.phase, self.epoch = 1, 0  # epoch within the phase
        self.begun = 0  # the last phase that was prepared
        self.best, self.stale = math.inf, 0  # least validation loss of this phase, and epochs since
        self.best_state: dict[str, Tensor] | None = None
        self.finished = False
        self.losses: list[float] = []  # of the steps so far, where the epoch was saved between two of them
        self.noise: dict[str, Tensor] = {}  # states of the generators there
        self.spent = (0.0, 0.0)  # seconds of these steps, on the wall and of the processor
        self.optimizer_state: dict[str, Any] = {}  # of a loaded checkpoint, until the first step

    def optimizer_states(self) -> dict[str, Any]:
        """State of the optimiser of each parameter, by its name in the parameter store."""
        return self.optimizer_state

    def rate(self, name: str) -> float:
        """Learning rate of the parameter of that name in the parameter store."""
        return self.objective.rate(name, self.phase, self.history)


def identity_of(module: nn.Module, data: Tensor, validation: Tensor | None, config: Any) -> dict[str, Any]:
    """What a run is of: another model, other data or other settings do not go on from its checkpoint."""
    settings = dataclasses.asdict(config)
    return {
        "data": {
            "training data": fingerprint(data),
            "validation data": None if validation is None else fingerprint(validation),
        },
        "model": describe(module),
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
    }


def save_run(run: RunState) -> None:
    """Write the run as it is now to its folder."""
    assert run.folder is not None
    tensors = {f"model/{key}": value for key, value in run.module.state_dict().items()}
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


def load_run(run: RunState, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Put a new run where the one in its folder stopped; nothing of it is changed unless all of that is right.

    Args:
        run: the new one.
        tensors: of the checkpoint.
        info: of the checkpoint.

    Raises:
        ValueError: for a checkpoint that is damaged, or of another run.
    """
    assert run.folder is not None
    assert run.identity is not None
    check_identity(run.folder, info, run.identity)
    check_progress(run.folder, info, run.objective, run.batches)
    own, best = run.module.state_dict(), part_of(tensors, "best/")
    check_tensors(run.folder, CHECKPOINT, part_of(tensors, "model/"), own, "the model")
    if best:
        check_tensors(run.folder, CHECKPOINT, best, own, "the best model so far")
    parameters = run.objective.named_parameters()
    moments = part_of(tensors, "adam/")
    check_moments(run.folder, moments, parameters)
    noise = part_of(tensors, "generator/")
    check_noise(run.folder, noise, run.device if info["losses"] else None)

    run.module.load_state_dict(part_of(tensors, "model/"))
    run.best_state = best or None
    run.phase, run.epoch, run.stale, run.finished = (info[key] for key in ("phase", "epoch", "stale", "finished"))
    run.best = math.inf if info.get("best") is None else info["best"]
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


def check_progress(folder: Path, info: dict[str, Any], objective: Objective, batches: int) -> None:
    """Raise unless phase, epoch, history and the rest are of one run of this objective, at one moment."""
    limits = dict(enumerate(objective.phases, 1))
    check_numbers(folder, info, {"phase": (int, 1, len(limits)), "finished": (bool, 0, 1)})
    phase, finished = info["phase"], info["finished"]
    check_numbers(folder, info, {"epoch": (int, 0, limits[phase]), "stale": (int, 0, limits[phase])})
    if info.get("best") is not None:
        check_numbers(folder, info, {"best": (float, -math.inf, math.inf)})
    history = info.get("history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        refuse(folder, "its history is no list of epochs")
    for entry in history:
        check_numbers(folder, entry, dict.fromkeys(objective.entries, (float, -math.inf, math.inf)))
        check_numbers(folder, entry, dict.fromkeys(("seconds", "processor_seconds"), (float, -math.inf, math.inf)))
    places = [(entry.get("phase"), entry.get("epoch")) for entry in history]
    done = {key: sum(place[0] == key for place in places) for key in limits}
    if places != [(key, epoch) for key in limits for epoch in range(1, done[key] + 1)]:
        refuse(folder, "the epochs of its history do not follow each other")
    ended = [key for key in limits if key < phase or finished]
    if (
        done[phase] != info["epoch"]
        or any(done[key] for key in limits if key > phase)
        or (finished and phase < len(limits))
        or any(done[key] > limits[key] for key in limits)
        or any(done[key] < limits[key] and not objective.stopped(limits[key]) for key in ended)
    ):
        refuse(folder, f"its history of {len(history)} epochs does not lead to phase {phase}, {info['epoch']}")
    known = {abs(entry["validation"]) for entry in history if entry["phase"] == phase}
    if info.get("best") is not None and abs(info["best"]) not in known:
        refuse(folder, "the best of its validation losses is not in its history")
    check_losses(folder, info.get("losses"), batches, not finished and info["epoch"] < limits[phase])
    seconds: Any = info.get("seconds_of_losses")
    if not numbers(seconds) or len(seconds) != 2:
        refuse(folder, "it does not say how long its last steps took")
