"""Spaces into which a decoder maps that are not Euclidean: their metric pulled back, and distances between images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._formulas import fisher, zero_inflated
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

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame` and :meth:`carry` are known."""
        ...

    def frame(self, x: Array, jacobian: Array) -> Array:
        """The Jacobian ``(*batch, size, d)`` at x in an orthonormal frame there."""
        ...

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        """Vectors ``(*batch, size, d)`` in the frame at y, in that at x after transport along the geodesic."""
        ...


class Frameless:
    """A space whose parallel transport is not known."""

    has_frames = False

    def frame(self, x: Array, jacobian: Array) -> Array:
        raise NotImplementedError

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Flat:
    """Euclidean space."""

    has_distance = has_frames = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        return jnp.square(x - y).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        return jacobian.mT @ jacobian

    def frame(self, x: Array, jacobian: Array) -> Array:
        return jacobian

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        return vectors


@dataclasses.dataclass(frozen=True)
class HalfPlanes:
    r"""Means and standard deviations of independent normals, :math:`ds^2 = (d\mu^2 + 2\,d\sigma^2) / \sigma^2` each."""

    has_distance = has_frames = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        halves = (*jnp.split(x, 2, -1), *jnp.split(y, 2, -1))
        return cast(Array, fisher.half_plane_squared_dist(jnp, *halves)).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        frame = self.frame(x, jacobian)
        return frame.mT @ frame

    def frame(self, x: Array, jacobian: Array) -> Array:
        unit = jnp.split(x, 2, -1)[1][..., None]
        loc, scale = (half / unit for half in jnp.split(jacobian, 2, -2))
        return jnp.concatenate([loc, 2**0.5 * scale], -2)

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        halves = (*jnp.split(x, 2, -1), *jnp.split(y, 2, -1))
        cos, sin = (part[..., None] for part in fisher.half_plane_turn(jnp, *halves))
        loc, scale = jnp.split(vectors, 2, -2)
        return jnp.concatenate([cos * loc - sin * scale, sin * loc + cos * scale], -2)


@dataclasses.dataclass(frozen=True)
class ZeroInflated(Frameless):
    """Logs of means, logits of added zeros and logs of fixed dispersions of independent zero-inflated counts.

    Between near points the information in the middle stands for the metric on the way, to third order.
    """

    has_distance = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        mean, mixed, gate = zero_inflated.information(jnp, *jnp.split((x + y) / 2, 3, -1))
        a, b, _ = jnp.split(x - y, 3, -1)
        total: Array = (mean * a * a + 2 * mixed * a * b + gate * b * b).sum(-1)
        return total

    def pull(self, x: Array, jacobian: Array) -> Array:
        entries = zero_inflated.information(jnp, *jnp.split(x, 3, -1))
        mean, mixed, gate = (part[..., None] for part in entries)
        a, b, _ = jnp.split(jacobian, 3, -2)
        cross = a.mT @ (mixed * b)
        return a.mT @ (mean * a) + cross + cross.mT + b.mT @ (gate * b)


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


class Of(Frameless):
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

    @property
    def has_frames(self) -> bool:
        return all(space.has_frames for space in self.spaces)

    def _cut(self, x: Array, axis: int = -1) -> list[Array]:
        return jnp.split(x, list(accumulate(self.sizes))[:-1], axis)

    def squared_dist(self, x: Array, y: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(y), strict=True)
        parts = [space.squared_dist(a, b) for space, a, b in cut]
        return sum(parts[1:], parts[0])

    def pull(self, x: Array, jacobian: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(jacobian, -2), strict=True)
        parts = [space.pull(a, j) for space, a, j in cut]
        return sum(parts[1:], parts[0])

    def frame(self, x: Array, jacobian: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(jacobian, -2), strict=True)
        return jnp.concatenate([space.frame(a, j) for space, a, j in cut], -2)

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(y), self._cut(vectors, -2), strict=True)
        return jnp.concatenate([space.carry(a, b, v) for space, a, b, v in cut], -2)
