"""The energy of curves whose images lie in a space with a distance of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann.numpyro._interface import Metric, System
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._energy import QuadratureEnergy, _root
from pyro_riemann.numpyro.geodesics._spline import assemble, products
from pyro_riemann.numpyro.metrics._ambient import Ambient


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
