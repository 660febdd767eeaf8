"""What a saved run belongs to: its data, its model, its settings, so that another one is refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Identity = dict[str, Any]  # JSON-able


def fingerprint(data: Tensor) -> dict[str, Any]:
    """Shape, dtype and SHA-256 of a tensor of any shape, whatever device it is on."""
    values = data.detach().cpu().contiguous()
    digest = hashlib.sha256(values.flatten().view(torch.uint8).numpy().data).hexdigest()
    return {"shape": list(values.shape), "dtype": str(values.dtype), "sha256": digest}


def describe(module: nn.Module) -> dict[str, str]:
    """All that a module is but for its weights: the parts, their settings, shapes and dtypes of their tensors."""
    found = {key: f"{tuple(value.shape)} {value.dtype}" for key, value in module.state_dict().items()}
    for name, part in module.named_modules():
        found[f"{name}: class" if name else "class"] = type(part).__qualname__
        for key, value in vars(part).items():
            if isinstance(value, bool | int | float | str | tuple) and key not in ("training", "warm_up"):
                found[f"{name}.{key}" if name else key] = repr(value)
    return found


def differences(saved: Mapping[str, Any], given: Mapping[str, Any], most: int = 5) -> str:
    """The entries that differ, by name and with both values; empty if none does."""
    odd = [key for key in sorted(saved.keys() | given.keys()) if saved.get(key) != given.get(key)]
    if not odd:
        return ""
    names = ", ".join(odd[:most]) + (f" and {len(odd) - most} more" if len(odd) > most else "")
    values = (f"{key} was {_short(saved.get(key))}, is {_short(given.get(key))}" for key in odd[:most])
    return f"({names} differ): {', '.join(values)}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and value.keys() == {"shape", "dtype", "sha256"}:
        return f"({str(value['shape'])[1:-1]}) with SHA-256 {str(value['sha256'])[:8]}..."
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
