"""A kernel metric on disk: its arrays as safetensors, what they mean as JSON, no pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_riemann._files import Kind
from pyro_riemann._store import read_bundle, write_bundle

METRIC = Kind("metric", version=2, remedy="Make the metric again and save it anew")
_ARRAYS = {"centroids", "precisions", "bandwidth", "regularization"}
_CLASS = "KernelMetric"
Metric = TypeVar("Metric")


def write(folder: str | Path, arrays: Mapping[str, Tensor], trainable: list[str]) -> None:
    """Write ``arrays`` and which of them are trainable; a metric that is there is replaced in one step."""
    write_bundle(Path(folder), METRIC, arrays, {"class": _CLASS, "trainable": trainable})


def read(folder: str | Path, device: str | torch.device, make: Callable[..., Metric]) -> Metric:
    """What ``make`` makes of the arrays, parameters where they were trainable.

    Raises:
        FileNotFoundError: if there is no metric in the folder.
        ValueError: if it is damaged, or no kernel metric.
    """
    folder = Path(folder)
    arrays, info = read_bundle(folder, METRIC, device)
    manifest, trainable = folder / "metric.json", info.get("trainable")
    if info.get("class") != _CLASS:
        METRIC.refuse(manifest, f"it describes a {info.get('class')!r}, not a {_CLASS}")
    if arrays.keys() != _ARRAYS:
        METRIC.refuse(manifest, f"its arrays are {sorted(arrays)}, not {sorted(_ARRAYS)}")
    if not isinstance(trainable, list) or not all(isinstance(name, str) and name in _ARRAYS for name in trainable):
        METRIC.refuse(manifest, f"{trainable!r} cannot be trainable")
    if len(dtypes := {value.dtype for value in arrays.values()}) > 1 or not arrays["centroids"].is_floating_point():
        METRIC.refuse(manifest, f"its arrays have dtypes {sorted(map(str, dtypes))}, not one that is floating")
    try:
        return make(**{name: nn.Parameter(value) if name in trainable else value for name, value in arrays.items()})
    except (ValueError, TypeError) as error:
        METRIC.refuse(manifest, f"its arrays are those of no metric: {error}", error)
