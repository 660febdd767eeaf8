"""The conformal metric whose shortest curves keep to where another metric's volume is large."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics._base import RiemannianMetric


class ConformalMetric(RiemannianMetric):
    r"""The metric :math:`e^{s} (\det G(z))^{-1} I` of a base metric G.

    Its length is :math:`\int |\gamma'| / \sqrt{\det G(\gamma)}\, dt`: what Chadebec & Allassonniere (2022, eq. 8)
    minimise to interpolate between two codes. Curves follow the data, where G is large.

    Args:
        base: any metric; its arrays are data of this one.
        log_scale: :math:`s`, data as well. It changes no shortest curve, only the unit of length; choose it
            near ``base.logdet`` at the data where the determinant leaves the range of the dtype.

    Raises:
        ValueError: if ``log_scale`` is not finite; by distances and curves that leave the range of the dtype.

    Example:
        >>> base = ConstantMetric(jnp.diag(jnp.array([4.0, 1.0])))
        >>> ConformalMetric(base).metric(jnp.zeros(2)).tolist()
        [[0.25, 0.0], [0.0, 0.25]]
    """

    pytree_data_fields = ("base", "log_scale")
    base: RiemannianMetric
    log_scale: Array

    def __init__(self, base: RiemannianMetric, log_scale: float | Array = 0.0) -> None:
        scale = jnp.asarray(log_scale, jnp.result_type(float))
        if scale.ndim != 0 or not holds(jnp.isfinite(scale)):
            raise ValueError(f"`log_scale` must be a finite number, got {log_scale}.")
        self.dim, self.base, self.log_scale, self.solver = base.dim, base, scale, base.solver

    @property
    def landmarks(self) -> Array | None:
        """Points ``(k, d)`` that every search for a path should know of: those of the base, or None if it has none."""
        return getattr(self.base, "landmarks", None)

    def peaks(self) -> None:
        """None: where the volume of ``base`` has its bumps, that of this metric has its dips."""

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

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Any) -> Geodesic:
        return self._finite(curve := super().geodesic(z, y, init, **settings), curve.energy)

    @staticmethod
    def _finite(result: Any, energy: Array) -> Any:
        if not holds(jnp.isfinite(energy)):
            raise ValueError(
                f"A curve of a ConformalMetric left the range of {energy.dtype}: det G of `base` varies too much along "
                "it. Use float64, with `log_scale` near the middle of `base.logdet` along the curve."
            )
        return result

    def __repr__(self) -> str:
        return f"ConformalMetric({self.base!r})"
