"""Fully connected networks as pytrees, with torch's names and conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.likelihoods import units_of
from pyro_riemann.numpyro._checks import check_one_of
from pyro_riemann.numpyro._pytree import Pytree


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x)))


def _softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return jnp.where(beta * x > threshold, x, jnp.logaddexp(beta * x, 0.0) / beta)


def _gelu(x: Array, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    return jnp.where(x > 0, x, negative_slope * x)


ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "ELU": _elu,
    "GELU": _gelu,
    "Identity": lambda x: x,
    "LeakyReLU": _leaky_relu,
    "ReLU": jax.nn.relu,
    "SiLU": jax.nn.silu,
    "Sigmoid": jax.nn.sigmoid,
    "Softplus": _softplus,
    "Tanh": jnp.tanh,
}
"""Elementwise functions by the name of their torch module."""


class Activation(Pytree):
    """An elementwise function by the name of its torch module.

    Args:
        name: one of ELU, GELU, Identity, LeakyReLU, ReLU, SiLU, Sigmoid, Softplus, Tanh.
        **settings: those of the torch module, such as ``alpha`` of ELU.

    Raises:
        ValueError: for another name.

    Example:
        >>> Activation("LeakyReLU", negative_slope=0.5)(jnp.array([-2.0, 2.0])).tolist()
        [-1.0, 2.0]
    """

    def __init__(self, name: str, **settings: float | str) -> None:
        self.name = check_one_of("name", name, tuple(ACTIVATIONS))
        self.settings = tuple(sorted(settings.items()))

    def __call__(self, x: Array) -> Array:
        """The function at every entry of ``x``, ``(*batch, n)``, or of any other shape."""
        return ACTIVATIONS[self.name](x, **dict(self.settings))


class Linear(Pytree):
    """The map ``weight @ x + bias``.

    Args:
        weight: ``(n, m)``.
        bias: ``(n,)``, or None.

    Example:
        >>> Linear(jnp.ones((1, 2)))(jnp.array([1.0, -3.0])).tolist()
        [-2.0]
    """

    pytree_data_fields = ("bias", "weight")

    def __init__(self, weight: Array, bias: Array | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Array) -> Array:
        """The image ``(*batch, n)`` of ``x`` ``(*batch, m)``."""
        y = x @ self.weight.mT
        return y if self.bias is None else y + self.bias


class Rescale(Pytree):
    """The affine map ``loc + scale * x``: from the units of a network to those of the data.

    Its numbers are taken from data once and not learned: no gradient reaches them.

    Args:
        loc: ``(n,)``.
        scale: a number.

    Source: LeCun et al. (2012), *Efficient BackProp*, section 4.3, for inputs of mean 0 and variance 1.

    Example:
        >>> Rescale(jnp.array([1.0, 2.0]), jnp.array(10.0))(jnp.array([0.0, 0.5])).tolist()
        [1.0, 7.0]
    """

    pytree_data_fields = ("loc", "scale")

    def __init__(self, loc: Array, scale: Array) -> None:
        self.loc, self.scale = loc, scale

    def __call__(self, x: Array) -> Array:
        """The map at ``x``, ``(*batch, n)``."""
        loc, scale = jax.lax.stop_gradient((self.loc, self.scale))
        return loc + scale * x

    def inverse(self, y: Array) -> Array:
        """``(y - loc) / scale``, ``(*batch, n)``."""
        loc, scale = jax.lax.stop_gradient((self.loc, self.scale))
        return (y - loc) / scale

    @property
    def fitted(self) -> bool:
        """True once the map is another than the identity."""
        return bool((self.loc != 0).any() | (self.scale != 1))

    def fit(self, data: Array) -> Rescale:
        """The map with the mean of each entry, and one scale for all, of ``data`` ``(m, n)``; itself if fitted before.

        One scale, since a scale of its own would blow up the noise of an entry that hardly varies.
        """
        if self.fitted:
            return self
        loc, scale = units_of(np, np.asarray(data, np.float64))
        return Rescale(jnp.asarray(loc, self.loc.dtype), jnp.asarray(scale, self.loc.dtype))


class Sequential(Pytree):
    """Layers one after the other.

    Args:
        layers: functions of one array.

    Example:
        >>> Sequential([Linear(jnp.ones((1, 2))), Activation("ReLU")])(jnp.array([1.0, -3.0])).item()
        0.0
    """

    pytree_data_fields = ("layers",)
    has_jets: ClassVar[bool] = True

    def __init__(self, layers: Sequence[Callable[[Array], Array]]) -> None:
        self.layers = tuple(layers)

    def __call__(self, x: Array) -> Array:
        """The output ``(*batch, n)`` for ``x`` ``(*batch, m)``."""
        for layer in self.layers:
            x = layer(x)
        return x

    def distance_immersion(self) -> Sequential:
        """A frozen network with the same distances between outputs: R for the last ``W = Q R``, where it is shorter."""
        *inner, last = self.layers
        scale: Array | float = 1.0
        if isinstance(last, Rescale) and inner and isinstance(inner[-1], Linear):
            scale, last = last.scale, inner.pop()
        if isinstance(last, Linear):
            shorter = last.weight.shape[0] > last.weight.shape[1]
            last = Linear(jnp.linalg.qr(scale * last.weight, mode="r") if shorter else scale * last.weight)
        return jax.lax.stop_gradient(Sequential([*inner, last]))


def mlp(sizes: Sequence[int], activation: str = "ELU", *, key: Array) -> Sequential:
    """Fully connected network with a linear output: ``(*batch, sizes[0]) -> (*batch, sizes[-1])``.

    Weights and biases start uniform within ``fan_in ** -0.5``, as torch's own.

    Args:
        sizes: widths of input, hidden layers and output.
        activation: of the hidden layers, see :class:`Activation`.
        key: of the weights.

    Raises:
        ValueError: for fewer than two sizes, one below 1, or an unknown activation.

    Source: Goodfellow, Bengio & Courville (2016), *Deep Learning*, chapter 6.

    Example:
        >>> mlp([4, 8, 2], key=jax.random.key(0))(jnp.zeros((3, 4))).shape
        (3, 2)
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(f"`sizes` must hold at least two positive layer widths, got {list(sizes)}.")
    layers: list[Any] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        bound = fan_in**-0.5
        rows = jax.random.uniform(jax.random.fold_in(key, index), (fan_out, fan_in + 1), minval=-bound, maxval=bound)
        layers += [Linear(rows[:, 1:], rows[:, 0]), Activation(activation)]
    return Sequential(layers[:-1])
