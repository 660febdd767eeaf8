r"""Discrete energies of spline curves, with their gradients and Hessians in the control points.

Both energies approximate :math:`\tfrac12\int |\gamma'|^2_G\,dt` for a batch of P curves
with control points ``(P, C, d)``. Hessians come in three kinds, all ``(P, C d, C d)``:

- *tangential*: :math:`\int |D_t\eta|^2`, the covariant derivative of the variation; positive, and the
  Hessian of the energy up to curvature;
- *stiff*: also resists motion normal to the curve (Gauss-Newton); positive, robust on steep walls;
- *full*: the exact second derivative, needed to polish and for the Van Vleck determinant.

Time may pass at another pace than the spline's parameter s: with a *guide*, a batch of curves like those in work,
:math:`d\tau \propto |\text{guide}'|_G\,ds` and the energy is :math:`\tfrac12\int |\gamma'(s)|^2_G / \tau'(s)\,ds`. Its
minimum is half the squared distance at any pace; a spline whose knots lie where the curve bends in the chart follows
it more closely than one that must run at constant speed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.quasi_newton import MANY
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro._interface import Immersed, Metric, System
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._spline import assemble, chord_diagonal, contract, products


class ChordEnergy(splines.Chains):
    r"""Energy of a pullback metric from chords in the ambient space: no Jacobian in its value.

    With N equal time steps, ``E_N = N/2 sum |f(c_{i+1}) - f(c_i)|^2``; the value is the Richardson
    combination ``(4 E_N - E_{N/2}) / 3``, fourth order in 1/N at no further evaluation. With a guide, the time
    between two nodes is in proportion to the guide's chord.
    """

    xp = jnp

    def __init__(
        self, metric: Immersed, num_knots: int, num_segments: int, richardson: bool = True, guide: Array | None = None
    ) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments
        self.richardson = richardson
        self.frugal = metric.dim >= MANY
        if guide is not None:
            images = jax.lax.stop_gradient(metric.embed(self.nodes(guide)))
            self.rates = num_segments / splines.pace(jnp, _root(jnp.square(jnp.diff(images, axis=1)).sum(-1)))

    def image_force(self, images: Array, plain: bool = False) -> Array:
        """Derivative of the energy, or of the ``plain`` chords between successive nodes, in the images."""
        force = jnp.zeros_like(images)
        for stride, weight in self._plain(images) if plain else self._chains(images):
            chord = weight[..., None] * (images[:, stride::stride] - images[:, :-stride:stride])
            force = force.at[:, stride::stride].add(chord).at[:, :-stride:stride].add(-chord)
        return force

    def _table(self, control: Array) -> Array:
        return _spline.uniform_basis(self.num_knots, self.num_segments, control)

    def nodes(self, control: Array) -> Array:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.follow(self._table(control), control)

    def value(self, control: Array) -> Array:
        """Energy of each curve, ``(P,)``."""
        images = self.metric.embed(self.nodes(control))
        # rows of a matrix product round each in its own way, but the energy of a curve that rests is 0
        rests = (control == control[:, :1]).all((-2, -1))[:, None, None]
        return self.of(images - jax.lax.stop_gradient(jnp.where(rests, images - images[:, :1], 0.0)))

    def system(self, control: Array) -> System:
        """Energy, gradient, tangential Hessian and the stiffness normal to the surface.

        Where Jacobians are dear, the Hessians are those of every second chord, and the gradient is a reverse pass.
        """
        nodes, table = self.nodes(control), self._table(control)
        if self.frugal and self.num_segments >= 4 * self.num_knots:
            energy, gradient = self.first_order(control)
            jacobian, table = self.metric.embed_jacobian(nodes[:, ::2])[1], table[::2]
            rates = self._halved(self.rates_of(nodes))
        else:
            images, jacobian = self.metric.embed_jacobian(nodes)
            force = jnp.einsum("pnai,pna->pni", jacobian, self.image_force(images))
            energy, gradient, rates = self.of(images), table.T @ force, self.rates_of(images)
        gram, cross = products(jacobian, jacobian), products(jacobian[:, :-1], jacobian[:, 1:])
        tangential, stiff = splines.chord_hessians(_spline, table, rates, gram, cross)
        return System(energy, gradient, tangential, stiff - tangential)

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient, by one reverse pass through the immersion."""
        return self._pulled(control, self.image_force)

    def _pulled(self, control: Array, force: Callable[[Array], Array]) -> tuple[Array, Array]:
        """Energy, and the ``force`` on the images pulled back to the control points."""
        images, pull = jax.vjp(self.metric.embed, self.nodes(control))
        return self.of(images), self._table(control).T @ pull(force(images))[0]

    def constant_system(self, control: Array) -> System:
        """The same with the Hessian of a constant metric, that at half time: one Jacobian in place of N + 1.

        The gradient is that of successive chords: of few nodes, their extrapolation bends curves that should not bend.
        """
        energy, gradient = self._pulled(control, partial(self.image_force, plain=True))
        chords = jnp.diff(self._table(control), axis=0)
        hessian = self._constant_hessian(self.nodes(control), self.num_segments * chords.T @ chords)
        return System(energy, gradient, hessian, hessian)

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        nodes, table = self.nodes(control), self._table(control)
        push = self.image_force(self.metric.embed(nodes))

        def pulled(points: Array) -> tuple[Array, Array]:
            images, pull = jax.vjp(self.metric.embed, points)
            return images, pull(push)[0]

        def column(axis: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            return jax.jvp(pulled, (nodes,), (jnp.broadcast_to(axis, nodes.shape),))

        axes = jnp.eye(nodes.shape[-1], dtype=nodes.dtype)
        (images, force), (jacobian, bending) = jax.vmap(column, out_axes=(None, -1))(axes)
        stiff = jnp.zeros((), control.dtype)
        for stride, each in self._chains(images):
            weight, strided = each[..., None, None], jacobian[:, ::stride]
            gram, cross = products(strided, strided), products(strided[:, :-1], strided[:, 1:])
            diagonal = chord_diagonal(weight * gram[:, :-1], weight * gram[:, 1:])
            stiff = stiff + assemble(table[::stride], diagonal, -weight * cross)
        return System(self.of(images), table.T @ force, stiff + assemble(table, bending, None), stiff)


class QuadratureEnergy(splines.Paced):
    """Energy of any metric by Gauss-Legendre quadrature along the spline, with its exact velocity."""

    xp = jnp
    frugal = False

    def __init__(self, metric: Metric, num_knots: int, num_segments: int, guide: Array | None = None) -> None:
        self.metric, self.num_knots, self.num_segments, self.guide = metric, num_knots, num_segments, guide
        if guide is not None:
            weights, _, _, points, velocity = self.curve(guide)
            self.pace = splines.pace(jnp, jax.lax.stop_gradient(metric.norm(points, velocity)), weights)

    def curve(self, control: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Weights ``(Q,)``, ``(P, Q)`` at a pace; basis and slopes ``(Q, C)``; points, velocities ``(P, Q, d)``."""
        weights, values, slopes = _spline.gauss_rule(self.num_knots, self.num_segments, control)
        if self.pace is not None:
            weights = weights / self.pace
        offsets = control - control[:, :1]
        return weights, values, slopes, control[:, :1] + values @ offsets, slopes @ offsets

    def value(self, control: Array) -> Array:
        """Energy of each curve, ``(P,)``."""
        weights, _, _, points, velocity = self.curve(control)
        return 0.5 * (self.metric.inner(points, velocity, velocity) * weights).sum(-1)

    def system(self, control: Array) -> System:
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        weights, values, slopes, points, velocity = self.curve(control)
        metric, slope, along = self.metric.metric_derivatives(points, velocity)
        connection = 0.5 * (along + slope - slope.mT)
        weight = weights[..., None, None]
        stiff = contract(slopes, weight * metric, slopes)
        mixed = contract(slopes, weight * connection, values)
        bent = contract(values, weight * (connection.mT @ _linalg.solve(metric, connection)), values)
        energy, gradient = self._first_order(control, metric, slope)
        return System(energy, gradient, stiff + mixed + mixed.mT + bent, stiff)

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        weights, values, slopes, points, velocity = self.curve(control)
        metric, slope, _ = self.metric.metric_derivatives(points, velocity)
        bending = self.metric.speed_hessian(points, velocity)
        weight = weights[..., None, None]
        stiff = contract(slopes, weight * metric, slopes)
        mixed = contract(slopes, weight * slope, values)
        energy, gradient = self._first_order(control, metric, slope)
        return System(energy, gradient, stiff + mixed + mixed.mT + contract(values, weight * bending, values), stiff)

    def constant_system(self, control: Array) -> System:
        """The same with the Hessian of a constant metric, that at half time."""
        energy, gradient = self.first_order(control)
        _, _, slopes, points, _ = self.curve(control)
        weights = _spline.gauss_rule(self.num_knots, self.num_segments, control)[0]
        hessian = self._constant_hessian(points, (slopes.T * weights) @ slopes)
        return System(energy, gradient, hessian, hessian)

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient."""
        _, _, _, points, velocity = self.curve(control)
        metric, slope, _ = self.metric.metric_derivatives(points, velocity)
        return self._first_order(control, metric, slope)

    def _first_order(self, control: Array, metric: Array, slope: Array) -> tuple[Array, Array]:
        weights, values, slopes, _, velocity = self.curve(control)
        momentum = jnp.einsum("pqij,pqj->pqi", metric, velocity)
        force = 0.5 * jnp.einsum("pqji,pqj->pqi", slope, velocity)
        energy = 0.5 * ((momentum * velocity).sum(-1) * weights).sum(-1)
        weight = weights[..., None]
        return energy, slopes.T @ (weight * momentum) + values.T @ (weight * force)


def _root(square: Array) -> Array:
    """Square root whose derivative at 0 is 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
