"""Products of metrics, and any metric times a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.product import Product
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.rewritten import Scaled
from pyro_riemann.numpyro._checks import check_point, check_positive
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics import RiemannianMetric


class ProductMetric(Product[Array], RiemannianMetric):
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
        >>> z, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 2.0])
        >>> round(metric.squared_dist(z, y).item(), 4)  # (pi / 2)^2 + 4
        6.4674
        >>> [part.shape[-1] for part in metric.split(z)]
        [2, 1]
    """

    pytree_data_fields = ("factors",)
    factors: tuple[RiemannianMetric, ...] = ()

    def __init__(self, metrics: Sequence[RiemannianMetric]) -> None:
        metrics = list(metrics)
        for metric in metrics:
            if not isinstance(metric, RiemannianMetric):
                raise TypeError(f"`metrics` must be RiemannianMetrics, got {type(metric).__name__}.")
        if not metrics:
            raise ValueError("`metrics` must hold at least one metric.")
        self.factors = tuple(metrics)
        self.dim = sum(metric.dim for metric in metrics)

    def __repr__(self) -> str:
        return f"ProductMetric({list(self.factors)})"

    def split(self, z: Array) -> tuple[Array, ...]:
        """Points or vectors as those of the factors: of dimension k, ``(*batch, k)``.

        Args:
            z: points or vectors, ``(*batch, d)``.
        """
        ends = np.cumsum([metric.dim for metric in self.factors])[:-1]
        return tuple(jnp.split(check_point("z", z, self.dim, self), ends, axis=-1))

    def _pad(self, block: Array, before: int, after: int) -> Array:
        return jnp.pad(block, [(0, 0)] * (block.ndim - 1) + [(before, after)])

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        curves = [metric.geodesic(x, a, init=init, **settings) for metric, x, a in self._parts(z, y)]
        curve = _Curves(curves)
        energy = jnp.stack([part.energy for part in curves]).sum(0)
        length = jnp.linalg.norm(jnp.stack([part.length for part in curves]), axis=0)
        converged = jnp.stack([part.converged for part in curves]).all(0)
        count = max(len(part.points) for part in curves)
        return Geodesic(curve(jnp.linspace(0, 1, count, dtype=z.dtype)), length, energy, converged, curve)


class _Curves(Pytree):
    """Curves in the factors as one in the product, at a list of times."""

    pytree_data_fields = ("parts",)

    def __init__(self, parts: list[Geodesic]) -> None:
        self.parts = parts

    def __call__(self, times: Array) -> Array:
        return jnp.concat([part(times) for part in self.parts], axis=-1)


class ScaledMetric(Scaled[Array], RiemannianMetric):
    r"""The metric of ``base`` times a positive number, :math:`G(z) = c\, G_{base}(z)`.

    Lengths grow by :math:`\sqrt c`, curvatures fall by c, geodesics stay what they are; Brownian motion up to time t is
    that of ``base`` up to t / c. Everything goes to ``base``, and what is a closed form there is one here.

    Args:
        base: any metric.
        factor: c, a positive number or array of shape ``()``. It is data of the metric, so that it can be learned: the
            curvature of a sphere, for instance.

    Raises:
        TypeError: if ``base`` is no metric.
        ValueError: if ``factor`` is not one positive and finite number.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3; Skopek, Ganea & Becigneul (2020),
    *Mixed-curvature variational autoencoders*, for spaces whose curvature is learned.

    Example:
        >>> metric = ScaledMetric(Sphere(2), 4.0)  # the sphere of radius 2
        >>> round(metric.dist(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])).item(), 4)  # a quarter turn
        3.1416
    """

    pytree_data_fields = ("base", "factor")
    base: RiemannianMetric

    def __init__(self, base: RiemannianMetric, factor: float | Array | np.ndarray) -> None:
        if not isinstance(base, RiemannianMetric):
            raise TypeError(f"`base` must be a RiemannianMetric, got {type(base).__name__}.")
        self.dim, self.base = base.dim, base
        if np.ndim(factor) != 0:
            raise ValueError(f"`factor` must be one number, got shape {np.shape(factor)}.")
        # not a number of Python, which would be float32 under `jit`, and a new program for each
        value: Any = factor if isinstance(factor, Array) else np.asarray(factor, float)
        self.factor = check_positive("factor", value)

    def __repr__(self) -> str:
        return f"ScaledMetric(base={self.base!r}, factor={self.factor})"

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        factor: Any = self.factor  # under a transformation no number
        return None if law is None else law._replace(curvature=law.curvature / factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self._scale(base.length)
        return Geodesic(base.points, jnp.sqrt(factor) * base.length, factor * base.energy, base.converged, base)
