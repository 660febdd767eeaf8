"""The conformal metric whose shortest curves keep to where another metric's volume is large."""

from __future__ import annotations

import math
from typing import TypeVar, Unpack

import torch
from torch import Tensor

from pyro_riemann._checks import holds
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics._generic import GenericMetric

Result = TypeVar("Result", Tensor, Geodesic)


class VolumeMetric(GenericMetric):
    """What :class:`ConformalMetric` does, but for what every public metric offers."""

    base: GenericMetric

    def __init__(self, base: GenericMetric, log_scale: float = 0.0) -> None:
        super().__init__()
        if not math.isfinite(log_scale):
            raise ValueError(f"`log_scale` must be finite, got {log_scale}.")
        self.dim, self.base, self.log_scale, self.solver = base.dim, base, float(log_scale), base.solver

    @property
    def landmarks(self) -> Tensor | None:  # type: ignore[override]  # others hold it
        """Points ``(k, d)`` that every search for a path should know of: those of the base, or None if it has none."""
        return self.base.landmarks

    def peaks(self) -> Peaks | None:
        """None: where the volume of ``base`` has its bumps, that of this metric has its dips."""
        return None

    def log_factor(self, z: Tensor) -> Tensor:
        """Logarithm at ``z`` of the factor before the identity, ``(*batch)``."""
        return self.log_scale - self.base.logdet(z)

    def metric(self, z: Tensor) -> Tensor:
        factor = self.log_factor(z).exp()
        return factor[..., None, None] * torch.eye(self.dim, dtype=z.dtype, device=z.device)

    def cholesky(self, z: Tensor) -> Tensor:
        factor = (0.5 * self.log_factor(z)).exp()
        return factor[..., None, None] * torch.eye(self.dim, dtype=z.dtype, device=z.device)

    def logdet(self, z: Tensor) -> Tensor:
        return self.dim * self.log_factor(z)

    def logdet_gradient(self, z: Tensor) -> Tensor:
        return -self.dim * self.base.logdet_gradient(z)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.log_factor(z).exp() * (u * v).sum(-1)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        metric = self.metric(z)
        return metric, metric.unsqueeze(-1) * -self.base.logdet_gradient(z)[..., None, None, :]

    def on_floor(self, z: Tensor) -> Tensor | None:
        return self.base.on_floor(z)

    def covers(self, z: Tensor) -> Tensor | None:
        return self.base.covers(z)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        slope = -0.5 * self.base.logdet_gradient(z)  # gradient of half the log factor
        return 2 * (slope * v).sum(-1, keepdim=True) * v - (v * v).sum(-1, keepdim=True) * slope

    def drift(self, z: Tensor) -> Tensor:
        slope = -0.5 * self.base.logdet_gradient(z)
        return 0.5 * (self.dim - 2) * slope / self.log_factor(z).exp().unsqueeze(-1)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self._finite(value := super().squared_dist(z, y), value)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return self._finite(curve := super().geodesic(z, y, init, **settings), curve.energy)

    @staticmethod
    def _finite(result: Result, energy: Tensor) -> Result:
        if not holds(torch.isfinite(energy)):
            raise ValueError(
                f"A curve of a ConformalMetric left the range of {energy.dtype}: det G of `base` varies too much along "
                "it. Use float64, with `log_scale` near the middle of `base.logdet` along the curve."
            )
        return result

    def extra_repr(self) -> str:
        return f"dim={self.dim}, log_scale={self.log_scale:g}"
