"""Encoders: the network of K20's posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._pytree import Pytree, replaced
from pyro_riemann.numpyro.vae._interface import EncoderProtocol
from pyro_riemann.numpyro.vae._layers import Activation, Linear, Rescale, Sequential, mlp


class Encoder(Pytree, EncoderProtocol):
    """Location and scale of the approximate posterior, each an MLP of its own (K20, table 4).

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        scale_dim: entries of the scale: d for a diagonal Gaussian, 1 for the isotropic
            families (wrapped normal and heat kernel), whose only spread is their time.
        min_scale: floor of the scale, which keeps the density finite.
        features: what the networks see of the data, such as :meth:`Likelihood.features` of counts; by default the data.
        units: of these, for networks that see ``units.inverse(x)``: a :class:`Rescale` by their mean and standard
            deviation, as :meth:`standardize` learns it. None leaves them as they are.
        key: of the initial weights.

    Raises:
        ValueError: for widths below 1, or ``scale_dim`` neither 1 nor d.

    Example:
        >>> encoder = Encoder(data_dim=64, latent_dim=2, key=jax.random.key(0))
        >>> loc, scale = encoder(jnp.zeros((5, 64)))
        >>> loc.shape, bool((scale > 0).all())
        ((5, 2), True)
    """

    pytree_data_fields = ("features", "loc", "spread", "units")
    scale_parameters: ClassVar[tuple[str, ...]] = ("spread",)

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (300, 300),
        scale_dim: int | None = None,
        min_scale: float = 1e-4,
        features: Callable[[Array], Array] | None = None,
        units: Rescale | None = None,
        *,
        key: Array,
    ) -> None:
        self.data_dim, self.latent_dim, self.min_scale = data_dim, latent_dim, min_scale
        self.scale_dim = latent_dim if scale_dim is None else scale_dim
        if self.scale_dim not in (1, latent_dim):
            raise ValueError(f"`scale_dim` must be 1 or the latent dimension {latent_dim}, got {scale_dim}.")
        first, second = jax.random.split(key)
        self.features = Activation("Identity") if features is None else features
        width = self.features(jnp.zeros((1, data_dim))).shape[-1]
        self.units = Rescale(jnp.zeros(width), jnp.ones(())) if units is None else units
        self.loc = mlp([width, *hidden, latent_dim], key=first)
        *inner, last = mlp([width, *hidden, self.scale_dim], key=second).layers
        assert isinstance(last, Linear)
        # start at scale 0.1: codes stay apart
        bias = jnp.full(self.scale_dim, math.log(math.expm1(0.1)), last.weight.dtype)
        self.spread = Sequential([*inner, Linear(last.weight, bias)])

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, scale_dim)`` of data ``x`` ``(*batch, D)``."""
        inner = self.units.inverse(self.features(x))
        return self.loc(inner), jax.nn.softplus(self.spread(inner)) + self.min_scale

    def standardize(self, data: Array) -> Self:
        """The encoder that subtracts the mean of training ``data`` ``(n, D)``, and divides by their one deviation.

        The first call counts: later training does not change what the weights mean.
        """
        return replaced(self, units=self.units.fit(self.features(data)))
