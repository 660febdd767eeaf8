"""Random numbers of a part of a minibatch, equal to those of its rows where all of it is in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_BY_REJECTION = {"_sample_dirichlet", "_standard_gamma", "binomial", "poisson"}


class NoiseOfAll(TorchDispatchMode):
    """Within it whatever is drawn for the rows at hand is drawn for all rows, and kept for these.

    Every process then draws the same numbers from the same generator, however many processes there are. The axis of the
    rows is the last but one where it has their number of entries, as in ``(*, n, d)``, else the first that has it; what
    has none is drawn once, for all. Of a random order of all rows those at hand keep theirs.

    Args:
        begin: first row at hand.
        end: row after the last one at hand.
        total: number of rows.

    Raises:
        ValueError: by a draw that takes as many random numbers as its values want.
    """

    def __init__(self, begin: int, end: int, total: int) -> None:
        super().__init__()
        self.begin, self.count, self.total = begin, end - begin, total

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.count == self.total or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func.overloadpacket.__name__ in _BY_REJECTION:
            raise ValueError(
                f"a draw by `{func.overloadpacket.__name__}` takes as many random numbers as its values want: "
                "processes that share minibatches would draw different ones. Train in one process."
            )
        if func.overloadpacket.__name__ == "randperm" and args[0] % self.count == 0:
            order = func(args[0] // self.count * self.total, *args[1:], **kwargs)
            block, row = order // self.total, order % self.total - self.begin
            own = (row >= 0) & (row < self.count)
            return (block * self.count + row)[own]
        arguments = func._schema.arguments
        given = {**dict(zip((a.name for a in arguments), args, strict=False)), **kwargs}
        axes = [axis for axis in map(self._axis, given.items()) if axis is not None]
        if not axes:
            return func(*args, **kwargs)
        axis = axes[0]
        wide = {name: self._wide(name, value, axis) for name, value in given.items()}
        keywords = {a.name: wide.pop(a.name) for a in arguments if a.kwarg_only and a.name in wide}
        result = func(*wide.values(), **keywords)
        if arguments[0].alias_info is not None and arguments[0].alias_info.is_write:
            return args[0].copy_(result.narrow(axis, self.begin, self.count))
        return tree_map_only(Tensor, lambda value: value.narrow(axis, self.begin, self.count).contiguous(), result)

    def _axis(self, argument: tuple[str, Any]) -> int | None:
        """The axis of the rows in an argument, or in what it is the size of."""
        name, value = argument
        if not isinstance(value, Tensor) and name != "size":
            return None
        shape = tuple(value.shape if isinstance(value, Tensor) else value)
        if len(shape) > 1 and shape[-2] == self.count:
            return len(shape) - 2
        return shape.index(self.count) if self.count in shape else None

    def _wide(self, name: str, value: Any, axis: int) -> Any:
        """An argument as it is where all rows are at hand."""
        if self._axis((name, value)) is None:
            return value
        if name == "size":
            return [*value[:axis], self.total, *value[axis + 1 :]]
        rows = torch.arange(self.total, device=value.device) - self.begin
        return value.index_select(axis, rows.clamp(0, self.count - 1))
