"""Shapes of zero tangents, found quickly: half the time of most tests with a network of their own.

In forward mode torch asks for the shape of each product or sum with a tangent that is zero, and answers in Python, by
rules that also serve its compiler, half a millisecond each. These know the shape and dtype alone, which is all that a
tangent without numbers has. `tests/meta/test_zero_tangents.py` compares them with torch's own.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_KEPT: list[Any] = []  # torch forgets the rules of a library that nobody holds


@lru_cache
def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape, which torch takes a third of a millisecond to find."""
    return torch.broadcast_shapes(a, b)


def combined(a: Tensor | float, b: Tensor | float, **_: Any) -> Tensor:
    """Of a sum, difference or product, of which one may be a number."""
    shape = broadcast(getattr(a, "shape", ()), getattr(b, "shape", ()))
    return torch.empty(shape, dtype=torch.result_type(a, b), device="meta")


def divided(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Of a quotient, which is never an integer."""
    found = combined(a, b)
    return found if found.is_floating_point() or found.is_complex() else found.to(torch.get_default_dtype())


RULES = {"mul.Tensor": combined, "add.Tensor": combined, "sub.Tensor": combined, "div.Tensor": divided}


def infer_quickly() -> None:
    """Have torch use these rules until the process ends, where it lets one."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    if _KEPT or "allow_override" not in inspect.signature(library.impl).parameters:
        return
    for name, rule in RULES.items():
        library.impl(name, rule, allow_override=True)
    _KEPT.append(library)
