"""A kernel metric on disk: its arrays as safetensors, what they mean as JSON, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_ARRAYS, _MANIFEST = "metric.safetensors", "metric.json"
_KIND = "KernelMetric"


def write(folder: str | Path, arrays: Mapping[str, Tensor], trainable: list[str]) -> None:
    """Write ``arrays`` and their manifest; files that are there are replaced, each in one step."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # clones: safetensors refuses tensors that share memory
    stored = {name: value.detach().cpu().contiguous().clone() for name, value in arrays.items()}
    save_file(stored, folder / (_ARRAYS + ".partial"))
    manifest = {
        "kind": _KIND,
        "version": 1,
        "num_centroids": stored["centroids"].shape[0],
        "dim": stored["centroids"].shape[1],
        "diagonal": stored["precisions"].dim() == 2,
        "bandwidth": float(stored["bandwidth"]),
        "regularization": float(stored["regularization"]),
        "trainable": trainable,
    }
    (folder / (_MANIFEST + ".partial")).write_text(json.dumps(manifest, indent=1) + "\n")
    for name in (_ARRAYS, _MANIFEST):
        os.replace(folder / (name + ".partial"), folder / name)


def read(folder: str | Path, device: str | torch.device) -> tuple[dict[str, Tensor], list[str]]:
    """Arrays and the names of the trainable ones.

    Raises:
        FileNotFoundError: if there is no metric in the folder.
        ValueError: if it is not a kernel metric.
    """
    manifest_path = Path(folder) / _MANIFEST
    if not manifest_path.exists():
        raise FileNotFoundError(f"no metric in {folder}: {_MANIFEST} is missing.")
    try:
        manifest: dict[str, Any] = json.loads(manifest_path.read_text())
        kind, trainable = manifest["kind"], list(manifest["trainable"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest_path} does not describe a metric: {error}.") from error
    if kind != _KIND or manifest.get("version") != 1:
        raise ValueError(f"{manifest_path} describes a {kind}, version {manifest.get('version')}, not a {_KIND} 1.")
    return load_file(Path(folder) / _ARRAYS, device=str(device)), trainable
