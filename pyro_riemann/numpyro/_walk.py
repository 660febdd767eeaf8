"""One step of Brownian motion in a chart."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import walk_steps
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro.geodesics import expmap
from pyro_riemann.numpyro.manifolds import ProductMetric
from pyro_riemann.numpyro.metrics import PullbackMetric, RiemannianMetric


def overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and all that it is made of, has a method of its own."""
    if isinstance(metric, ProductMetric):
        return all(overrides(factor, name) for factor in metric.factors)
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or overrides(base, name))


class _Walk(walk_steps.Walk):
    xp, product, pullback = jnp, ProductMetric, PullbackMetric
    overrides, expmap = staticmethod(overrides), staticmethod(expmap)

    def factor(self, tensor: Array, z: Array) -> Array:
        return _linalg.cholesky(tensor)

    def lower(self, factor: Array, vector: Array) -> Array:
        return _linalg.solve_lower(factor, vector)

    def upper(self, factor: Array, vector: Array) -> Array:
        return _linalg.solve_upper(factor, vector)


step = _Walk().step
