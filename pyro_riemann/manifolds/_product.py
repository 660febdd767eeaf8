"""Products of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from pyro_riemann import _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._formulas import densities
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.metrics import RiemannianMetric


class ProductMetric(RiemannianMetric):
    r"""The product of Riemannian manifolds: :math:`G(z) = \mathrm{diag}(G_1(z_1), \dots, G_m(z_m))`.

    The chart is the factors' charts side by side, :math:`z = (z_1, \dots, z_m)`. Squared distances, curvatures and
    log densities are sums over the factors, and geodesics run in each of them at constant speed, so that what is a
    closed form in all factors is one here. Normalising constants and draws come from those of the factors.

    Args:
        metrics: the factors, at least one. The same metric may come twice.

    Raises:
        TypeError: if one of them is no metric.
        ValueError: if there is none.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 2; Gu, Sala, Gunel & Re (2019), *Learning
    mixed-curvature representations in product spaces*.

    Example:
        >>> metric = ProductMetric([Sphere(2), EuclideanMetric(1)])
        >>> z, y = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
        >>> round(metric.squared_dist(z, y).item(), 4)  # (pi / 2)^2 + 4
        6.4674
        >>> [part.shape[-1] for part in metric.split(z)]
        [2, 1]
    """

    def __init__(self, metrics: Sequence[RiemannianMetric]) -> None:
        super().__init__()
        metrics = list(metrics)
        for metric in metrics:
            if not isinstance(metric, RiemannianMetric):
                raise TypeError(f"`metrics` must be RiemannianMetrics, got {type(metric).__name__}.")
        if not metrics:
            raise ValueError("`metrics` must hold at least one metric.")
        self.metrics = nn.ModuleList(metrics)
        self.dim = sum(metric.dim for metric in metrics)

    @property
    def factors(self) -> tuple[RiemannianMetric, ...]:
        """The factors."""
        return tuple(metric for metric in self.metrics if isinstance(metric, RiemannianMetric))

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """Points or vectors as those of the factors: of dimension k, ``(*batch, k)``.

        Args:
            z: points or vectors, ``(*batch, d)``.
        """
        return check_point("z", z, self.dim, self).split([metric.dim for metric in self.factors], dim=-1)

    def ambient_hint(self, shape: torch.Size) -> str:
        parts = ", ".join(f"{type(metric).__name__}({metric.dim})" for metric in self.factors)
        return f" The chart of this product is those of {parts} side by side."

    @property
    def solver(self) -> GeodesicSolver:
        """Settings of the boundary-value solver: those of the first factor; what is assigned goes to all of them."""
        return self.factors[0].solver

    @solver.setter
    def solver(self, value: GeodesicSolver) -> None:
        for metric in self.factors:
            metric.solver = value

    def _sum(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """Sum over the factors of ``function(metric, *parts)``."""
        parts = zip(self.factors, *map(self.split, arguments), strict=True)
        total = torch.zeros_like(arguments[0][..., 0])
        for metric, *args in parts:
            total = total + function(metric, *args)
        return total

    def _join(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """The factors' ``function(metric, *parts)`` side by side."""
        parts = zip(self.factors, *map(self.split, arguments), strict=True)
        return torch.cat([function(metric, *args) for metric, *args in parts], dim=-1)

    def _blocks(self, blocks: list[Tensor]) -> Tensor:
        """Matrices ``(*batch, d_i, d_i)`` along the diagonal of one."""
        before, rows = 0, []
        for block in blocks:
            size = block.shape[-1]
            rows.append(nn.functional.pad(block, (before, self.dim - before - size)))
            before += size
        return torch.cat(rows, dim=-2)

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: Tensor) -> Tensor:
        return self._blocks([metric.metric(part) for metric, part in zip(self.factors, self.split(z), strict=True)])

    def cholesky(self, z: Tensor) -> Tensor:
        return self._blocks([metric.cholesky(part) for metric, part in zip(self.factors, self.split(z), strict=True)])

    def logdet(self, z: Tensor) -> Tensor:
        return self._sum(lambda metric, x: metric.logdet(x), z)

    def logdet_gradient(self, z: Tensor) -> Tensor:
        return self._join(lambda metric, x: metric.logdet_gradient(x), z)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._sum(lambda metric, x, a, b: metric.inner(x, a, b), *torch.broadcast_tensors(z, u, v))

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, v = torch.broadcast_tensors(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        found = [metric.metric_derivatives(x, a) for metric, x, a in parts]
        first, second, third = (self._blocks(list(blocks)) for blocks in zip(*found, strict=True))
        return first, second, third

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        z, v = torch.broadcast_tensors(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        return self._blocks([metric.speed_hessian(x, a) for metric, x, a in parts])

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return self._join(lambda metric, x, a: metric.christoffel(x, a), *torch.broadcast_tensors(z, v))

    def drift(self, z: Tensor) -> Tensor:
        return self._join(lambda metric, x: metric.drift(x), z)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        return self._sum(lambda metric, x: metric.scalar_curvature(x), z)

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether all factors are symmetric."""
        return all(metric.is_symmetric for metric in self.factors)

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether all factors are; None where that is not known of one."""
        known = [metric.is_uniquely_geodesic for metric in self.factors]
        return False if False in known else None if None in known else True

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        parts = zip(self.factors, self.split(z), strict=True)
        radii = [radius for metric, x in parts if (radius := metric.injectivity_radius(x)) is not None]
        return torch.stack(radii).amin(0) if len(radii) == len(self.factors) else None

    def on_floor(self, z: Tensor) -> Tensor | None:
        """Where one of the factors is on its floor, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        return _any([metric.on_floor(x) for metric, x in zip(self.factors, self.split(z), strict=True)])

    def covers(self, z: Tensor) -> Tensor | None:
        """Where all factors are known, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        known = [metric.covers(x) for metric, x in zip(self.factors, self.split(z), strict=True)]
        unknown = _any([None if part is None else ~part for part in known])
        return None if unknown is None else ~unknown

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: Tensor, v: Tensor) -> Tensor:
        return self._join(lambda metric, x, a: metric.expmap(x, a), *torch.broadcast_tensors(z, v))

    def expmap_log_van_vleck(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        z, v = torch.broadcast_tensors(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        points, logs = zip(*(metric.expmap_log_van_vleck(x, a) for metric, x, a in parts), strict=True)
        return torch.cat(points, dim=-1), torch.stack(logs).sum(0)

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return self._join(lambda metric, x, a: metric.logmap(x, a), *torch.broadcast_tensors(z, y))

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self._sum(lambda metric, x, a: metric.squared_dist(x, a), *torch.broadcast_tensors(z, y))

    def log_van_vleck(self, z: Tensor, y: Tensor) -> Tensor:
        return self._sum(lambda metric, x, a: metric.log_van_vleck(x, a), *torch.broadcast_tensors(z, y))

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        z, y = torch.broadcast_tensors(z, y)
        parts = zip(self.factors, self.split(z), self.split(y), strict=True)
        curves = [metric.geodesic(x, a, init=init, **settings) for metric, x, a in parts]

        def curve(times: Tensor) -> Tensor:
            return torch.cat([part(times) for part in curves], dim=-1)

        energy = torch.stack([part.energy for part in curves]).sum(0)
        length = torch.stack([part.length for part in curves]).norm(dim=0)
        converged = torch.stack([part.converged for part in curves]).all(0)
        count = max(len(part.points) for part in curves)
        times = torch.linspace(0, 1, count, dtype=z.dtype, device=z.device)
        return Geodesic(curve(times), length, energy, converged, curve)

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        z, y = torch.broadcast_tensors(z, y)
        parts = zip(self.factors, self.split(z), self.split(y), strict=True)
        total = None
        for metric, x, a in parts:
            value = metric.log_folded_density(x, a, time)
            if value is None:
                return None
            total = value if total is None else total + value
        return total

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        """Log density of a tangent Gaussian carried to ``y``, ``(*batch)``, where one geodesic leads there.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: on a product with a sphere or a torus, where geodesics meet again; a product of laws,
                one a factor, is known there.
        """
        unique = [metric.is_uniquely_geodesic for metric in self.factors]
        if any(one is None for one in unique):
            return None
        if not all(unique):
            folding = ", ".join(type(m).__name__ for m, one in zip(self.factors, unique, strict=True) if not one)
            raise NotImplementedError(
                f"A tangent Gaussian with a covariance of its own on a product with {folding}, where geodesics meet "
                "again, has no density in closed form. Give `time`, or a law for every factor."
            )
        noise = _linalg.solve(factor, self.logmap(z, y)).square().sum(-1)
        log_van_vleck = self.log_van_vleck(z, y)
        return densities.tangent_normal(
            torch, self.dim, noise, _linalg.log_abs_det(factor), self.logdet(z), log_van_vleck
        )

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Log heat kernel, ``(*batch)``, with respect to dM: the sum of those of the factors, which move independently.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if that of a factor has no closed form.
        """
        z, y = torch.broadcast_tensors(z, y)
        return self._sum(lambda metric, x, a: metric.log_heat_kernel(x, a, time), z, y)


def _any(masks: list[Tensor | None]) -> Tensor | None:
    known = [mask for mask in masks if mask is not None]
    return torch.stack(known).any(0) if known else None
