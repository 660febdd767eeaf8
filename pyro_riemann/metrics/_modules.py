"""The modules behind an immersion: which they are, and how they are left as they were found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import MethodType

import torch
from torch import nn


class Held(nn.Module):
    """The weights of a module whose method is an immersion, under the names that they have there.

    Not the module itself: it may come to hold the metric, as a model that builds one from its own ``decode`` does, and
    no module may contain itself. Parameters and buffers are shared, whatever becomes of them.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self._parameters, self._buffers = owner._parameters, owner._buffers
        self._non_persistent_buffers_set = owner._non_persistent_buffers_set
        self._modules = dict(owner._modules)


def modules_of(immersion: object) -> list[nn.Module]:
    """The modules that an immersion is, or belongs to: of a bound method, or of a ``functools.partial`` of such."""
    if isinstance(immersion, nn.Module):
        return [immersion]
    if isinstance(immersion, MethodType):
        return modules_of(immersion.__self__)
    if isinstance(immersion, partial):
        parts = (immersion.func, *immersion.args, *immersion.keywords.values())
        return [module for part in parts for module in modules_of(part)]
    return []


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode for all submodules, each put back as it was."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def buffers_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Puts all buffers back as they were: the same tensors with the same entries."""
    parts = [part for module in modules for part in module.modules()]
    kept = [
        (part, name, buffer, buffer.clone())
        for part in parts
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for part, name, buffer, entries in kept:
            part._buffers[name] = buffer
            if not torch.equal(buffer, entries):
                buffer.copy_(entries)
