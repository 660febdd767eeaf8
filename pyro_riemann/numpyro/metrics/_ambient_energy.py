"""The energy of curves whose images lie in a space with a distance of its own."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._interface import Metric, System
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._energy import QuadratureEnergy, _pace, _root
from pyro_riemann.numpyro.metrics._ambient import Ambient


class Mapped(Metric, Protocol):
    """A metric that is pulled back by a map."""

    def embed(self, z: Array) -> Array:
        """The map, ``(*batch, d) -> (*batch, size)``."""
        ...


class AmbientEnergy(QuadratureEnergy):
    r"""Energy from squared distances of successive images in their space: no Jacobian in its value.

    As that of chords, ``E_N = N/2 sum dist(f(c_i), f(c_{i+1}))^2`` and ``(4 E_N - E_{N/2}) / 3``; a curve cannot jump a
    wall without paying for it. Hessians are those of the quadrature along the curve: the same but for terms that vanish
    as the nodes get denser, so that Newton's method ends at the minimum of this energy, nearly as fast.
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
        self.space, self.richardson = space, richardson
        self.rates: Array | None = None  # 1 / (time between two nodes), (P, N); N everywhere without a guide
        if guide is not None:
            images = jax.lax.stop_gradient(metric.embed(self.nodes(guide)))
            self.rates = num_segments / _pace(_root(space.squared_dist(images[:, 1:], images[:, :-1])))

    def rows(self, index: Array) -> AmbientEnergy:
        """The energy of some of the curves."""
        if self.pace is None or self.guide is None or self.rates is None:
            return self
        part = AmbientEnergy(self.metric, self.space, self.num_knots, self.num_segments, self.richardson)
        part.guide, part.pace, part.rates = self.guide[index], self.pace[index], self.rates[index]
        return part

    def nodes(self, control: Array) -> Array:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.follow(_spline.uniform_basis(self.num_knots, self.num_segments, control), control)

    def of(self, images: Array) -> Array:
        """Energy ``(P,)`` of the chain of images ``(P, N + 1, D)``."""
        count = self.num_segments
        rates = jnp.full((1, count), count, images.dtype) if self.rates is None else self.rates
        if not self.richardson:
            return self._chain(images, rates, 1)
        half = 1 / (1 / rates).reshape(rates.shape[0], -1, 2).sum(-1)
        return (4 * self._chain(images, rates, 1) - self._chain(images, half, 2)) / 3

    def _chain(self, images: Array, rates: Array, stride: int) -> Array:
        steps = self.space.squared_dist(images[:, stride::stride], images[:, :-stride:stride])
        return 0.5 * (rates * steps).sum(-1)

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
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        return System(*self.first_order(control), *super().system(control)[2:])

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        return System(*self.first_order(control), *super().exact_system(control)[2:])
