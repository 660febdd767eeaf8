"""Posteriors of a whole data set, from a loader and whatever kind of encoder a user has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def encode(loader: Iterable[object], encoder: Callable[[Tensor], object]) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations ``(N, d)`` of all batches, in the order of the loader.

    A module is put into evaluation mode meanwhile, and its batches go to the device of its parameters.

    Args:
        loader: batches: tensors, or tuples, lists or mappings whose first entry is the data.
        encoder: maps a batch to ``(loc, scale)``, to a distribution with independent coordinates, or to
            an object or mapping with ``embedding`` and ``log_covariance``, the log variances (as pythae's encoders).

    Raises:
        TypeError, ValueError: if a batch, or what the encoder returns, is none of these.
    """
    locs, scales = [], []
    with _evaluating(encoder) as device, torch.no_grad():
        for batch in loader:
            data = _data(batch)
            loc, scale = _location_scale(encoder(data if device is None else data.to(device)))
            if loc.dim() != 2 or loc.shape[0] != data.shape[0]:
                raise ValueError(
                    f"`encoder` must map a batch of {data.shape[0]} to locations ({data.shape[0]}, d), got "
                    f"{tuple(loc.shape)}."
                )
            if scale.shape not in (loc.shape, (*loc.shape[:1], 1)):
                raise ValueError(
                    f"`encoder` returned locations {tuple(loc.shape)} and scales {tuple(scale.shape)}; scales need the "
                    "same shape, or one for each row."
                )
            locs.append(loc)
            scales.append(scale.expand_as(loc))
    if not locs:
        raise ValueError("the data loader gave no batch.")
    return torch.cat(locs), torch.cat(scales)


@contextmanager
def _evaluating(encoder: Callable[[Tensor], object]) -> Iterator[torch.device | None]:
    """Evaluation mode for every submodule, put back afterwards; the encoder's device, if it has one."""
    if not isinstance(encoder, nn.Module):
        yield None
        return
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        state = next(encoder.parameters(), next(encoder.buffers(), None))
        yield None if state is None else state.device
    finally:
        for module in training:
            module.training = True


def _data(batch: object) -> Tensor:
    if isinstance(batch, Mapping):
        batch = next(iter(batch.values()), None)
    elif isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise TypeError(
            "the data loader must give tensors, or tuples, lists or mappings whose first entry is one; got "
            f"{type(batch).__name__}."
        )
    return batch


def _location_scale(output: Any) -> tuple[Tensor, Tensor]:
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    if "embedding" in fields and "log_covariance" in fields:
        return fields["embedding"], (0.5 * fields["log_covariance"]).exp()
    if isinstance(output, torch.distributions.Distribution):
        if hasattr(getattr(output, "base_dist", output), "covariance_matrix"):
            raise TypeError(
                f"`encoder` returned a {type(output).__name__}, whose coordinates are correlated: build "
                "KernelMetric(centroids, precisions, ...) with full precisions yourself."
            )
        return output.mean, output.stddev
    if isinstance(output, tuple | list) and len(output) >= 2 and all(isinstance(part, Tensor) for part in output[:2]):
        return output[0], output[1]
    raise TypeError(
        "`encoder` must return (loc, scale), a distribution, or an object with `embedding` and `log_covariance`; got "
        f"{type(output).__name__}."
    )
