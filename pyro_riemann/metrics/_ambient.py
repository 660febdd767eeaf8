"""Spaces into which a decoder maps that are not Euclidean: their metric, and energies of curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, distributions
from torch.func import vjp

from pyro_riemann import _autodiff
from pyro_riemann._formulas import fisher, splines
from pyro_riemann._formulas.fisher import Flat, Frameless
from pyro_riemann._interface import Metric, System
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._energy import QuadratureEnergy
from pyro_riemann.geodesics._spline import assemble
from pyro_riemann.metrics._base import RiemannianMetric

__all__ = ["Ambient", "Divergence", "Flat", "HalfPlanes", "Of", "Product", "ZeroInflated"]

Ambient: TypeAlias = fisher.Ambient[Tensor]


class _Library:
    xp, split = torch, staticmethod(torch.tensor_split)


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

    Between near points the symmetrised divergence stands for the squared distance, to third order.

    Attributes:
        family: class of the distribution.
        names: of its parameters.
        shapes: of these, without the axis of points.
    """

    family: type[distributions.Distribution]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    has_distance = True

    def law(self, x: Tensor) -> distributions.Distribution:
        """The distribution with the parameters ``x``, ``(*batch, size)``."""
        parts = x.split([torch.Size(shape).numel() for shape in self.shapes], -1)
        values = [part.reshape(*x.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return self.family(**dict(zip(self.names, values, strict=True)), validate_args=False)

    def _divergence(self, x: Tensor, y: Tensor) -> Tensor:
        value = distributions.kl_divergence(self.law(x), self.law(y))
        return value if value.dim() < x.dim() else value.flatten(x.dim() - 1).sum(-1)

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        # a divergence of near points is a small difference of large numbers
        a, b = (x, y) if x.device.type == "mps" else (x.double(), y.double())
        return (self._divergence(a, b) + self._divergence(b, a)).to(x.dtype)

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        dim, rows = jacobian.shape[-1], x.reshape(-1, x.shape[-1])
        columns = jacobian.reshape(-1, *jacobian.shape[-2:])

        def shifted(shift: Tensor) -> Tensor:
            return self._divergence(rows, rows + (columns @ shift.unsqueeze(-1)).squeeze(-1))

        def slope(shift: Tensor) -> Tensor:
            return _autodiff.jacobian(shifted, shift, dim)[1]

        hessian = _autodiff.jacobian(slope, rows.new_zeros(len(rows), dim), dim)[1]
        return hessian.reshape(*jacobian.shape[:-2], dim, dim)


class Mapped(Metric, Protocol):
    """A metric that is pulled back by a map."""

    def embed(self, z: Tensor) -> Tensor:
        """The map, ``(*batch, d) -> (*batch, size)``."""
        ...

    def embed_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
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
        guide: Tensor | None = None,
    ) -> None:
        super().__init__(metric, num_knots, num_segments, guide)
        self.space, self.richardson = space, richardson
        if guide is not None:
            with torch.no_grad():
                images = metric.embed(self.nodes(guide))
                chords = space.squared_dist(images[:, 1:], images[:, :-1]).clamp(min=0).sqrt()
            self.rates = num_segments / splines.pace(torch, chords)

    def nodes(self, control: Tensor) -> Tensor:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.uniform_basis(self.num_knots, self.num_segments, control) @ control

    def _squares(self, x: Tensor, y: Tensor) -> Tensor:
        return self.space.squared_dist(x, y)

    def _force(self, images: Tensor) -> Tensor:
        """Derivative of the energy in the images, ``(P, N + 1, D)``."""
        return _slope(self.of, images)

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        return self.of(self.metric.embed(self.nodes(control)))

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, by one reverse pass through the map."""
        images, pulled = _autodiff.pull_back(self.metric.embed, self.nodes(control), self._force)
        return self.of(images), _spline.uniform_basis(self.num_knots, self.num_segments, control).mT @ pulled

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and what else a frozen metric resists with."""
        if not self.space.has_frames:
            return System(*self.first_order(control), *super().system(control)[2:])
        images, jacobian = self.metric.embed_jacobian(self.nodes(control))
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        tangential, stiff = self._hessians(table, images, jacobian)
        force = torch.einsum("pnai,pna->pni", jacobian, self._force(images))
        return System(self.of(images), table.mT @ force, tangential, stiff - tangential)

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        if not self.space.has_frames:
            return System(*self.first_order(control), *super().exact_system(control)[2:])
        nodes = self.nodes(control)
        images, jacobian = self.metric.embed_jacobian(nodes)
        table = _spline.uniform_basis(self.num_knots, self.num_segments, control)
        push = self._force(images)

        def pulled(points: Tensor) -> Tensor:
            return _autodiff.pull_back(self.metric.embed, points, lambda _: push)[1]

        hessian = assemble(table, _autodiff.jacobian(pulled, nodes, self.metric.dim)[1], None)
        for stride, weight in self._chains(images):
            blocks = self._image_blocks(images[:, ::stride], jacobian[:, ::stride], weight)
            hessian = hessian + assemble(table[::stride], *blocks)
        force = torch.einsum("pnai,pna->pni", jacobian, push)
        return System(self.of(images), table.mT @ force, hessian, self._hessians(table, images, jacobian)[1])

    def _hessians(self, table: Tensor, images: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """As those of chords: Jacobians in orthonormal frames, of which one is carried to the other along the chord."""
        frames, rates = self.space.frame(images, jacobian), self.rates_of(images)
        carried = self.space.carry(images[:, :-1], images[:, 1:], frames[:, 1:])
        return splines.chord_hessians(_spline, table, rates, frames.mT @ frames, frames[:, :-1].mT @ carried)

    def _image_blocks(self, images: Tensor, jacobian: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``J^T H J`` for the second derivative H of one chain: blocks of each node, and of each with the next.

        A node meets its neighbours alone: the derivatives of every third node are taken at once.
        """
        count, dim = jacobian.shape[1], jacobian.shape[-1]
        third = torch.arange(count, device=images.device) % 3

        def slope(points: Tensor) -> Tensor:
            return _slope(lambda images: self._chain(images, weight), points)

        found = []
        for colour in range(3):
            for axis in range(dim):
                moved = jacobian[..., axis] * (third == colour).to(images).unsqueeze(-1)
                found.append(torch.einsum("pnai,pna->pni", jacobian, _autodiff.directional(slope, images, moved)[1]))
        columns = torch.stack(found, -1).unflatten(-1, (3, dim))  # (P, n, d, 3, d)
        each = torch.arange(count, device=images.device)
        diagonal = columns[:, each, :, third].movedim(0, 1)
        upper = columns[:, each[:-1], :, third[1:]].movedim(0, 1)
        return diagonal, upper


def _slope(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Derivative of a sum of values, like ``points``."""
    value, pull = vjp(function, points)[:2]
    pulled: Tensor = pull(torch.ones_like(value))[0]
    return pulled
