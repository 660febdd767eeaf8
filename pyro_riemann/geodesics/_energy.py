r"""Discrete energies of spline curves, with their gradients and Hessians in the control points.

Both energies approximate :math:`\tfrac12\int |\gamma'|^2_G\,dt` for a batch of P curves
with control points ``(P, C, d)``. Hessians come in three kinds, all ``(P, C d, C d)``:

- *tangential*: :math:`\int |D_t\eta|^2`, the covariant derivative of the variation; positive, and the
  Hessian of the energy up to curvature;
- *stiff*: also resists motion normal to the curve (Gauss-Newton); positive, robust on steep walls;
- *full*: the exact second derivative, needed to polish and for the Van Vleck determinant.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.func import vjp

from pyro_riemann import _autodiff
from pyro_riemann.geodesics import _spline


class System(NamedTuple):
    """Second-order model of the energy around the current curves."""

    energy: Tensor  # (P,)
    gradient: Tensor  # (P, C, d)
    hessian: Tensor  # (P, C d, C d), tangential or full
    stiffening: Tensor  # (P, C d, C d), positive, added in proportion to the damping


class ChordEnergy:
    r"""Energy of a pullback metric from chords in the ambient space: no Jacobian in its value.

    With N equal time steps, ``E_N = N/2 sum |f(c_{i+1}) - f(c_i)|^2``; the value is the Richardson
    combination ``(4 E_N - E_{N/2}) / 3``, fourth order in 1/N at no further evaluation.
    """

    def __init__(self, metric: Any, num_knots: int, num_segments: int, richardson: bool = True) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments
        self.richardson = richardson
        if richardson and num_segments % 2:
            raise ValueError(f"`num_segments` must be even for Richardson extrapolation, got {num_segments}.")

    def _chord_weights(self) -> list[tuple[int, float]]:
        """(stride, weight): the energy is ``1/2 sum_stride weight * sum |f_{i+stride} - f_i|^2``."""
        n = float(self.num_segments)
        return [(1, 4 * n / 3), (2, -n / 6)] if self.richardson else [(1, n)]

    def _image_energy(self, images: Tensor) -> Tensor:
        terms = [
            0.5 * weight * (images[:, stride::stride] - images[:, :-stride:stride]).square().sum((-1, -2))
            for stride, weight in self._chord_weights()
        ]
        return sum(terms[1:], terms[0])

    def _image_force(self, images: Tensor) -> Tensor:
        """Derivative of the energy in the images, ``(P, N + 1, D)``."""
        force = torch.zeros_like(images)
        for stride, weight in self._chord_weights():
            chord = weight * (images[:, stride::stride] - images[:, :-stride:stride])
            force[:, stride::stride] += chord
            force[:, :-stride:stride] -= chord
        return force

    def nodes(self, control: Tensor) -> Tensor:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.uniform_basis(self.num_knots, self.num_segments, control) @ control

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        return self._image_energy(self.metric.embed(self.nodes(control)))

    def length(self, control: Tensor, refine: int = 4) -> Tensor:
        """Length of the curves by chords ``refine`` times as short, ``(P,)``."""
        images = self.metric.embed(_spline.uniform_basis(self.num_knots, refine * self.num_segments, control) @ control)
        return (images[:, 1:] - images[:, :-1]).norm(dim=-1).sum(-1)

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and the stiffness normal to the surface."""
        images, jacobian = self.metric.embed_jacobian(self.nodes(control))
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        force = torch.einsum("pnai,pna->pni", jacobian, self._image_force(images))
        gram, cross = jacobian.mT @ jacobian, jacobian[:, :-1].mT @ jacobian[:, 1:]
        start, end = gram[:, :-1], gram[:, 1:]
        n = self.num_segments
        stiff = _assemble(table, n * _chord_diagonal(start, end), -n * cross)
        # chord derivatives projected on the plane of the mean of the two Jacobians
        left, right = (start + cross) / 2, (cross.mT + end) / 2
        mean = (left + right) / 2
        solved_left, solved_right = _solve(mean, left.mT), _solve(mean, right.mT)
        tangential = _assemble(
            table, n * _chord_diagonal(left @ solved_left, right @ solved_right), -n * left @ solved_right
        )
        return System(self._image_energy(images), table.mT @ force, tangential, stiff - tangential)

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, by one reverse pass through the immersion."""
        nodes = self.nodes(control)
        if torch.jit.is_tracing():  # which cannot record a reverse pass within the function
            system = self.system(control)
            return system.energy, system.gradient
        images, pull, *_ = vjp(self.metric.embed, nodes)
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        return self._image_energy(images), table.mT @ pull(self._image_force(images))[0]

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
            return cast(Tensor, vjp(self.metric.embed, points)[1](push)[0])

        bending = _autodiff.jacobian(pulled, nodes, self.metric.dim)[1]
        stiff = torch.zeros_like(control[:, 0, 0])[:, None, None]
        for stride, weight in self._chord_weights():
            strided = jacobian[:, ::stride]
            gram, cross = strided.mT @ strided, strided[:, :-1].mT @ strided[:, 1:]
            diagonal = weight * _chord_diagonal(gram[:, :-1], gram[:, 1:])
            stiff = stiff + _assemble(table[::stride], diagonal, -weight * cross)
        force = table.mT @ torch.einsum("pnai,pna->pni", jacobian, push)
        return System(self._image_energy(images), force, stiff + _assemble(table, bending, None), stiff)


class _Quadrature(NamedTuple):
    """Curves at the Q nodes of a quadrature in time, and integrals over them."""

    weights: Tensor  # (Q,)
    values: Tensor  # (Q, C), the spline's basis
    slopes: Tensor  # (Q, C), its derivative
    points: Tensor  # (P, Q, d)
    velocity: Tensor  # (P, Q, d)

    def first_order(self, metric: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient from G and ``d (G v)_i / d z_j`` at the nodes."""
        momentum = torch.einsum("pqij,pqj->pqi", metric, self.velocity)
        force = 0.5 * torch.einsum("pqji,pqj->pqi", slope, self.velocity)
        energy = 0.5 * ((momentum * self.velocity).sum(-1) * self.weights).sum(-1)
        weight = self.weights[:, None]
        return energy, self.slopes.mT @ (weight * momentum) + self.values.mT @ (weight * force)

    def hessian(self, stiff: Tensor, mixed: Tensor, bent: Tensor) -> tuple[Tensor, Tensor]:
        """Second derivative in the velocities alone, and all of it, from ``(P, Q, d, d)`` blocks at the nodes.

        ``mixed`` is the derivative in velocity (rows) and position (columns), ``bent`` that in positions.
        """
        weight, values, slopes = self.weights[:, None, None], self.values, self.slopes
        stiffness = _contract(slopes, weight * stiff, slopes)
        blocks = torch.cat([weight * mixed, weight * mixed.mT, weight * bent], dim=1)
        rows, columns = torch.cat([slopes, values, values]), torch.cat([values, slopes, values])
        return stiffness, stiffness + _contract(rows, blocks, columns)


