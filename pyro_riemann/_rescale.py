"""The units of the data and those of a network that trains best on numbers of mean 0 and variance 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_riemann._formulas.likelihoods import logit, units_of


class Rescale(nn.Module):
    """The affine map ``loc + scale * x``, whose numbers are learned from data once and are no parameters.

    A network that is fed raw pixels, or has to reach their mean by steps of its optimiser, spends its training on the
    one image that all data have in common. Buffers rather than a starting value of weights: centring also conditions
    every later step.

    Args:
        num_entries: number n of entries.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, num_entries: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(num_entries))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """``loc + scale * x``, ``(*batch, n)``."""
        return self.loc + self.scale * x

    def inverse(self, y: Tensor) -> Tensor:
        """``(y - loc) / scale``, ``(*batch, n)``."""
        return (y - self.loc) / self.scale

    @property
    def fitted(self) -> bool:
        """True once the map is another than the identity."""
        return bool((self.loc != 0).any() | (self.scale != 1))

    @torch.no_grad()
    def fit(self, data: Tensor) -> None:
        """Take the mean of each entry, and one scale for all, from ``data`` ``(m, n)``; a second call changes nothing.

        One scale, since a scale of its own would blow up the noise of an entry that hardly varies.
        """
        if self.fitted:
            return
        loc, scale = units_of(torch, data.double())
        self.loc.copy_(loc)
        self.scale.copy_(scale)

    @torch.no_grad()
    def start(self, loc: Tensor, scale: Tensor) -> None:
        """Take these numbers, ``(n,)`` and ``()``; a second call changes nothing."""
        if not self.fitted:
            self.loc.copy_(loc)
            self.scale.copy_(scale)

    @torch.no_grad()
    def fit_logits(self, data: Tensor, margin: float = 0.02) -> None:
        """As :meth:`fit` before a sigmoid: start at the logits of the mean of ``data`` ``(m, n)`` in [0, 1].

        Raises:
            ValueError: if data lie outside [0, 1], where no sigmoid reaches.
        """
        least, most = float(data.min()), float(data.max())
        if least < 0 or most > 1:
            raise ValueError(
                f'`output="sigmoid"` needs data in [0, 1], got values from {least:.4g} to {most:.4g}: rescale them, or '
                'use `output="linear"`.'
            )
        if not self.fitted:
            self.loc.copy_(logit(torch, data.double().mean(0), margin))
