"""A function that remembers its last result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LastCall:
    """A function of one tensor that remembers its last result.

    Prior and posterior ask for log det G at the same draw, and a draw of the posterior starts at its location, where
    log det G set its time: each costs d decoder evaluations a point.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function
        self.key: tuple[Any, ...] | None = None
        self.kept: tuple[Tensor, Any] | None = None
        self.with_grad = False

    def __call__(self, z: Tensor) -> Any:
        key, with_grad = self._key(z), torch.is_grad_enabled()
        if key is None:
            return self.function(z)
        # a result that gradients may flow through serves also where none are wanted
        if self.kept is None or self.key != key or (with_grad and not self.with_grad):
            # the argument is kept too: its memory cannot be given to another tensor meanwhile
            self.key, self.with_grad, self.kept = key, with_grad, (z, self.function(z))
        return self.kept[1]

    @staticmethod
    def _key(z: Tensor) -> tuple[Any, ...] | None:
        """What identifies the values of a tensor and the graph behind them; None inside a transform or trace."""
        if torch.jit.is_tracing() or z.is_inference():
            return None
        try:
            place = z.data_ptr()
        except RuntimeError:  # inside a function transform
            return None
        return (place, z.shape, z.stride(), z.dtype, z._version, z.requires_grad, id(z.grad_fn))
