"""Trainings that SIGKILL ends at random moments and that are called again, in processes of their own."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.vae import TrainingConfig, load_checkpoint, make_vae, train
from pyro_riemann.vae._checkpoint import part_of

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainingConfig(warm_up_epochs=20, epochs=20, batch_size=20, phase_two=("posterior", "precision", "prior"))


def data() -> Tensor:
    return torch.rand(60, 4, generator=torch.Generator().manual_seed(0))


def work(folder: str) -> None:
    """The whole training, or what is missing of it."""
    torch.set_num_threads(1)
    vae = make_vae(4, 2, "vamp", "normal", hidden=(8,), num_centers=5, seed=0, pseudo_inputs=data()[:4])
    train(vae, data(), data()[:10], CONFIG, checkpoint=folder, progress=False)


def serve() -> None:
    """Fork a child for each folder on a line of the input: none of them has to import torch anew.

    Nor what a first step imports; that step itself must be a child's, for a fork after it may hang.
    """
    import sklearn.cluster

    assert sklearn.cluster
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            work(line.strip())
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Children:
    """The processes of :func:`serve`, one at a time."""

    def __enter__(self) -> Children:
        command = [sys.executable, "-W", "ignore", "-m", "tests.faults._kills"]
        self.server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()

    def start(self, folder: Path) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(f"{folder}\n".encode())
        self.child = self._line()

    def ended(self, seconds: float | None) -> bool:
        """Whether the child ends within so many seconds; its exit code is then the next line."""
        assert self.server.stdout is not None
        return bool(select.select([self.server.stdout], [], [], seconds)[0])

    def kill(self) -> None:
        os.kill(self.child, signal.SIGKILL)

    def exit_code(self) -> int:
        return self._line()

    def _line(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


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


def strike(children: Children, run: Path, saves: int, pause: float, at_write: bool) -> bool:
    """Let a child work until it has saved so often, then kill it: after a pause, or when half of a file is seen.

    Returns:
        False if it ended before.
    """
    children.start(run)
    seen = set()
    while not children.ended(0.002):
        if (manifest := run / "checkpoint.json").exists():
            seen.add(manifest.stat().st_ino)
        # the first one seen is that of the process before
        if len(seen) > saves and (not at_write or any(run.glob(".*.partial"))):
            break
    if not children.ended(0.0 if at_write else pause):
        children.kill()
    return children.exit_code() == -signal.SIGKILL


def kill_and_resume(folder: Path, kills: int, seed: int = 0) -> Count:
    """That many SIGKILLs, one after the other, in as many runs as that takes; each run is brought to its end.

    Every second one strikes when half of a file is seen in the folder, the others at any time.
    """
    chance, count = random.Random(seed), Count()
    with Children() as children:
        children.start(folder / "whole")
        assert children.exit_code() == 0
        weights, bounds = numbers(folder / "whole")
        while count.kills < kills:
            run, done = folder / f"run{count.runs}", 0
            while count.kills < kills:
                at_write = bool(count.kills % 2)
                if not strike(children, run, chance.randrange(3), chance.uniform(0.0, 0.1), at_write):
                    break
                count.kills += 1
                count.in_writes += any(run.glob(".*.partial"))
                if (run / "checkpoint.json").exists():
                    epochs = len(load_checkpoint(run)[1]["history"])
                    count.lost_epochs += max(0, done - epochs)
                    done = epochs
            children.start(run)
            assert children.exit_code() == 0
            count.runs += 1
            found, history = numbers(run)
            same = all(torch.equal(value, found[key]) for key, value in weights.items()) and history == bounds
            count.unlike += not same
    return count


if __name__ == "__main__":
    serve()
