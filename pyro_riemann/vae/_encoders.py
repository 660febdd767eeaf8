"""Encoders: the network of K20's posterior."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann._rescale import Rescale
from pyro_riemann.vae._interface import EncoderProtocol


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    """Fully connected network with a linear output: ``(*batch, sizes[0]) -> (*batch, sizes[-1])``.

    Weights and biases start as torch's own. From larger ones, such as He's, an encoder learns a rougher map, and a VAE
    generalises worse.

    Args:
        sizes: widths of input, hidden layers and output.
        activation: class of the activations between them.

    Raises:
        ValueError: for fewer than two sizes, or one below 1.

    Source: Goodfellow, Bengio & Courville (2016), *Deep Learning*, chapter 6.

    Example:
        >>> mlp([4, 8, 2])(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(f"`sizes` must hold at least two positive layer widths, got {list(sizes)}.")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def last_layer(network: nn.Sequential) -> nn.Linear:
    """The linear output of :func:`mlp`."""
    layer = network[-1]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"the network must end in a linear layer, got {type(layer).__name__}.")
    return layer


class Encoder(nn.Module, EncoderProtocol):
    """Location and scale of the approximate posterior, each an MLP of its own (K20, table 4).

    The networks see data in their own units, see :meth:`standardize`.

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        scale_dim: entries of the scale: d for a diagonal Gaussian, 1 for the isotropic
            families (wrapped normal and heat kernel), whose only spread is their time.
        min_scale: floor of the scale, which keeps the density finite.
        features: what the networks see of the data, such as :meth:`Likelihood.features` of counts; by default the data.

    Raises:
        ValueError: for widths below 1, or ``scale_dim`` neither 1 nor d.

    Example:
        >>> encoder = Encoder(data_dim=64, latent_dim=2)
        >>> loc, scale = encoder(torch.zeros(5, 64))
        >>> loc.shape, bool((scale > 0).all())
        (torch.Size([5, 2]), True)
    """

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (300, 300),
        scale_dim: int | None = None,
        min_scale: float = 1e-4,
        features: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.data_dim, self.latent_dim, self.min_scale = data_dim, latent_dim, min_scale
        self.scale_dim = latent_dim if scale_dim is None else scale_dim
        if self.scale_dim not in (1, latent_dim):
            raise ValueError(f"`scale_dim` must be 1 or the latent dimension {latent_dim}, got {scale_dim}.")
        self.features = nn.Identity() if features is None else features
        width: int = self.features(torch.zeros(1, data_dim, device="cpu")).shape[-1]
        self.units = Rescale(width)
        self.loc = mlp([width, *hidden, latent_dim])
        self.spread = mlp([width, *hidden, self.scale_dim])
        # start at scale 0.1: codes stay apart
        nn.init.constant_(last_layer(self.spread).bias, math.log(math.expm1(0.1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, scale_dim)`` of data ``x`` ``(*batch, D)``."""
        inner = self.units.inverse(self.features(x))
        return self.loc(inner), functional.softplus(self.spread(inner)) + self.min_scale

    def scale_parameters(self) -> Iterable[nn.Parameter]:
        return self.spread.parameters()

    def standardize(self, data: Tensor) -> None:
        """Subtract the mean of training ``data`` ``(n, D)`` from now on, and divide by their one standard deviation.

        The first call counts: later training does not change what the weights mean.
        """
        self.units.fit(self.features(data))
