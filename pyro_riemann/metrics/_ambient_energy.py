"""The energy of curves whose images lie in a space with a distance of its own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.func import vjp

from pyro_riemann import _autodiff
from pyro_riemann._interface import Metric, System
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._energy import QuadratureEnergy, _pace
from pyro_riemann.metrics._ambient import Ambient


class Mapped(Metric, Protocol):
    """A metric that is pulled back by a map."""

    def embed(self, z: Tensor) -> Tensor:
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
        guide: Tensor | None = None,
    ) -> None:
        super().__init__(metric, num_knots, num_segments, guide)
        self.space, self.richardson = space, richardson
        self.rates: Tensor | None = None  # 1 / (time between two nodes), (P, N); N everywhere without a guide
        if guide is not None:
            with torch.no_grad():
                images = metric.embed(self.nodes(guide))
                chords = space.squared_dist(images[:, 1:], images[:, :-1]).clamp(min=0).sqrt()
            self.rates = num_segments / _pace(chords)

    def rows(self, index: Tensor) -> AmbientEnergy:
        """The energy of some of the curves."""
        if self.pace is None or self.guide is None or self.rates is None:
            return self
        part = AmbientEnergy(self.metric, self.space, self.num_knots, self.num_segments, self.richardson)
        part.guide, part.pace, part.rates = self.guide[index], self.pace[index], self.rates[index]
        return part

    def nodes(self, control: Tensor) -> Tensor:
        """Points of the curves at equal times, ``(P, N + 1, d)``."""
        return _spline.uniform_basis(self.num_knots, self.num_segments, control) @ control

    def of(self, images: Tensor) -> Tensor:
        """Energy ``(P,)`` of the chain of images ``(P, N + 1, D)``."""
        rates = images.new_full((1, self.num_segments), self.num_segments) if self.rates is None else self.rates
        if not self.richardson:
            return self._chain(images, rates, 1)
        half = 1 / (1 / rates).unflatten(1, (-1, 2)).sum(-1)
        return (4 * self._chain(images, rates, 1) - self._chain(images, half, 2)) / 3

    def _chain(self, images: Tensor, rates: Tensor, stride: int) -> Tensor:
        steps = self.space.squared_dist(images[:, stride::stride], images[:, :-stride:stride])
        return 0.5 * (rates * steps).sum(-1)

    def value(self, control: Tensor) -> Tensor:
        """Energy of each curve, ``(P,)``."""
        return self.of(self.metric.embed(self.nodes(control)))

    def first_order(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, by one reverse pass through the map."""

        def force(images: Tensor) -> Tensor:
            value, pull = vjp(self.of, images)[:2]
            pulled: Tensor = pull(torch.ones_like(value))[0]
            return pulled

        images, pulled = _autodiff.pull_back(self.metric.embed, self.nodes(control), force)
        return self.of(images), _spline.uniform_basis(self.num_knots, self.num_segments, control).mT @ pulled

    def system(self, control: Tensor) -> System:
        """Energy, gradient, tangential Hessian and the stiffness of a frozen metric."""
        return System(*self.first_order(control), *super().system(control)[2:])

    def exact_system(self, control: Tensor) -> System:
        """The same with the full Hessian."""
        return System(*self.first_order(control), *super().exact_system(control)[2:])
