"""Ways in which a checkpoint can be wrong: what a disk or a hand does to its files, and what a stranger can sign.

Each case is a function of the folder. The signed ones have checksums that are right.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._store import write_bundle
from pyro_riemann.vae import TrainingConfig, load_checkpoint, make_vae
from pyro_riemann.vae._checkpoint import CHECKPOINT

Damage = Callable[[Path], None]

CONFIG = TrainingConfig(warm_up_epochs=2, epochs=1, batch_size=10, kl_ramp=0.2)


def data() -> Tensor:
    return torch.rand(30, 4, generator=torch.Generator().manual_seed(0))


def tiny_vae(**settings: Any) -> Any:
    return make_vae(4, 1, "normal", "normal", **{"hidden": (6,), "num_centers": 3, "seed": 0, **settings})


def manifest(folder: Path) -> Path:
    return folder / "checkpoint.json"


def tensors(folder: Path) -> Path:
    (path,) = folder.glob("checkpoint.*.safetensors")
    return path


# -------------------------------------------------------------------- the bytes


def _rewrite(which: Callable[[Path], Path], change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = which(folder)
        path.write_bytes(change(path.read_bytes()))

    return damage


def _flip(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def _edit(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Another JSON under the old checksum."""

    def damage(folder: Path) -> None:
        info = json.loads(manifest(folder).read_text())
        change(info)
        manifest(folder).write_text(json.dumps(info))

    return damage


def _replace(which: Callable[[Path], Path], make: Callable[[Path], Any]) -> Damage:
    """Something else than a file under its name."""

    def damage(folder: Path) -> None:
        path = which(folder)
        path.rename(folder.parent / "kept-elsewhere")
        make(path)

    return damage


