"""Spaces into which a decoder maps that are not Euclidean: their metric pulled back, and distances between images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Protocol, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._formulas import fisher
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro.metrics._base import RiemannianMetric


class Ambient(Protocol):
    """A space with coordinates ``(*batch, size)``."""

    @property
    def has_distance(self) -> bool:
        """Whether :meth:`squared_dist` costs next to nothing."""
        ...

    def squared_dist(self, x: Array, y: Array) -> Array:
        """Squared distance of near points, ``(*batch)``; exact to third order at least."""
        ...

    def pull(self, x: Array, jacobian: Array) -> Array:
        """``J^T A(x) J``, ``(*batch, d, d)``, for a Jacobian ``(*batch, size, d)``."""
        ...


@dataclasses.dataclass(frozen=True)
class Flat:
    """Euclidean space."""

    has_distance = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        return jnp.square(x - y).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        return jacobian.mT @ jacobian


@dataclasses.dataclass(frozen=True)
class HalfPlanes:
    r"""Means and standard deviations of independent normals, :math:`ds^2 = (d\mu^2 + 2\,d\sigma^2) / \sigma^2` each."""

    has_distance = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        halves = (*jnp.split(x, 2, -1), *jnp.split(y, 2, -1))
        return cast(Array, fisher.half_plane_squared_dist(jnp, *halves)).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        unit = jnp.split(x, 2, -1)[1][..., None]
        loc, scale = (half / unit for half in jnp.split(jacobian, 2, -2))
        return loc.mT @ loc + 2 * (scale.mT @ scale)


@dataclasses.dataclass(frozen=True)
class Divergence:
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


class Of:
    """The chart of a metric of one's own."""

    def __init__(self, metric: RiemannianMetric) -> None:
        self.metric = metric

    @property
    def has_distance(self) -> bool:
        return type(self.metric).squared_dist is not RiemannianMetric.squared_dist

    def squared_dist(self, x: Array, y: Array) -> Array:
        return self.metric.squared_dist(x, y)

    def pull(self, x: Array, jacobian: Array) -> Array:
        return jacobian.mT @ self.metric.metric(x) @ jacobian


class Product:
    """Spaces side by side; each part with its number of coordinates."""

    def __init__(self, parts: Sequence[tuple[Ambient, int]]) -> None:
        self.spaces = [space for space, _ in parts]
        self.sizes = [size for _, size in parts]

    @property
    def has_distance(self) -> bool:
        return all(space.has_distance for space in self.spaces)

    def squared_dist(self, x: Array, y: Array) -> Array:
        cut = partial(jnp.split, indices_or_sections=list(accumulate(self.sizes))[:-1], axis=-1)
        parts = [space.squared_dist(a, b) for space, a, b in zip(self.spaces, cut(x), cut(y), strict=True)]
        return sum(parts[1:], parts[0])

    def pull(self, x: Array, jacobian: Array) -> Array:
        ends = list(accumulate(self.sizes))[:-1]
        cut = zip(self.spaces, jnp.split(x, ends, -1), jnp.split(jacobian, ends, -2), strict=True)
        parts = [space.pull(a, j) for space, a, j in cut]
        return sum(parts[1:], parts[0])
