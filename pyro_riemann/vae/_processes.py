"""The processes of one training: alone, or several of ``torch.distributed`` that compute what one would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pyro
import torch
import torch.distributed
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pyro_riemann._identity import Identity, differences

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


R = TypeVar("R")


class Processes:
    """One process, which has nobody to agree with.

    Attributes:
        count: how many there are.
        first: whether this is the one that writes and reports.
    """

    count, first = 1, True

    def svi(self, model: nn.Module, loss: Trace_ELBO, optimizer: pyro.optim.PyroOptim) -> SVI:
        """Steps on minibatches, by ``model.model`` and ``model.guide``."""
        return SVI(model.model, model.guide, optimizer, loss)

    def total(self, function: Callable[[Tensor], float], rows: Tensor) -> float:
        """``function(rows)``, a sum over rows."""
        return function(rows)

    def by_first(self, work: Callable[[], R]) -> R:
        """What the first process makes of it, in all; also its error."""
        return work()

    def agreed(self, signal: int, due: bool) -> tuple[int, bool]:
        """The greatest of what the processes say."""
        return signal, due

    def make_equal(self, module: nn.Module) -> None:
        """Give a module the weights that it has in the first process."""

    def check_equal(self, module: nn.Module, identity: Identity) -> None:
        """Raise where the processes would not train the same model on the same data."""

    def close(self) -> None:
        """The training is over."""


class Group(Processes):
    """All processes of the default group of ``torch.distributed``, each of which has all data and the same seeds.

    Of a minibatch each takes a part, and of the noise drawn for all of it the part that belongs to its rows;
    ``DistributedDataParallel`` takes the mean of their gradients. What is not summed over rows each computes for
    itself. Messages that are no gradients go by gloo, so from the processor, whatever the backend of the group.

    Raises:
        ValueError: if there is no such group.
    """

    def __init__(self) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            raise ValueError(
                "`distributed=True` needs the processes of `torchrun`: call `torch.distributed.init_process_group()` "
                "in each of them first."
            )
        self.rank, self.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.first = self.rank == 0
        self.messages = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))

    def svi(self, model: nn.Module, loss: Trace_ELBO, optimizer: pyro.optim.PyroOptim) -> SVI:
        return SVI(model.model, model.guide, optimizer, loss, _SharedLoss(self, model, loss))

    def part(self, count: int) -> tuple[int, int, bool]:
        """Begin and end of this process's share of ``count`` rows; if there is none for it, the first, which is not.

        The third entry says whether they count.
        """
        begin, end = self.rank * count // self.count, (self.rank + 1) * count // self.count
        return (begin, end, True) if begin < end else (0, 1, False)

    def sum(self, value: float) -> float:
        """Over all processes."""
        values = torch.tensor(value, dtype=torch.float64, device="cpu")
        torch.distributed.all_reduce(values, group=self.messages)
        return float(values)

    def total(self, function: Callable[[Tensor], float], rows: Tensor) -> float:
        begin, end, counts = self.part(len(rows))
        with NoiseOfAll(begin, end, len(rows)):
            value = function(rows[begin:end])
        return self.sum(value if counts else 0.0)

    def by_first(self, work: Callable[[], R]) -> R:
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except Exception as error:
                told[1] = error
        torch.distributed.broadcast_object_list(told, src=0, group=self.messages)
        if told[1] is not None:
            raise told[1]
        result: R = told[0]
        return result

    def agreed(self, signal: int, due: bool) -> tuple[int, bool]:
        values = torch.tensor([signal, due], dtype=torch.int64, device="cpu")
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX, group=self.messages)
        return int(values[0]), bool(values[1])

    def make_equal(self, module: nn.Module) -> None:
        state = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
        for value in state.values():
            torch.distributed.broadcast(value, src=0, group=self.messages)
        module.load_state_dict(state)

    def check_equal(self, module: nn.Module, identity: Identity) -> None:
        for name, part in module.named_modules():
            if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm) and self.count > 1:
                raise ValueError(
                    f"{name!r} is a {type(part).__name__}: its statistics would be those of a process's share of each "
                    "minibatch. Use `torch.nn.SyncBatchNorm.convert_sync_batchnorm`, or another normalisation."
                )
        everybody: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(everybody, identity, group=self.messages)
        for rank, other in enumerate(everybody):
            for key in identity:
                if changed := differences(everybody[0][key], other[key]):
                    raise ValueError(
                        f"process {rank} was given another {key} than process 0 {changed}. Each takes all data, the "
                        "same model and the same settings, and shares the minibatches by itself."
                    )

    def close(self) -> None:
        torch.distributed.destroy_process_group(self.messages)


class _ELBO(nn.Module):
    """A loss as the output of a module, which is what ``DistributedDataParallel`` takes."""

    def __init__(self, group: Group, model: nn.Module, loss: Trace_ELBO) -> None:
        super().__init__()
        self.group, self.model, self.loss = group, model, loss

    def forward(self, rows: Tensor, settings: dict[str, Any]) -> Tensor:
        begin, end, counts = self.group.part(len(rows))
        with NoiseOfAll(begin, end, len(rows)):
            loss: Tensor = self.loss.differentiable_loss(
                self.model.model, self.model.guide, rows[begin:end], **settings
            )
        # the loss of a part is scaled up to all data: here to its share of the minibatch
        return loss * ((end - begin) / len(rows) * counts)


class _SharedLoss:
    """Loss and gradients of a minibatch, as ``SVI`` asks for them, of which this process computes its part."""

    def __init__(self, group: Group, model: nn.Module, loss: Trace_ELBO) -> None:
        self.group = group
        self.elbo: nn.Module = _ELBO(group, model, loss)
        if any(value.requires_grad for value in model.parameters()):
            self.elbo = DistributedDataParallel(self.elbo, find_unused_parameters=True)

    def __call__(self, model: object, guide: object, rows: Tensor, **settings: Any) -> float:
        loss = self.elbo(rows, settings)
        if loss.requires_grad:
            (self.group.count * loss).backward()  # of the gradients the mean is taken
        return self.group.sum(loss.item())
