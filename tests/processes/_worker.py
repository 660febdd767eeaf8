"""What each of the two processes does that ``torchrun`` starts for ``test_training.py``, with results in a folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import nn

from pyro_riemann.vae import VAE, TrainingConfig, make_vae, save_checkpoint, train
from tests.vae._models import curve_data, small_vae

MODELS: dict[str, tuple[tuple[str, str, str], dict[str, Any]]] = {
    "plain": (("normal", "normal", "fixed"), {}),
    "particles": (("vamp", "normal", "fixed"), {"num_particles": 3}),
    "heat kernel": (("heat_kernel", "heat_kernel", "fixed"), {"phase_two": ("posterior", "prior")}),
    "wrapped": (("heat_kernel", "wrapped_normal", "grid"), {"phase_two": ("posterior", "prior")}),
    "frozen": (("heat_kernel", "wrapped_normal", "grid"), {}),
    "nothing to train": (("normal", "normal", "fixed"), {"phase_two": ()}),
}
STOPPED_AT = 6  # of 3 steps an epoch: within the second of phase 1's two


class Terminated(Exception):
    """What the handler makes of SIGTERM."""


def config(name: str) -> TrainingConfig:
    """Batches of 50, 50 and 1: the last one leaves a process without rows."""
    return TrainingConfig(**{"warm_up_epochs": 2, "epochs": 1, "batch_size": 50, "seed": 3, **MODELS[name][1]})


def model(name: str, seed: int = 0) -> VAE:
    vae = small_vae(*MODELS[name][0], seed=seed)
    vae.encoder.loc.append(nn.Dropout(0.2))  # noise that no site of Pyro draws
    return vae


def trained(name: str, folder: Path | None = None, distributed: bool = False, seed: int = 0) -> tuple[VAE, Any]:
    vae = model(name, seed)
    data, held_out = curve_data(101), curve_data(31, seed=8)
    watch: list[Any] = []
    history = train(
        vae, data, held_out, config(name), checkpoint=folder, progress=False, callbacks=[watch.append],
        distributed=distributed,
    )  # fmt: skip
    return vae, {"elbo": history["elbo"], "validation": history["validation"], "told": len(watch)}


def error_of(work: Callable[[], object]) -> str:
    try:
        work()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def stopped(folder: Path, rank: int) -> None:
    """A training of which one process, not the one that writes, is told to stop in the middle of a step."""
    original, calls = pyro.infer.SVI.step, [0]

    def watched(self: Any, *arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == STOPPED_AT and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments, **settings)

    pyro.infer.SVI.step = watched  # type: ignore[method-assign]
    try:
        trained("plain", folder, distributed=True)
    finally:
        pyro.infer.SVI.step = original  # type: ignore[method-assign]


def batch_normalised() -> VAE:
    vae = make_vae(6, 2, "normal", "normal", hidden=(8,), num_centers=3).double()
    vae.encoder.loc.append(nn.BatchNorm1d(2).double())
    return vae


def main(folder: Path) -> None:
    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    rank = int(os.environ["RANK"])
    report: dict[str, Any] = {"uninitialised": error_of(lambda: trained("plain", distributed=True))}
    torch.distributed.init_process_group("gloo")
    for name in MODELS:
        vae, report[name] = trained(name, distributed=True, seed=rank)
        save_checkpoint(folder / f"{name}-{rank}", vae.state_dict(), {})
    try:
        stopped(folder / "run", rank)
        report["stopped"] = "no"
    except Terminated:
        report["stopped"] = "yes"
    torch.distributed.barrier()
    if rank == 0:
        (folder / "copy").mkdir()
        for file in (folder / "run").iterdir():
            (folder / "copy" / file.name).write_bytes(file.read_bytes())
    vae, report["resumed"] = trained("plain", folder / "run", distributed=True, seed=5)
    save_checkpoint(folder / f"resumed-{rank}", vae.state_dict(), {})
    report["after"] = len(train(model("plain"), curve_data(20), config=config("plain"), progress=False))  # alone

    small = TrainingConfig(warm_up_epochs=1, epochs=0)
    tries: dict[str, tuple[VAE, torch.Tensor, Path | None]] = {
        "other data": (model("plain"), curve_data(40 + rank), None),
        "batch": (batch_normalised(), curve_data(40), None),
        "other run": (model("wrapped"), curve_data(40), folder / "run"),
        "no folder": (model("plain"), curve_data(40), folder / "file" / "run"),
        "not finite": (model("plain"), curve_data(40), None),
    }
    (folder / "file").write_text("")
    with torch.no_grad():
        next(tries["not finite"][0].encoder.parameters()).mul_(1e300)
    for name, (vae, data, place) in tries.items():
        report[name] = error_of(
            lambda vae=vae, data=data, place=place: train(  # type: ignore[misc]
                vae, data, config=small, checkpoint=place, progress=False, distributed=True
            )
        )
    (folder / f"report-{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
