r"""Discrete energies of spline curves, with their gradients and Hessians in the control points.

Both energies approximate :math:`\tfrac12\int |\gamma'|^2_G\,dt` for a batch of P curves
with control points ``(P, C, d)``. Hessians come in three kinds, all ``(P, C d, C d)``:

- *tangential*: :math:`\int |D_t\eta|^2`, the covariant derivative of the variation; positive, and the
  Hessian of the energy up to curvature;
- *stiff*: also resists motion normal to the curve (Gauss-Newton); positive, robust on steep walls;
- *full*: the exact second derivative, needed to polish and for the Van Vleck determinant.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro.geodesics import _spline


class System(NamedTuple):
    """Second-order model of the energy around the current curves."""

    energy: Array  # (P,)
    gradient: Array  # (P, C, d)
    hessian: Array  # (P, C d, C d), tangential or full
    stiffening: Array  # (P, C d, C d), positive, added in proportion to the damping


class ChordEnergy:
    r"""Energy of a pullback metric from chords in the ambient space: no Jacobian in its value.

    With N equal time steps, ``E_N = N/2 sum |f(c_{i+1}) - f(c_i)|^2``; the value is the Richardson
    combination ``(4 E_N - E_{N/2}) / 3``, fourth order in 1/N at no further evaluation.
    """

    def __init__(self, metric: Any, num_knots: int, num_segments: int, richardson: bool = True) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments
        self.richardson = richardson

    def _chord_weights(self) -> list[tuple[int, float]]:
        """(stride, weight): the energy is ``1/2 sum_stride weight * sum |f_{i+stride} - f_i|^2``."""
        n = float(self.num_segments)
        return [(1, 4 * n / 3), (2, -n / 6)] if self.richardson else [(1, n)]

    def _image_energy(self, images: Array) -> Array:
        energies = [
            0.5 * weight * jnp.square(images[:, stride::stride] - images[:, :-stride:stride]).sum((-1, -2))
            for stride, weight in self._chord_weights()
        ]
        return jnp.stack(energies).sum(0)

    def _image_force(self, images: Array) -> Array:
        """Derivative of the energy in the images, ``(P, N + 1, D)``."""
        force = jnp.zeros_like(images)
        for stride, weight in self._chord_weights():
            chord = weight * (images[:, stride::stride] - images[:, :-stride:stride])
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
        return self._image_energy(images - jax.lax.stop_gradient(jnp.where(rests, images - images[:, :1], 0.0)))

    def length(self, control: Array, refine: int = 4) -> Array:
        """Length of the curves by chords ``refine`` times as short, ``(P,)``."""
        table = _spline.uniform_basis(self.num_knots, refine * self.num_segments, control)
        images = self.metric.embed(_spline.follow(table, control))
        return _root(jnp.square(images[:, 1:] - images[:, :-1]).sum(-1)).sum(-1)

    def system(self, control: Array) -> System:
        """Energy, gradient, tangential Hessian and the stiffness normal to the surface."""
        images, jacobian = self.metric.embed_jacobian(self.nodes(control))
        table, n = self._table(control), self.num_segments
        force = jnp.einsum("pnai,pna->pni", jacobian, self._image_force(images))
        gram, cross = _products(jacobian, jacobian), _products(jacobian[:, :-1], jacobian[:, 1:])
        start, end = gram[:, :-1], gram[:, 1:]
        stiff = _assemble(table, n * _chord_diagonal(start, end), -n * cross)
        # chord derivatives projected on the plane of the mean of the two Jacobians
        left, right = (start + cross) / 2, (cross.mT + end) / 2
        mean = (left + right) / 2
        solved_left, solved_right = _linalg.solve(mean, left.mT), _linalg.solve(mean, right.mT)
        tangential = _assemble(
            table, n * _chord_diagonal(left @ solved_left, right @ solved_right), -n * left @ solved_right
        )
        return System(self._image_energy(images), table.T @ force, tangential, stiff - tangential)

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient, by one reverse pass through the immersion."""
        images, pull = jax.vjp(self.metric.embed, self.nodes(control))
        return self._image_energy(images), self._table(control).T @ pull(self._image_force(images))[0]

    def constant_system(self, control: Array) -> System:
        """The same with the Hessian of a constant metric, that at half time: one Jacobian in place of N + 1."""
        energy, gradient = self.first_order(control)
        chords = jnp.diff(self._table(control), axis=0)
        hessian = _constant_hessian(self.metric, self.nodes(control), self.num_segments * chords.T @ chords)
        return System(energy, gradient, hessian, hessian)

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        nodes, table = self.nodes(control), self._table(control)
        push = self._image_force(self.metric.embed(nodes))

        def pulled(points: Array) -> tuple[Array, Array]:
            images, pull = jax.vjp(self.metric.embed, points)
            return images, pull(push)[0]

        def column(axis: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            return jax.jvp(pulled, (nodes,), (jnp.broadcast_to(axis, nodes.shape),))

        axes = jnp.eye(nodes.shape[-1], dtype=nodes.dtype)
        (images, force), (jacobian, bending) = jax.vmap(column, out_axes=(None, -1))(axes)
        stiff = jnp.zeros((), control.dtype)
        for stride, weight in self._chord_weights():
            strided = jacobian[:, ::stride]
            gram, cross = _products(strided, strided), _products(strided[:, :-1], strided[:, 1:])
            diagonal = weight * _chord_diagonal(gram[:, :-1], gram[:, 1:])
            stiff = stiff + _assemble(table[::stride], diagonal, -weight * cross)
        return System(self._image_energy(images), table.T @ force, stiff + _assemble(table, bending, None), stiff)


class QuadratureEnergy:
    """Energy of any metric by Gauss-Legendre quadrature along the spline, with its exact velocity."""

    def __init__(self, metric: Any, num_knots: int, num_segments: int) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments

    def _curve(self, control: Array) -> tuple[Array, Array, Array, Array, Array]:
        weights, values, slopes = _spline.gauss_rule(self.num_knots, self.num_segments, control)
        offsets = control - control[:, :1]
        return weights, values, slopes, control[:, :1] + values @ offsets, slopes @ offsets

    def value(self, control: Array) -> Array:
        """Energy of each curve, ``(P,)``."""
        weights, _, _, points, velocity = self._curve(control)
        return 0.5 * (self.metric.inner(points, velocity, velocity) * weights).sum(-1)

    def system(self, control: Array) -> System:
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        weights, values, slopes, points, velocity = self._curve(control)
        metric, slope, along = self.metric.metric_derivatives(points, velocity)
        connection = 0.5 * (along + slope - slope.mT)
        weight = weights[:, None, None]
        stiff = _contract(slopes, weight * metric, slopes)
        mixed = _contract(slopes, weight * connection, values)
        bent = _contract(values, weight * (connection.mT @ _linalg.solve(metric, connection)), values)
        energy, gradient = self._first_order(control, metric, slope)
        return System(energy, gradient, stiff + mixed + mixed.mT + bent, stiff)

    def exact_system(self, control: Array) -> System:
        """The same with the full Hessian."""
        weights, values, slopes, points, velocity = self._curve(control)
        metric, slope, _ = self.metric.metric_derivatives(points, velocity)
        bending = self.metric.speed_hessian(points, velocity)
        weight = weights[:, None, None]
        stiff = _contract(slopes, weight * metric, slopes)
        mixed = _contract(slopes, weight * slope, values)
        energy, gradient = self._first_order(control, metric, slope)
        return System(energy, gradient, stiff + mixed + mixed.mT + _contract(values, weight * bending, values), stiff)

    def constant_system(self, control: Array) -> System:
        """The same with the Hessian of a constant metric, that at half time."""
        energy, gradient = self.first_order(control)
        weights, _, slopes, points, _ = self._curve(control)
        hessian = _constant_hessian(self.metric, points, (slopes.T * weights) @ slopes)
        return System(energy, gradient, hessian, hessian)

    def first_order(self, control: Array) -> tuple[Array, Array]:
        """Energy and gradient."""
        _, _, _, points, velocity = self._curve(control)
        metric, slope, _ = self.metric.metric_derivatives(points, velocity)
        return self._first_order(control, metric, slope)

    def _first_order(self, control: Array, metric: Array, slope: Array) -> tuple[Array, Array]:
        weights, values, slopes, _, velocity = self._curve(control)
        momentum = jnp.einsum("pqij,pqj->pqi", metric, velocity)
        force = 0.5 * jnp.einsum("pqji,pqj->pqi", slope, velocity)
        energy = 0.5 * ((momentum * velocity).sum(-1) * weights).sum(-1)
        weight = weights[:, None]
        return energy, slopes.T @ (weight * momentum) + values.T @ (weight * force)

    def length(self, control: Array, refine: int = 4) -> Array:
        """Length of the curves by a quadrature ``refine`` times as fine, ``(P,)``."""
        fine = QuadratureEnergy(self.metric, self.num_knots, refine * self.num_segments)
        weights, _, _, points, velocity = fine._curve(control)
        return (self.metric.norm(points, velocity) * weights).sum(-1)


Energy = ChordEnergy | QuadratureEnergy


def make_energy(metric: Any, num_knots: int, num_segments: int, richardson: bool) -> Energy:
    """Chords for metrics that are pullbacks (they have ``embed``), quadrature for all others."""
    if hasattr(metric, "embed"):
        return ChordEnergy(metric, num_knots, num_segments, richardson)
    return QuadratureEnergy(metric, num_knots, num_segments)


def _root(square: Array) -> Array:
    """Square root whose derivative at 0 is 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _constant_hessian(metric: Any, points: Array, stiffness: Array) -> Array:
    """Stiffness ``(C, C)`` of the spline times the metric in the middle of every curve, ``(P, C d, C d)``."""
    middle = metric.metric(points[:, points.shape[1] // 2])
    size = stiffness.shape[0] * middle.shape[-1]
    return jnp.einsum("kl,pij->pkilj", stiffness, middle).reshape(-1, size, size)


def _products(left: Array, right: Array) -> Array:
    """``left^T right`` of Jacobians ``(P, N, D, d)``: ``(P, N, d, d)``."""
    return jnp.einsum("pnai,pnaj->pnij", left, right)


def _chord_diagonal(start: Array, end: Array) -> Array:
    """Node-diagonal blocks from the two end blocks of every chord: ``(P, N, d, d) -> (P, N + 1, d, d)``."""
    zero = jnp.zeros_like(start[:, :1])
    return jnp.concatenate([start, zero], 1) + jnp.concatenate([zero, end], 1)


def _contract(left: Array, blocks: Array, right: Array) -> Array:
    """``sum_n left[n, k] blocks[p, n, i, j] right[n, l]`` as a matrix ``(P, K d, L d)``: one matrix product."""
    products = (left[:, :, None] * right[:, None, :]).reshape(left.shape[0], -1)  # (N, K L)
    count, nodes, dim, _ = blocks.shape
    dense = jnp.einsum("pnm,nq->pmq", blocks.reshape(count, nodes, dim * dim), products)
    dense = dense.reshape(count, dim, dim, left.shape[1], right.shape[1])
    return dense.transpose(0, 3, 1, 4, 2).reshape(count, left.shape[1] * dim, right.shape[1] * dim)


def _assemble(table: Array, diagonal: Array, upper: Array | None) -> Array:
    """Block-tridiagonal Hessian in the nodes, rewritten for the control points."""
    hessian = _contract(table, diagonal, table)
    if upper is not None:
        side = _contract(table[:-1], upper, table[1:])
        hessian = hessian + side + side.mT
    return hessian
