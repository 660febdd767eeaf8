"""Spaces into which a decoder maps that are not Euclidean: their metric pulled back, and distances between images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, distributions

from pyro_riemann import _autodiff
from pyro_riemann._formulas import fisher, zero_inflated
from pyro_riemann.metrics._base import RiemannianMetric


class Ambient(Protocol):
    """A space with coordinates ``(*batch, size)``."""

    @property
    def has_distance(self) -> bool:
        """Whether :meth:`squared_dist` costs next to nothing."""
        ...

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        """Squared distance of near points, ``(*batch)``; exact to third order at least."""
        ...

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        """``J^T A(x) J``, ``(*batch, d, d)``, for a Jacobian ``(*batch, size, d)``."""
        ...

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame` and :meth:`carry` are known."""
        ...

    def frame(self, x: Tensor, jacobian: Tensor) -> Tensor:
        """The Jacobian ``(*batch, size, d)`` at x in an orthonormal frame there."""
        ...

    def carry(self, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        """Vectors ``(*batch, size, d)`` in the frame at y, in that at x after transport along the geodesic."""
        ...


class Frameless:
    """A space whose parallel transport is not known."""

    has_frames = False

    def frame(self, x: Tensor, jacobian: Tensor) -> Tensor:
        raise NotImplementedError

    def carry(self, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        raise NotImplementedError


class Flat:
    """Euclidean space."""

    has_distance = has_frames = True

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().sum(-1)

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        return jacobian.mT @ jacobian

    def frame(self, x: Tensor, jacobian: Tensor) -> Tensor:
        return jacobian

    def carry(self, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        return vectors


class HalfPlanes:
    r"""Means and standard deviations of independent normals, :math:`ds^2 = (d\mu^2 + 2\,d\sigma^2) / \sigma^2` each."""

    has_distance = has_frames = True

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        return fisher.half_plane_squared_dist(torch, *x.chunk(2, -1), *y.chunk(2, -1)).sum(-1)

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        frame = self.frame(x, jacobian)
        return frame.mT @ frame

    def frame(self, x: Tensor, jacobian: Tensor) -> Tensor:
        loc, scale = jacobian.chunk(2, -2)
        unit = x.chunk(2, -1)[1].unsqueeze(-1)
        return torch.cat([loc / unit, 2**0.5 * scale / unit], -2)

    def carry(self, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        cos, sin = (part.unsqueeze(-1) for part in fisher.half_plane_turn(torch, *x.chunk(2, -1), *y.chunk(2, -1)))
        loc, scale = vectors.chunk(2, -2)
        return torch.cat([cos * loc - sin * scale, sin * loc + cos * scale], -2)


class ZeroInflated(Frameless):
    """Logs of means, logits of added zeros and logs of fixed dispersions of independent zero-inflated counts.

    Between near points the information in the middle stands for the metric on the way, to third order.
    """

    has_distance = True

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        mean, mixed, gate = zero_inflated.information(torch, *((x + y) / 2).chunk(3, -1))
        a, b, _ = (x - y).chunk(3, -1)
        total: Tensor = (mean * a * a + 2 * mixed * a * b + gate * b * b).sum(-1)
        return total

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        entries = zero_inflated.information(torch, *x.chunk(3, -1))
        mean, mixed, gate = (part.unsqueeze(-1) for part in entries)
        a, b, _ = jacobian.chunk(3, -2)
        cross = a.mT @ (mixed * b)
        return a.mT @ (mean * a) + cross + cross.mT + b.mT @ (gate * b)


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


class Of(Frameless):
    """The chart of a metric of one's own."""

    def __init__(self, metric: RiemannianMetric) -> None:
        self.metric = metric

    @property
    def has_distance(self) -> bool:
        return type(self.metric).squared_dist is not RiemannianMetric.squared_dist

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        return self.metric.squared_dist(x, y)

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        return jacobian.mT @ self.metric.metric(x) @ jacobian


class Product:
    """Spaces side by side; each part with its number of coordinates."""

    def __init__(self, parts: Sequence[tuple[Ambient, int]]) -> None:
        self.spaces = [space for space, _ in parts]
        self.sizes = [size for _, size in parts]

    @property
    def has_distance(self) -> bool:
        return all(space.has_distance for space in self.spaces)

    def squared_dist(self, x: Tensor, y: Tensor) -> Tensor:
        parts = zip(self.spaces, x.split(self.sizes, -1), y.split(self.sizes, -1), strict=True)
        return torch.stack([space.squared_dist(a, b) for space, a, b in parts]).sum(0)

    def pull(self, x: Tensor, jacobian: Tensor) -> Tensor:
        parts = zip(self.spaces, x.split(self.sizes, -1), jacobian.split(self.sizes, -2), strict=True)
        return torch.stack([space.pull(a, j) for space, a, j in parts]).sum(0)

    @property
    def has_frames(self) -> bool:
        return all(space.has_frames for space in self.spaces)

    def frame(self, x: Tensor, jacobian: Tensor) -> Tensor:
        parts = zip(self.spaces, x.split(self.sizes, -1), jacobian.split(self.sizes, -2), strict=True)
        return torch.cat([space.frame(a, j) for space, a, j in parts], -2)

    def carry(self, x: Tensor, y: Tensor, vectors: Tensor) -> Tensor:
        points = (x.split(self.sizes, -1), y.split(self.sizes, -1), vectors.split(self.sizes, -2))
        parts = zip(self.spaces, *points, strict=True)
        return torch.cat([space.carry(a, b, v) for space, a, b, v in parts], -2)
