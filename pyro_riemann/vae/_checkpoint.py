"""Checkpoints without pickles: tensors in a safetensors file, everything else in JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MANIFEST = "checkpoint.json"


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write a checkpoint so that an interrupt at any moment leaves the previous one or this one.

    The tensors go to a new file; the manifest, which names it, is replaced last and in one step.

    Args:
        folder: made if missing.
        tensors: tensors of any shape, from ``()`` on, by name.
        info: JSON-able.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(folder, {"w": torch.ones(2)}, {"epoch": 3})
        ...     tensors, info = load_checkpoint(folder)
        >>> tensors["w"], info["epoch"]
        (tensor([1., 1.]), 3)
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    previous = json.loads(manifest.read_text())["tensors"] if manifest.exists() else None
    turn = "b" if previous == "tensors-a.safetensors" else "a"
    name = f"tensors-{turn}.safetensors"
    # clones: safetensors refuses tensors that share memory
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, folder / name)
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps({**info, "tensors": name}, indent=1))
    os.replace(partial, manifest)
    if previous is not None and previous != name:
        (folder / previous).unlink(missing_ok=True)


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and information written by :func:`save_checkpoint`.

    Args:
        folder: where it was saved.
        device: where the tensors go.

    Returns:
        Tensors by name, each of the shape that it was saved with: one number has ``()``. And the information.

    Raises:
        FileNotFoundError: if the folder holds no checkpoint.
        ValueError: if the manifest is not one of ours.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(folder, {"w": torch.ones(2)}, {"epoch": 3})
        ...     load_checkpoint(folder)[1]["epoch"]
        3
    """
    manifest = Path(folder) / MANIFEST
    if not manifest.exists():
        raise FileNotFoundError(f"no checkpoint in {folder}: {MANIFEST} is missing.")
    try:
        info = json.loads(manifest.read_text())
        name = info["tensors"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest} is not a checkpoint of this library: {error}.") from error
    return load_file(Path(folder) / name, device=str(device)), info


def split_state(state: Mapping[str, Any], prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Separate a nested optimiser state into tensors (flat, dotted names) and JSON-able rest."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"__tensor__": path}
        if isinstance(value, Mapping):
            return {"__dict__": [[key, walk(item, f"{path}/{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            items = [walk(item, f"{path}/{index}") for index, item in enumerate(value)]
            return {"__tuple__": items} if isinstance(value, tuple) else items
        return value

    return tensors, walk(state, prefix)


def join_state(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of :func:`split_state`."""
    if isinstance(value, list):
        return [join_state(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(join_state(item, tensors) for item in value["__tuple__"])
    return {key: join_state(item, tensors) for key, item in value["__dict__"]}
