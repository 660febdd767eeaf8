"""Trainings that SIGKILL ends at random moments and that are called again, in processes of their own."""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.vae import TrainingConfig, load_checkpoint, make_vae, train
from pyro_riemann.vae._checkpoint import part_of

CONFIG = TrainingConfig(warm_up_epochs=20, epochs=20, batch_size=20, phase_two=("posterior", "precision", "prior"))


def data() -> Tensor:
    return torch.rand(60, 4, generator=torch.Generator().manual_seed(0))


def work(folder: str) -> None:
    """The whole training, or what is missing of it."""
    torch.set_num_threads(1)
    vae = make_vae(4, 2, "vamp", "normal", hidden=(8,), num_centers=5, seed=0, pseudo_inputs=data()[:4])
    train(vae, data(), data()[:10], CONFIG, checkpoint=folder, progress=False)


@dataclass
class Count:
    """What happened."""

    kills: int = 0
    in_writes: int = 0  # kills that left half of a file
    runs: int = 0  # that ended
    lost_epochs: int = 0
    unlike: int = 0  # runs that did not end like one that was not killed


def numbers(folder: Path) -> tuple[dict[str, Tensor], list[Any]]:
    """Weights and bounds of a finished run."""
    tensors, info = load_checkpoint(folder)
    assert info["finished"]
    return part_of(tensors, "model/"), [(entry["elbo"], entry["validation"]) for entry in info["history"]]


def kill_and_resume(folder: Path, kills: int, seed: int = 0) -> Count:
    """That many SIGKILLs, one after the other, in as many runs as that takes; each run is brought to its end.

    Every second one strikes when half of a file is seen in the folder, the others at any time.
    """
    context = multiprocessing.get_context("forkserver")  # its children need not import torch anew
    context.set_forkserver_preload(["tests.faults._kills"])
    chance, count = random.Random(seed), Count()

    def start(run: Path) -> Any:
        process = context.Process(target=work, args=(str(run),))
        process.start()
        return process

    whole = start(folder / "whole")
    whole.join()
    weights, bounds = numbers(folder / "whole")
    while count.kills < kills:
        run, done = folder / f"run{count.runs}", 0
        while True:
            process = start(run)
            if count.kills < kills:
                at_write = bool(count.kills % 2)
                end = time.monotonic() + (5.0 if at_write else chance.uniform(0.02, 0.4))
                while process.is_alive() and time.monotonic() < end:
                    if at_write and any(run.glob(".*.partial")):
                        break
                    time.sleep(0.0005)
            else:
                process.join()
            if not process.is_alive():
                assert process.exitcode == 0, f"a resumed run failed: {process.exitcode}"
                break
            process.kill()
            process.join()
            count.kills += 1
            count.in_writes += bool(list(run.glob(".*.partial")))
            if (run / "checkpoint.json").exists():
                epochs = len(load_checkpoint(run)[1]["history"])
                count.lost_epochs += max(0, done - epochs)
                done = epochs
        count.runs += 1
        found, history = numbers(run)
        same = all(torch.equal(value, found[key]) for key, value in weights.items()) and history == bounds
        count.unlike += not same
    return count
