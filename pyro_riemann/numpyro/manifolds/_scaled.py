"""Any metric times a constant."""

from __future__ import annotations

from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.rewritten import Scaled
from pyro_riemann.numpyro._checks import check_positive
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics import RiemannianMetric


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

    def _scale(self, like: Array) -> Array:
        return jnp.asarray(self.factor, like.dtype)

    def radial_law(self) -> RadialLaw | None:
        """That of ``base`` with its curvature over c; periods of a torus are of the axes of ``base``."""
        law = self.base.radial_law()
        factor: Any = self.factor  # under a transformation no number
        return None if law is None else law._replace(curvature=law.curvature / factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(z, y, init=init, **settings)
        factor = self._scale(base.length)
        return Geodesic(base.points, jnp.sqrt(factor) * base.length, factor * base.energy, base.converged, base)
