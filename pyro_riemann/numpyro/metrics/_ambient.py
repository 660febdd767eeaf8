"""Spaces into which a decoder maps that are not Euclidean: their metric pulled back, and distances between images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import accumulate
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._formulas import fisher
from pyro_riemann._formulas.fisher import Flat, Frameless
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro.metrics._base import RiemannianMetric

__all__ = ["Ambient", "Divergence", "Flat", "HalfPlanes", "Of", "Product", "ZeroInflated"]

Ambient: TypeAlias = fisher.Ambient[Array]


class _Library:
    xp, split = jnp, staticmethod(jnp.split)


class HalfPlanes(_Library, fisher.HalfPlanes):
    """Means and standard deviations of independent normals."""


class ZeroInflated(_Library, fisher.ZeroInflated):
    """Parameters of independent zero-inflated counts."""


class Product(_Library, fisher.Product):
    """Spaces side by side."""


class Of(fisher.Of):
    """The chart of a metric of one's own."""

    generic = RiemannianMetric


@dataclasses.dataclass(frozen=True)
class Divergence(Frameless):
    """Parameters of a family with the Fisher metric, which is the second derivative of the KL divergence.

    Between near points the symmetrised divergence stands for the squared distance, to third order. It is a small
    difference of large numbers: not to be used where JAX has single precision alone.

    Attributes:
        structure: of the distribution at one point, as a pytree.
        shapes: of its leaves.
    """

    structure: jax.tree_util.PyTreeDef
    shapes: tuple[tuple[int, ...], ...]

    @property
    def has_distance(self) -> bool:
        return bool(jax.config.read("jax_enable_x64"))

    def law(self, x: Array) -> distributions.Distribution:
        """The distribution with the parameters ``x``, ``(size,)``."""
        ends = list(accumulate(math.prod(shape) for shape in self.shapes))[:-1]
        leaves = [part.reshape(shape) for part, shape in zip(jnp.split(x, ends), self.shapes, strict=True)]
        return cast(distributions.Distribution, jax.tree.unflatten(self.structure, leaves))

    def _divergence(self, x: Array, y: Array) -> Array:
        return jnp.sum(kl_divergence(self.law(x), self.law(y)))

    def _between(self, x: Array, y: Array) -> Array:
        return self._divergence(x, y) + self._divergence(y, x)

    def _hessian(self, x: Array, jacobian: Array) -> Array:
        def slope(shift: Array) -> Array:
            return _autodiff.jacobian(lambda s: self._divergence(x, x + jacobian @ s), shift, len(shift))[1]

        zero = jnp.zeros(jacobian.shape[-1], x.dtype)
        return _autodiff.jacobian(slope, zero, len(zero))[1]

    def squared_dist(self, x: Array, y: Array) -> Array:
        return _rowwise(self._between, x.astype(float), y.astype(float)).astype(x.dtype)

    def pull(self, x: Array, jacobian: Array) -> Array:
        rows = jax.vmap(self._hessian)(x.reshape(-1, x.shape[-1]), jacobian.reshape(-1, *jacobian.shape[-2:]))
        return rows.reshape(*x.shape[:-1], *rows.shape[1:])


def _rowwise(function: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    x, y = jnp.broadcast_arrays(x, y)
    return jax.vmap(function)(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])).reshape(x.shape[:-1])
