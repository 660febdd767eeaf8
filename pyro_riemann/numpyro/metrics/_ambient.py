"""Spaces into which a decoder maps that are not Euclidean: their metric, and energies of curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import accumulate
from typing import Protocol, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._formulas import fisher, splines
from pyro_riemann._formulas.fisher import Flat, Frameless
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._interface import Metric, System
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._energy import QuadratureEnergy, _root
from pyro_riemann.numpyro.geodesics._spline import assemble, products
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


class Mapped(Metric, Protocol):
    """A metric that is pulled back by a map."""

    def embed(self, z: Array) -> Array:
        """The map, ``(*batch, d) -> (*batch, size)``."""
        ...

    def embed_jacobian(self, z: Array) -> tuple[Array, Array]:
        """Its value and its Jacobian ``(*batch, size, d)``."""
        ...


class AmbientEnergy(splines.Chains, QuadratureEnergy):
    r"""Energy from squared distances of successive images in their space: no Jacobian in its value.

    As that of chords, ``E_N = N/2 sum dist(f(c_i), f(c_{i+1}))^2`` and ``(4 E_N - E_{N/2}) / 3``; a curve cannot jump a
    wall without paying for it. Where parallel transport is known in that space, Hessians are those of chords, and the
    full one is exact. Elsewhere they are those of the quadrature along the curve: the same but for terms that vanish as
    the nodes get denser, so that Newton's method ends at the minimum of this energy, nearly as fast.
    """

    metric: Mapped

    def __init__(
        self,
        metric: Mapped,
        space: Ambient,
        num_knots: int,
        num_segments: int,
        richardson: bool = True,
        guide: Array | None = None,
    ) -> None:
        super().__init__(metric, num_knots, num_segments, guide)
        self.space, self.richardson, self.guide = space, richardson, guide
        if guide is not None:
            images = jax.lax.stop_gradient(metric.embed(self.nodes(guide)))
            self.rates = num_segments / splines.pace(jnp, _root(space.squared_dist(images[:, 1:], images[:, :-1])))

    def nodes(self, control: Array) -> Array:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.follow(_spline.uniform_basis(self.num_knots, self.num_segments, control), control)

    def _squares(self, x: Array, y: Array) -> Array:
        return self.space.squared_dist(x, y)

    def value(self, control: Array) -> Array:
        """Energy of each curve, ``(P,)``."""
        images = self.metric.embed(self.nodes(control))
        # rows of a matrix product round each in its own way, but the energy of a curve that rests is 0
        rests = (control == control[:, :1]).all((-2, -1))[:, None, None]
        return self.of(images - jax.lax.stop_gradient(jnp.where(rests, images - images[:, :1], 0.0)))

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient, by one reverse pass through the map."""
        value, pull = jax.vjp(lambda control: self.of(self.metric.embed(self.nodes(control))), control)
        return value, pull(jnp.ones_like(value))[0]

    def system(self, control: Array) -> System:
        """Energy, gradient, tangential Hessian and what else a frozen metric resists with."""
        if not self.space.has_frames:
            return System(*self.first_order(control), *super().system(control)[2:])
        images, jacobian = self.metric.embed_jacobian(self.nodes(control))
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        tangential, stiff = self._hessians(table, images, jacobian)
        force = jnp.einsum("pnai,pna->pni", jacobian, _slope(self.of, images))
        return System(self.of(images), table.T @ force, tangential, stiff - tangential)

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        if not self.space.has_frames:
            return System(*self.first_order(control), *super().exact_system(control)[2:])
        nodes, table = self.nodes(control), _spline.uniform_basis(self.num_knots, self.num_segments, control)
        push = _slope(self.of, self.metric.embed(nodes))

        def pulled(points: Array) -> tuple[Array, Array]:
            images, pull = jax.vjp(self.metric.embed, points)
            return images, pull(push)[0]

        def column(axis: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            return jax.jvp(pulled, (nodes,), (jnp.broadcast_to(axis, nodes.shape),))

        axes = jnp.eye(nodes.shape[-1], dtype=nodes.dtype)
        (images, force), (jacobian, bending) = jax.vmap(column, out_axes=(None, -1))(axes)
        hessian = assemble(table, bending, None)
        for stride, weight in self._chains(images):
            blocks = self._image_blocks(images[:, ::stride], jacobian[:, ::stride], weight)
            hessian = hessian + assemble(table[::stride], *blocks)
        return System(self.of(images), table.T @ force, hessian, self._hessians(table, images, jacobian)[1])

    def _hessians(self, table: Array, images: Array, jacobian: Array) -> tuple[Array, Array]:
        """As those of chords: Jacobians in orthonormal frames, of which one is carried to the other along the chord."""
        frames, rates = self.space.frame(images, jacobian), self.rates_of(images)
        carried = self.space.carry(images[:, :-1], images[:, 1:], frames[:, 1:])
        cross = products(frames[:, :-1], carried)
        return splines.chord_hessians(_spline, table, rates, products(frames, frames), cross)

    def _image_blocks(self, images: Array, jacobian: Array, weight: Array) -> tuple[Array, Array]:
        """``J^T H J`` for the second derivative H of one chain: blocks of each node, and of each with the next.

        A node meets its neighbours alone: the derivatives of every third node are taken at once.
        """
        count = jacobian.shape[1]
        each = jnp.arange(count)
        third = each % 3

        def along(moved: Array) -> Array:
            bent = jax.jvp(lambda points: _slope(lambda x: self._chain(x, weight), points), (images,), (moved,))[1]
            return jnp.einsum("pnai,pna->pni", jacobian, bent)

        masks = (third == jnp.arange(3)[:, None]).astype(images.dtype)[:, None, :, None, None]  # (3, 1, n, 1, 1)
        moved = jnp.moveaxis(masks * jacobian, -1, 1)  # (3, d, P, n, D)
        columns = jax.vmap(jax.vmap(along))(moved)  # (3, d, P, n, d)
        diagonal = jnp.moveaxis(columns[third, :, :, each], 1, -1)  # (n, P, d, d)
        upper = jnp.moveaxis(columns[third[1:], :, :, each[:-1]], 1, -1)
        return jnp.moveaxis(diagonal, 0, 1), jnp.moveaxis(upper, 0, 1)


def _slope(function: Callable[[Array], Array], points: Array) -> Array:
    """Derivative of a sum of values, like ``points``."""
    value, pull = jax.vjp(function, points)
    return pull(jnp.ones_like(value))[0]
