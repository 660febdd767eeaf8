"""A trained model as two functions: data to codes, codes to items."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_riemann._checks import check_finite
from pyro_riemann._decoded import outputs
from pyro_riemann._seed import seeded
from pyro_riemann.metrics._from_vae import decoding
from pyro_riemann.metrics._kernel_encode import Select, chosen, draws_of, moved
from pyro_riemann.metrics._modules import evaluating, modules_of

_ROWS = 500  # items encoded or decoded at once


class TrainedModel:
    """Encodes and decodes, in evaluation mode and without gradients.

    Args:
        model: has ``posterior``, ``encode`` or ``encoder``, and ``decode`` or ``decoder``.
        encoder: what encodes a batch, if not the model's own.
        decoder: what decodes codes ``(n, d)``, if not the model's own.
        select: what of a batch the encoder is given.

    Raises:
        TypeError: if there is nothing to encode with.
    """

    def __init__(
        self,
        model: object,
        encoder: Callable[..., object] | None,
        decoder: Callable[..., object] | None,
        select: Select,
    ) -> None:
        self.encoder, self.select = encoder or _encoder(model), select
        self.model, self.decoder = model, decoder
        self.modules = [module for part in (model, encoder, decoder) for module in modules_of(part)]
        state = next((tensor for module in self.modules for tensor in module.parameters()), None)
        self.device = None if state is None else state.device

    def encode(self, data: Tensor | Iterable[object], seed: int) -> Tensor:
        """One draw of the posterior of each datum, ``(N, d)``; of models without posteriors the codes.

        Raises:
            TypeError, ValueError: if a batch, or what the encoder returns, is none of those that are known.
        """
        found = []
        batches: Iterable[object] = data.split(_ROWS) if isinstance(data, Tensor) else data
        with torch.no_grad(), evaluating(self.modules), seeded(seed, self.device):
            for batch in batches:
                rows, count = moved(chosen(batch, self.select), self.device)
                codes = draws_of(self.encoder(rows))
                if len(codes) != count:
                    raise ValueError(
                        f"the encoder must map a batch of {count} to as many codes, got {tuple(codes.shape)}."
                    )
                found.append(codes.reshape(count, -1))
        if not found:
            raise ValueError("`data` has no batch.")
        return check_finite("data", torch.cat(found))

    def decode(self, codes: Tensor) -> Tensor:
        """Means of what the decoder returns of codes ``(n, d)``.

        Raises:
            TypeError: if there is nothing to decode with.
            ValueError: if the decoder returns no tensor and no distribution.
        """
        decoder = self.decoder or decoding(self.model, codes.shape[-1], None, None, as_law=False)[0]
        with torch.no_grad(), evaluating(self.modules):
            return torch.cat([_mean(decoder(part)) for part in codes.split(_ROWS)])


def _encoder(model: object) -> Callable[..., object]:
    names = ("posterior", "encode", "encoder") if getattr(model, "variational", True) else ("encode", "encoder")
    for name in names:
        if callable(found := getattr(model, name, None)):
            return found
    raise TypeError(
        f"`model`, a {type(model).__name__}, has no `posterior`, `encode` or `encoder` that can be called: give "
        "`encoder=`, which maps a batch to (location, scale), a distribution or points."
    )


def _mean(decoded: object) -> Tensor:
    first = outputs(decoded, None, Tensor, Distribution)[0]
    return first.mean if isinstance(first, Distribution) else first
