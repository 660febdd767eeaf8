"""The conformal metric whose shortest curves keep to where another metric's volume is large."""

from __future__ import annotations

from typing import TypeVar, Unpack

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics._generic import GenericMetric

Result = TypeVar("Result", Array, Geodesic)


class VolumeMetric(GenericMetric):
    """What :class:`ConformalMetric` does, but for what every public metric offers."""

    pytree_data_fields = ("base", "log_scale")
    base: GenericMetric
    log_scale: Array

    def __init__(self, base: GenericMetric, log_scale: float | Array = 0.0) -> None:
        scale = jnp.asarray(log_scale, jnp.result_type(float))
        if scale.ndim != 0 or not holds(jnp.isfinite(scale)):
            raise ValueError(f"`log_scale` must be a finite number, got {log_scale}.")
        self.dim, self.base, self.log_scale, self.solver = base.dim, base, scale, base.solver

    @property
    def landmarks(self) -> Array | None:  # type: ignore[override]  # others hold it
        """Points ``(k, d)`` that every search for a path should know of: those of the base, or None if it has none."""
        return self.base.landmarks

    def peaks(self) -> Peaks | None:
        """None: where the volume of ``base`` has its bumps, that of this metric has its dips."""
        return None

    def log_factor(self, z: Array) -> Array:
        """Logarithm at ``z`` of the factor before the identity, ``(*batch)``."""
        logdet = self.base.logdet(z)
        return self.log_scale.astype(logdet.dtype) - logdet

    def metric(self, z: Array) -> Array:
        factor = jnp.exp(self.log_factor(z))
        return factor[..., None, None] * jnp.eye(self.dim, dtype=factor.dtype)

    def cholesky(self, z: Array) -> Array:
        factor = jnp.exp(0.5 * self.log_factor(z))
        return factor[..., None, None] * jnp.eye(self.dim, dtype=factor.dtype)

    def logdet(self, z: Array) -> Array:
        return self.dim * self.log_factor(z)

    def logdet_gradient(self, z: Array) -> Array:
        return -self.dim * self.base.logdet_gradient(z)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return jnp.exp(self.log_factor(z)) * (u * v).sum(-1)

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        metric = self.metric(z)
        return metric, metric[..., None] * -self.base.logdet_gradient(z)[..., None, None, :]

    def on_floor(self, z: Array) -> Array | None:
        return self.base.on_floor(z)

    def covers(self, z: Array) -> Array | None:
        return self.base.covers(z)

    def christoffel(self, z: Array, v: Array) -> Array:
        slope = -0.5 * self.base.logdet_gradient(z)  # gradient of half the log factor
        return 2 * (slope * v).sum(-1, keepdims=True) * v - (v * v).sum(-1, keepdims=True) * slope

    def drift(self, z: Array) -> Array:
        slope = -0.5 * self.base.logdet_gradient(z)
        return 0.5 * (self.dim - 2) * slope / jnp.exp(self.log_factor(z))[..., None]

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self._finite(value := super().squared_dist(z, y), value)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return self._finite(curve := super().geodesic(z, y, init, **settings), curve.energy)

    @staticmethod
    def _finite(result: Result, energy: Array) -> Result:
        if not holds(jnp.isfinite(energy)):
            raise ValueError(
                f"A curve of a ConformalMetric left the range of {energy.dtype}: det G of `base` varies too much along "
                "it. Use float64, with `log_scale` near the middle of `base.logdet` along the curve."
            )
        return result

    def __repr__(self) -> str:
        return f"ConformalMetric({self.base!r})"
