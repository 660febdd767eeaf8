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
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _autodiff
from pyro_riemann._checks import holds
from pyro_riemann._formulas import splines
from pyro_riemann._formulas.quasi_newton import MANY
from pyro_riemann._interface import Immersed, Metric, System
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._spline import assemble, chord_diagonal, contract, solve_small


class ChordEnergy(splines.Chains):
    r"""Energy of a pullback metric from chords in the ambient space: no Jacobian in its value.

    With N equal time steps, ``E_N = N/2 sum |f(c_{i+1}) - f(c_i)|^2``; the value is the Richardson
    combination ``(4 E_N - E_{N/2}) / 3``, fourth order in 1/N at no further evaluation. With a guide, the time
    between two nodes is in proportion to the guide's chord.
    """

    xp = torch

    def __init__(
        self, metric: Immersed, num_knots: int, num_segments: int, richardson: bool = True, guide: Tensor | None = None
    ) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments
        self.richardson = richardson
        self.frugal = metric.dim >= MANY
        if guide is not None:
            with torch.no_grad():
                chords = metric.embed(self.nodes(guide)).diff(dim=1).norm(dim=-1)
                self.rates = num_segments / splines.pace(torch, chords)
        if richardson and num_segments % 2:
            raise ValueError(f"`num_segments` must be even for Richardson extrapolation, got {num_segments}.")

    def image_force(self, images: Tensor, plain: bool = False) -> Tensor:
        """Derivative of the energy, or of the ``plain`` chords between successive nodes, in the images."""
        force = torch.zeros_like(images)
        for stride, weight in self._plain(images) if plain else self._chains(images):
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
        """Energy, gradient, tangential Hessian and the stiffness normal to the surface.

        Where Jacobians are dear, the Hessians are those of every second chord, and the gradient is a reverse pass.
        """
        nodes, table = self.nodes(control), _spline.uniform_basis(self.num_knots, self.num_segments, control)
        if self.frugal and self.num_segments >= 4 * self.num_knots and not torch.jit.is_tracing():
            energy, gradient = self.first_order(control)
            jacobian, table = self.metric.embed_jacobian(nodes[:, ::2])[1], table[::2]
            rates = self._halved(self.rates_of(nodes))
        else:
            images, jacobian = self.metric.embed_jacobian(nodes)
            force = torch.einsum("pnai,pna->pni", jacobian, self.image_force(images))
            energy, gradient, rates = self.of(images), table.mT @ force, self.rates_of(images)
        gram, cross = jacobian.mT @ jacobian, jacobian[:, :-1].mT @ jacobian[:, 1:]
        tangential, stiff = splines.chord_hessians(_spline, table, rates, gram, cross)
        return System(energy, gradient, tangential, stiff - tangential)

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, by one reverse pass through the immersion."""
        return self._pulled(control, self.image_force)

    def _pulled(self, control: Tensor, force: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Energy, and the ``force`` on the images pulled back to the control points."""
        nodes, table = self.nodes(control), _spline.uniform_basis(self.num_knots, self.num_segments, control)
        if torch.jit.is_tracing():  # which cannot record a reverse pass within the function
            images, jacobian = self.metric.embed_jacobian(nodes)
            pulled = torch.einsum("pnai,pna->pni", jacobian, force(images))
        else:
            images, pulled = _autodiff.pull_back(self.metric.embed, nodes, force)
        return self.of(images), table.mT @ pulled

    def constant_system(self, control: Tensor) -> System:
        """The same with the Hessian of a constant metric, that at half time: one Jacobian in place of N + 1.

        The gradient is that of successive chords: of few nodes, their extrapolation bends curves that should not bend.
        """
        energy, gradient = self._pulled(control, partial(self.image_force, plain=True))
        chords = _spline.uniform_basis(self.num_knots, self.num_segments, control).diff(dim=0)
        hessian = self._constant_hessian(self.nodes(control), self.num_segments * chords.mT @ chords)
        return System(energy, gradient, hessian, hessian)

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        nodes = self.nodes(control)
        images, jacobian = self.metric.embed_jacobian(nodes)
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        push = self.image_force(images)

        def pulled(points: Tensor) -> Tensor:
            if torch.jit.is_tracing():  # which cannot record reverse mode inside forward mode
                return torch.einsum("pnai,pna->pni", self.metric.embed_jacobian(points)[1], push)
            return _autodiff.pull_back(self.metric.embed, points, lambda _: push)[1]

        bending = _autodiff.jacobian(pulled, nodes, self.metric.dim)[1]
        stiff = torch.zeros_like(control[:, 0, 0])[:, None, None]
        for stride, rate in self._chains(images):
            weight, strided = rate[..., None, None], jacobian[:, ::stride]
            gram, cross = strided.mT @ strided, strided[:, :-1].mT @ strided[:, 1:]
            diagonal = chord_diagonal(weight * gram[:, :-1], weight * gram[:, 1:])
            stiff = stiff + assemble(table[::stride], diagonal, -weight * cross)
        force = table.mT @ torch.einsum("pnai,pna->pni", jacobian, push)
        return System(self.of(images), force, stiff + assemble(table, bending, None), stiff)


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


class QuadratureEnergy(splines.Paced):
    """Energy of any metric by Gauss-Legendre quadrature along the spline, with its exact velocity.

    Infinite for a curve that leaves where the metric is known: no step goes there.
    """

    xp = torch
    frugal = False

    def __init__(self, metric: Metric, num_knots: int, num_segments: int, guide: Tensor | None = None) -> None:
        self.metric, self.num_knots, self.num_segments, self.guide = metric, num_knots, num_segments, guide
        if guide is not None:
            weights, values, slopes = _spline.gauss_rule(num_knots, num_segments, guide)
            with torch.no_grad():
                speed = metric.norm(_within(metric, values @ guide)[0], slopes @ guide)
                self.pace = splines.pace(torch, speed, weights)

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
        hessian = self._constant_hessian(curve.points, (curve.slopes.mT * curve.weights) @ curve.slopes)
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