class QuadratureEnergy:
    """Energy of any metric by Gauss-Legendre quadrature along the spline, with its exact velocity."""

    def __init__(self, metric: Any, num_knots: int, num_segments: int) -> None:
        self.metric, self.num_knots, self.num_segments = metric, num_knots, num_segments

    def _curve(self, control: Tensor) -> _Quadrature:
        weights, values, slopes = _spline.gauss_rule(self.num_knots, self.num_segments, control)
        return _Quadrature(weights, values, slopes, values @ control, slopes @ control)

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        curve = self._curve(control)
        return 0.5 * (self.metric.inner(curve.points, curve.velocity, curve.velocity) * curve.weights).sum(-1)

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        curve = self._curve(control)
        metric, slope, along = self.metric.metric_derivatives(curve.points, curve.velocity)
        connection = 0.5 * (along + slope - slope.mT)
        stiff, hessian = curve.hessian(metric, connection, connection.mT @ _solve(metric, connection))
        return System(*curve.first_order(metric, slope), hessian, stiff)

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        curve = self._curve(control)
        metric, slope, _ = self.metric.metric_derivatives(curve.points, curve.velocity)
        stiff, hessian = curve.hessian(metric, slope, self.metric.speed_hessian(curve.points, curve.velocity))
        return System(*curve.first_order(metric, slope), hessian, stiff)

    def constant_system(self, control: Tensor) -> System:
        """The same with the Hessian of a constant metric, that at half time."""
        energy, gradient = self.first_order(control)
        curve = self._curve(control)
        hessian = _constant_hessian(self.metric, curve.points, (curve.slopes.mT * curve.weights) @ curve.slopes)
        return System(energy, gradient, hessian, hessian)

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient."""
        curve = self._curve(control)
        return curve.first_order(*self.metric.metric_derivatives(curve.points, curve.velocity)[:2])

    def length(self, control: Tensor, refine: int = 4) -> Tensor:
        """Length of the curves by a quadrature ``refine`` times as fine, ``(P,)``."""
        fine = QuadratureEnergy(self.metric, self.num_knots, refine * self.num_segments)
        curve = fine._curve(control)
        return (self.metric.norm(curve.points, curve.velocity) * curve.weights).sum(-1)


Energy = ChordEnergy | QuadratureEnergy


def make_energy(metric: Any, num_knots: int, num_segments: int, richardson: bool) -> Energy:
    """Chords for metrics that are pullbacks (they have ``embed``), quadrature for all others."""
    if hasattr(metric, "embed"):
        return ChordEnergy(metric, num_knots, num_segments, richardson)
    return QuadratureEnergy(metric, num_knots, num_segments)


def _constant_hessian(metric: Any, points: Tensor, stiffness: Tensor) -> Tensor:
    """Stiffness ``(C, C)`` of the spline times the metric in the middle of every curve, ``(P, C d, C d)``."""
    middle = metric.metric(points[:, points.shape[1] // 2])
    return torch.einsum("kl,pij->pkilj", stiffness, middle).flatten(3, 4).flatten(1, 2)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    if matrix.shape[-1] != 2:
        return torch.linalg.solve_ex(matrix, right).result
    # Cramer's rule: a batch of 2 x 2 systems costs three times as much by LU
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate @ right / (a * d - b * c)[..., None, None]


def _chord_diagonal(start: Tensor, end: Tensor) -> Tensor:
    """Node-diagonal blocks from the two end blocks of every chord: ``(P, N, d, d) -> (P, N + 1, d, d)``."""
    pad = (0, 0, 0, 0)
    return torch.nn.functional.pad(start, (*pad, 0, 1)) + torch.nn.functional.pad(end, (*pad, 1, 0))


def _contract(left: Tensor, blocks: Tensor, right: Tensor) -> Tensor:
    """``sum_n left[n, k] blocks[p, n, i, j] right[n, l]`` as a matrix ``(P, K d, L d)``: one matrix product."""
    products = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(1)  # (N, K L)
    count, _, dim, _ = blocks.shape
    dense = blocks.flatten(2).mT @ products  # (P, d d, K L)
    dense = dense.reshape(count, dim, dim, left.shape[1], right.shape[1])
    return dense.permute(0, 3, 1, 4, 2).reshape(count, left.shape[1] * dim, right.shape[1] * dim)


def _assemble(table: Tensor, diagonal: Tensor, upper: Tensor | None) -> Tensor:
    """Block-tridiagonal Hessian in the nodes, rewritten for the control points."""
    hessian = _contract(table, diagonal, table)
    if upper is not None:
        side = _contract(table[:-1], upper, table[1:])
        hessian = hessian + side + side.mT
    return hessian
