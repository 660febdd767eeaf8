"""Training data as one tensor of rows, from whatever holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from pyro_riemann._checks import check_finite

Data = Tensor | Dataset[Any] | DataLoader[Any]
"""What training takes: a tensor, a data set, or a loader of one."""
_ROWS = 1000  # read at once


def as_rows(name: str, data: Data, width: int, shape: Sequence[int] | None = None) -> Tensor:
    """All data as one finite tensor ``(n, width)``; images of any shape are flattened.

    A data set is read once and held in memory, in its own order, whatever the batch size and the order of its loader:
    minibatches are a function of the seed of the training, so that it resumes bit for bit. Augmentation at random would
    be seen once.

    Args:
        name: of the argument, for messages.
        data: a tensor ``(n, ...)``; or a data set or loader whose items are tensors, or tuples, lists or mappings whose
            first entry is one.
        width: number D of entries of a datum.
        shape: what data that are no rows must have, so that channels stand first; by default whatever has D entries.

    Raises:
        TypeError: for anything else.
        ValueError: for a wrong width or shape, no data, values that are not finite, or a loader that draws with
            weights.
    """
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=_ROWS)
    if isinstance(data, DataLoader):
        parts = [_flat(name, _tensor(name, batch), shape) for batch in _in_order(name, data)]
        rows = torch.cat(parts) if parts else torch.empty(0, width, device="cpu")
    elif isinstance(data, Tensor):
        rows = data
    else:
        raise TypeError(f"`{name}` must be a tensor, a Dataset or a DataLoader, got {type(data).__name__}.")
    if rows.dim() < 2 or math.prod(rows.shape[1:]) != width or len(rows) == 0:
        raise ValueError(f"`{name}` must have shape (n, {width}), got {tuple(rows.shape)}.")
    return check_finite(name, _flat(name, rows, shape))


def _flat(name: str, batch: Tensor, shape: Sequence[int] | None) -> Tensor:
    if shape is not None and batch.dim() > 2 and _bare(batch.shape[1:]) != _bare(shape):
        raise ValueError(f"`{name}` must have shape (n, D) or (n, *{tuple(shape)}), got {tuple(batch.shape)}.")
    return batch.flatten(1)


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without a single channel."""
    return tuple(shape[1:] if len(shape) == 3 and shape[0] == 1 else shape)


def _in_order(name: str, loader: DataLoader[Any]) -> Iterable[Any]:
    """The batches of a loader, each datum once."""
    if isinstance(loader.dataset, IterableDataset):
        return loader
    if not isinstance(loader.sampler, RandomSampler | SequentialSampler):
        raise ValueError(
            f"`{name}` is a loader with a {type(loader.sampler).__name__}, whose choice of the data would be lost: "
            "give the data themselves, such as a `torch.utils.data.Subset`."
        )
    collate = loader.collate_fn if loader.batch_sampler is not None else None
    return DataLoader(loader.dataset, _ROWS, collate_fn=collate, num_workers=loader.num_workers)


def _tensor(name: str, batch: object) -> Tensor:
    if isinstance(batch, Mapping):
        batch = next(iter(batch.values()), None)
    elif isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor) or batch.dim() == 0:
        raise TypeError(
            f"`{name}` must hold tensors, or tuples, lists or mappings whose first entry is one; got batches of "
            f"{type(batch).__name__}."
        )
    return batch
