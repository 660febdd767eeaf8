"""Spaces into which a decoder maps that are not Euclidean: their metric pulled back, and distances between images."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import torch
from torch import Tensor, distributions

from pyro_riemann import _autodiff
from pyro_riemann._formulas import fisher
from pyro_riemann._formulas.fisher import Flat, Frameless
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
