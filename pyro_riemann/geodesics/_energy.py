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

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _autodiff
from pyro_riemann._checks import holds
from pyro_riemann._interface import Immersed, Metric, System
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._spline import assemble, chord_diagonal, contract, solve_small

_EVEN = 0.002  # share of time that passes evenly


class ChordEnergy:
    r"""Energy of a pullback metric from chords in the ambient space: no Jacobian in its value.

    With N equal time steps, ``E_N = N/2 sum |f(c_{i+1}) - f(c_i)|^2``; the value is the Richardson
    combination ``(4 E_N - E_{N/2}) / 3``, fourth order in 1/N at no further evaluation. With a guide, the time
    between two nodes is in proportion to the guide's chord.
    """

    def __init__(
        self, metric: Immersed, num_knots: int, num_segments: int, richardson: bool = True, guide: Tensor | None = None
    ) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments
        self.richardson = richardson
        self.rates: Tensor | None = None  # 1 / (time between two nodes), (P, N); N everywhere without a guide
        if guide is not None:
            with torch.no_grad():
                self.rates = num_segments / _pace(metric.embed(self.nodes(guide)).diff(dim=1).norm(dim=-1))
        if richardson and num_segments % 2:
            raise ValueError(f"`num_segments` must be even for Richardson extrapolation, got {num_segments}.")

    def rows(self, index: Tensor) -> ChordEnergy:
        """The energy of some of the curves."""
        if self.rates is None:
            return self
        part = ChordEnergy(self.metric, self.num_knots, self.num_segments, self.richardson)
        part.rates = self.rates[index]
        return part

    def _rates(self, like: Tensor) -> Tensor:
        return self.rates if self.rates is not None else like.new_full((1, 1), self.num_segments)

    def _chord_weights(self, like: Tensor) -> list[tuple[int, Tensor]]:
        """(stride, weight): the energy is ``1/2 sum_stride sum weight * |f_{i+stride} - f_i|^2``."""
        rates = self._rates(like)
        if not self.richardson:
            return [(1, rates)]
        half = rates / 2 if self.rates is None else 1 / (1 / rates).unflatten(1, (-1, 2)).sum(-1)
        return [(1, 4 / 3 * rates), (2, -1 / 3 * half)]

    def of(self, images: Tensor) -> Tensor:
        """Energy ``(P,)`` of the chain of images ``(P, N + 1, D)``."""
        terms = [
            0.5 * (weight * (images[:, stride::stride] - images[:, :-stride:stride]).square().sum(-1)).sum(-1)
            for stride, weight in self._chord_weights(images)
        ]
        return sum(terms[1:], terms[0])

    def _image_force(self, images: Tensor) -> Tensor:
        """Derivative of the energy in the images, ``(P, N + 1, D)``."""
        force = torch.zeros_like(images)
        for stride, weight in self._chord_weights(images):
            chord = weight[..., None] * (images[:, stride::stride] - images[:, :-stride:stride])
            force[:, stride::stride] += chord
            force[:, :-stride:stride] -= chord
        return force

    def nodes(self, control: Tensor) -> Tensor:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.uniform_basis(self.num_knots, self.num_segments, control) @ control

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        return self.of(self.metric.embed(self.nodes(control)))

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and the stiffness normal to the surface."""
        images, jacobian = self.metric.embed_jacobian(self.nodes(control))
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        force = torch.einsum("pnai,pna->pni", jacobian, self._image_force(images))
        gram, cross = jacobian.mT @ jacobian, jacobian[:, :-1].mT @ jacobian[:, 1:]
        tangential, stiff = chord_hessians(table, self._rates(images), gram, cross)
        return System(self.of(images), table.mT @ force, tangential, stiff - tangential)

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, by one reverse pass through the immersion."""
        nodes = self.nodes(control)
        if torch.jit.is_tracing():  # which cannot record a reverse pass within the function
            system = self.system(control)
            return system.energy, system.gradient
        images, pulled = _autodiff.pull_back(self.metric.embed, nodes, self._image_force)
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        return self.of(images), table.mT @ pulled

    def constant_system(self, control: Tensor) -> System:
        """The same with the Hessian of a constant metric, that at half time: one Jacobian in place of N + 1."""
        energy, gradient = self.first_order(control)
        chords = _spline.uniform_basis(self.num_knots, self.num_segments, control).diff(dim=0)
        hessian = _constant_hessian(self.metric, self.nodes(control), self.num_segments * chords.mT @ chords)
        return System(energy, gradient, hessian, hessian)

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        nodes = self.nodes(control)
        images, jacobian = self.metric.embed_jacobian(nodes)
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        push = self._image_force(images)

        def pulled(points: Tensor) -> Tensor:
            if torch.jit.is_tracing():  # which cannot record reverse mode inside forward mode
                return torch.einsum("pnai,pna->pni", self.metric.embed_jacobian(points)[1], push)
            return _autodiff.pull_back(self.metric.embed, points, lambda _: push)[1]

        bending = _autodiff.jacobian(pulled, nodes, self.metric.dim)[1]
        stiff = torch.zeros_like(control[:, 0, 0])[:, None, None]
        for stride, rate in self._chord_weights(images):
            weight, strided = rate[..., None, None], jacobian[:, ::stride]
            gram, cross = strided.mT @ strided, strided[:, :-1].mT @ strided[:, 1:]
            diagonal = chord_diagonal(weight * gram[:, :-1], weight * gram[:, 1:])
            stiff = stiff + assemble(table[::stride], diagonal, -weight * cross)
        force = table.mT @ torch.einsum("pnai,pna->pni", jacobian, push)
        return System(self.of(images), force, stiff + assemble(table, bending, None), stiff)