BYTES: dict[str, Damage] = {
    "manifest: empty": _rewrite(manifest, lambda data: b""),
    "manifest: first half": _rewrite(manifest, lambda data: data[: len(data) // 2]),
    "manifest: not text": _rewrite(manifest, lambda data: b"\xff\xfe\x00" + data),
    "manifest: nested without end": _rewrite(manifest, lambda data: b'{"a":' + b"[" * 100_000),
    "manifest: a number without end": _rewrite(manifest, lambda data: b'{"epoch": ' + b"9" * 5000 + b"}"),
    "manifest: a list": _rewrite(manifest, lambda data: b"[1, 2]"),
    "manifest: of an earlier version": _rewrite(manifest, lambda data: b'{"epoch": 1, "tensors": "tensors-a"}'),
    "manifest: version 99": _edit(lambda info: info.update(version=99)),
    "manifest: of a metric": _edit(lambda info: info.update(format="pyro_riemann metric")),
    "manifest: phase 7": _edit(lambda info: info.update(phase=7)),
    "manifest: epoch -5": _edit(lambda info: info.update(epoch=-5)),
    "manifest: history emptied": _edit(lambda info: info.update(history=[])),
    "manifest: no checksum": _edit(lambda info: info.pop("checksum")),
    "manifest: a key less": _edit(lambda info: info.pop("stale")),
    "manifest: tensors in the folder above": _edit(lambda info: info.update(tensors="../thesis.tex")),
    "manifest: a link": _replace(manifest, lambda path: path.symlink_to(path.parent.parent / "kept-elsewhere")),
    "manifest: a link to nothing": _replace(manifest, lambda path: path.symlink_to("nothing")),
    "manifest: a folder": _replace(manifest, lambda path: path.mkdir()),
    "manifest: a pipe": _replace(manifest, lambda path: os.mkfifo(path)),
    "tensors: missing": lambda folder: tensors(folder).unlink(),
    "tensors: empty": _rewrite(tensors, lambda data: b""),
    "tensors: first half": _rewrite(tensors, lambda data: data[: len(data) // 2]),
    "tensors: one bit of a weight": _rewrite(tensors, lambda data: _flip(data, len(data) - 3)),
    "tensors: one bit of the header": _rewrite(tensors, lambda data: _flip(data, 20)),
    "tensors: something else": _rewrite(tensors, lambda data: b"\x80\x04\x95 a pickle, say"),
    "tensors: a link": _replace(tensors, lambda path: path.symlink_to(path.parent.parent / "kept-elsewhere")),
    "tensors: a folder": _replace(tensors, lambda path: path.mkdir()),
}


# -------------------------------------------------------------------- what a stranger signs


def _signed(change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        values, info = load_checkpoint(folder)
        change(values, info)
        write_bundle(folder, CHECKPOINT, values, info)

    return damage


def _resigned(name: str) -> Damage:
    """Another file named for the tensors, all checksums right."""

    def damage(folder: Path) -> None:
        from pyro_riemann._store import read_record, write_record

        info = read_record(manifest(folder), CHECKPOINT)
        write_record(manifest(folder), CHECKPOINT, {**info, "tensors": name})

    return damage


def _nan_under_a_right_checksum(folder: Path) -> None:
    import hashlib

    from safetensors.torch import load_file, save_file

    from pyro_riemann._store import read_record, write_record

    values = load_file(tensors(folder))
    next(iter(values.values())).view(-1)[0] = math.nan
    save_file(values, tensors(folder))
    checksum = hashlib.sha256(tensors(folder).read_bytes()).hexdigest()
    info = read_record(manifest(folder), CHECKPOINT)
    write_record(manifest(folder), CHECKPOINT, {**info, "tensors_checksum": checksum})


def _some(values: dict[str, Tensor], prefix: str) -> str:
    return next(key for key in sorted(values) if key.startswith(prefix) and values[key].dim() > 0)


SIGNED: dict[str, Damage] = {
    "signed: tensors in the folder above": _resigned("../thesis.tex"),
    "signed: tensors at an absolute path": _resigned("/etc/passwd"),
    "signed: tensors in a file of another kind": _resigned("checkpoint.json"),
    "signed: a weight that is NaN": _nan_under_a_right_checksum,
    "signed: a weight of another shape": _signed(
        lambda values, info: values.update({_some(values, "model/"): torch.ones(2, 2, 2)})
    ),
    "signed: a weight of another dtype": _signed(
        lambda values, info: values.update({(key := _some(values, "model/")): values[key].half()})
    ),
    "signed: a weight less": _signed(lambda values, info: values.pop(_some(values, "model/"))),
    "signed: a weight more": _signed(lambda values, info: values.update({"model/door": torch.ones(1)})),
    "signed: some of the best weights": _signed(
        lambda values, info: values.update({"best/decoder.log_warm_up_scale": torch.ones(())})
    ),
    "signed: moments of no parameter": _signed(
        lambda values, info: values.update({f"adam/door/{key}": torch.ones(()) for key in ("step",)})
    ),
    "signed: a moment of another shape": _signed(
        lambda values, info: values.update({_some(values, "adam/"): torch.ones(9, 9)})
    ),
    "signed: a negative second moment": _signed(
        lambda values, info: values.update(
            {key: -value - 1 for key, value in values.items() if key.endswith("exp_avg_sq")}
        )
    ),
    "signed: a generator's state at the end of an epoch": _signed(
        lambda values, info: values.update({"generator/cpu": torch.get_rng_state()})
    ),
    "signed: a generator's state that is none": _signed(
        lambda values, info: (
            values.update({"generator/cpu": torch.zeros(7, dtype=torch.uint8)}),
            info.update(losses=[1.0], phase=1, epoch=1, history=info["history"][:1], finished=False),
        )
    ),
    "signed: phase 7": _signed(lambda values, info: info.update(phase=7)),
    "signed: phase true": _signed(lambda values, info: info.update(phase=True)),
    "signed: epoch -5": _signed(lambda values, info: info.update(epoch=-5)),
    "signed: epoch 1000": _signed(lambda values, info: info.update(epoch=1000)),
    "signed: epoch one half": _signed(lambda values, info: info.update(epoch=0.5)),
    "signed: stale -1": _signed(lambda values, info: info.update(stale=-1)),
    "signed: best is a word": _signed(lambda values, info: info.update(best="high")),
    "signed: best is NaN": _signed(lambda values, info: info.update(best=math.nan)),
    "signed: finished is a word": _signed(lambda values, info: info.update(finished="yes")),
    "signed: not finished, with nothing left to do": _signed(lambda values, info: info.update(finished=False, phase=1)),
    "signed: history emptied": _signed(lambda values, info: info.update(history=[])),
    "signed: history of another order": _signed(lambda values, info: info["history"].reverse()),
    "signed: history of words": _signed(lambda values, info: info.update(history=["a", "b", "c"])),
    "signed: history without ELBOs": _signed(lambda values, info: [entry.pop("elbo") for entry in info["history"]]),
    "signed: a NaN in the history": _signed(lambda values, info: info["history"][0].update(elbo=math.nan)),
    "signed: losses of a finished run": _signed(lambda values, info: info.update(losses=[1.0])),
    "signed: losses that are words": _signed(lambda values, info: info.update(losses="many")),
    "signed: no identity": _signed(lambda values, info: info.pop("identity")),
    "signed: an identity that is a word": _signed(lambda values, info: info.update(identity="mine")),
    "signed: another seed": _signed(lambda values, info: info["identity"]["settings"].update(seed=5)),
    "signed: other data": _signed(lambda values, info: info["identity"]["data"]["training data"].update(sha256="0")),
    "signed: another model": _signed(lambda values, info: info["identity"]["model"].update({"class": "GAN"})),
}

CASES = BYTES | SIGNED