def chord_hessians(table: Tensor, rates: Tensor, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Tangential and stiff Hessian of ``1/2 sum rates |chord|^2``.

    Args:
        table: the spline's basis at the nodes, ``(N + 1, C)``.
        rates: ``(P, N)`` or broadcastable.
        gram: products of the Jacobian's columns at each node, ``(P, N + 1, d, d)``.
        cross: those of each node (rows) with the next (columns), ``(P, N, d, d)``.
    """
    start, end, rate = gram[:, :-1], gram[:, 1:], rates[..., None, None]
    stiff = assemble(table, chord_diagonal(rate * start, rate * end), -rate * cross)
    # chord derivatives projected on the plane of the mean of the two Jacobians
    left, right = (start + cross) / 2, (cross.mT + end) / 2
    mean = (left + right) / 2
    solved_left, solved_right = solve_small(mean, left.mT), solve_small(mean, right.mT)
    tangential = assemble(
        table,
        chord_diagonal(rate * left @ solved_left, rate * right @ solved_right),
        -rate * left @ solved_right,
    )
    return tangential, stiff


class Quadrature(NamedTuple):
    """Curves at the Q nodes of a quadrature in time, and integrals over them."""

    weights: Tensor  # (Q,), or (P, Q) where time has a pace
    values: Tensor  # (Q, C), the spline's basis
    slopes: Tensor  # (Q, C), its derivative
    points: Tensor  # (P, Q, d)
    velocity: Tensor  # (P, Q, d)

    def first_order(self, metric: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient from G and ``d (G v)_i / d z_j`` at the nodes."""
        momentum = torch.einsum("pqij,pqj->pqi", metric, self.velocity)
        force = 0.5 * torch.einsum("pqji,pqj->pqi", slope, self.velocity)
        energy = 0.5 * ((momentum * self.velocity).sum(-1) * self.weights).sum(-1)
        weight = self.weights[..., None]
        return energy, self.slopes.mT @ (weight * momentum) + self.values.mT @ (weight * force)

    def hessian(self, stiff: Tensor, mixed: Tensor, bent: Tensor) -> tuple[Tensor, Tensor]:
        """Second derivative in the velocities alone, and all of it, from ``(P, Q, d, d)`` blocks at the nodes.

        ``mixed`` is the derivative in velocity (rows) and position (columns), ``bent`` that in positions.
        """
        weight, values, slopes = self.weights[..., None, None], self.values, self.slopes
        stiffness = contract(slopes, weight * stiff, slopes)
        blocks = torch.cat([weight * mixed, weight * mixed.mT, weight * bent], dim=1)
        rows, columns = torch.cat([slopes, values, values]), torch.cat([values, slopes, values])
        return stiffness, stiffness + contract(rows, blocks, columns)


class QuadratureEnergy:
    """Energy of any metric by Gauss-Legendre quadrature along the spline, with its exact velocity.

    Infinite for a curve that leaves where the metric is known: no step goes there.
    """

    def __init__(self, metric: Metric, num_knots: int, num_segments: int, guide: Tensor | None = None) -> None:
        self.metric, self.num_knots, self.num_segments, self.guide = metric, num_knots, num_segments, guide
        self.pace: Tensor | None = None  # (P, Q)
        if guide is not None:
            weights, values, slopes = _spline.gauss_rule(num_knots, num_segments, guide)
            with torch.no_grad():
                self.pace = _pace(metric.norm(_within(metric, values @ guide)[0], slopes @ guide), weights)

    def rows(self, index: Tensor) -> QuadratureEnergy:
        """The energy of some of the curves."""
        if self.pace is None or self.guide is None:
            return self
        part = QuadratureEnergy(self.metric, self.num_knots, self.num_segments)
        part.guide, part.pace = self.guide[index], self.pace[index]
        return part

    def curve(self, control: Tensor) -> Quadrature:
        """The curves at the nodes."""
        weights, values, slopes = _spline.gauss_rule(self.num_knots, self.num_segments, control)
        if self.pace is not None:
            weights = weights / self.pace
        points, known = _within(self.metric, values @ control)
        if known is not None:
            weights = torch.where(known.all(-1, keepdim=True), weights, torch.inf)
        return Quadrature(weights, values, slopes, points, slopes @ control)

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        curve = self.curve(control)
        return 0.5 * (self.metric.inner(curve.points, curve.velocity, curve.velocity) * curve.weights).sum(-1)

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        curve = self.curve(control)
        metric, slope, along = self.metric.metric_derivatives(curve.points, curve.velocity)
        connection = 0.5 * (along + slope - slope.mT)
        stiff, hessian = curve.hessian(metric, connection, connection.mT @ solve_small(metric, connection))
        return System(*curve.first_order(metric, slope), hessian, stiff)

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        curve = self.curve(control)
        metric, slope, _ = self.metric.metric_derivatives(curve.points, curve.velocity)
        stiff, hessian = curve.hessian(metric, slope, self.metric.speed_hessian(curve.points, curve.velocity))
        return System(*curve.first_order(metric, slope), hessian, stiff)

    def constant_system(self, control: Tensor) -> System:
        """The same with the Hessian of a constant metric, that at half time."""
        energy, gradient = self.first_order(control)
        curve = self.curve(control)
        hessian = _constant_hessian(self.metric, curve.points, (curve.slopes.mT * curve.weights) @ curve.slopes)
        return System(energy, gradient, hessian, hessian)

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient."""
        curve = self.curve(control)
        return curve.first_order(*self.metric.metric_derivatives(curve.points, curve.velocity)[:2])


def _within(metric: Metric, points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Points ``(P, Q, d)`` at which the metric can be evaluated, and which are as given, ``(P, Q)``; None if all."""
    known = metric.covers(points)
    if known is None or holds(known):
        return points, None
    first = known.to(torch.uint8).argmax(-1)  # of the curve, that the metric knows
    inside = points.gather(1, first[:, None, None].expand(-1, 1, points.shape[-1]))
    return torch.where(known.unsqueeze(-1), points, inside), known


def _pace(speed: Tensor, weights: Tensor | None = None) -> Tensor:
    """Time per unit of the parameter, ``(P, Q)``, of mean 1: in proportion to the speed, and never near 0."""
    mean = speed.mean(-1, keepdim=True) if weights is None else (speed * weights).sum(-1, keepdim=True)
    return (speed / torch.where(mean > 0, mean, torch.ones_like(mean)) + _EVEN) / (1 + _EVEN)


def _constant_hessian(metric: Metric, points: Tensor, stiffness: Tensor) -> Tensor:
    """Stiffness ``(C, C)`` of the spline times the metric in the middle of every curve, ``(P, C d, C d)``."""
    middle = metric.metric(points[:, points.shape[1] // 2])
    return torch.einsum("kl,pij->pkilj", stiffness, middle).flatten(3, 4).flatten(1, 2)
