"""Integrals of radial densities by sums over a plane chart."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import chart_sum
from pyro_riemann._formulas.chart_draws import Verdict
from pyro_riemann._formulas.chart_sum import Box, Vector
from pyro_riemann.numpyro._memo import keep
from pyro_riemann.numpyro.metrics import GridMetric, RiemannianMetric


class Chart(NamedTuple):
    """A metric as a sum over its chart asks it, at points of the dtype of ``like``; nothing may be traced."""

    source: RiemannianMetric
    like: Array

    @property
    def box(self) -> Box | None:
        """Corners ``(d,)`` if it is a table."""
        if not isinstance(self.source, GridMetric):
            return None
        return to_host(self.source.table.low), to_host(self.source.table.high)

    @property
    def ends(self) -> bool:
        """Whether nothing is known beyond the box."""
        return isinstance(self.source, GridMetric) and self.source.base is None

    def metric(self, z: Vector) -> Vector:
        """G, ``(*batch, d, d)``."""
        return to_host(self.source.metric(self._from_host(z)))

    def log_volume(self, z: Vector) -> Vector:
        r""":math:`\frac12 \log\det G`, ``(*batch)``."""
        return 0.5 * to_host(self.source.logdet(self._from_host(z)))

    def tabulated(self, low: Vector, high: Vector, resolution: int) -> Chart:
        """Its table on a box."""
        return self._replace(source=GridMetric(self.source, self._from_host(low), self._from_host(high), resolution))

    def squared_dist(self, loc: Vector, z: Vector, resolution: int, tolerance: float, horizon: float) -> Vector:
        """Of a table: from ``loc`` to points ``(n, d)``, by a field of distances; the shortest, ``(n,)``."""
        assert isinstance(self.source, GridMetric)
        field = self.source.distance_field(self._from_host(loc), resolution, tolerance=tolerance, horizon=horizon)
        return to_host(field.squared_dist(self._from_host(z)))

    def _from_host(self, z: Vector) -> Array:
        return jnp.asarray(z, self.like.dtype)


def to_host(values: Array) -> Vector:
    """Values in doubles of NumPy."""
    return np.asarray(values, np.float64)


def summed_mass(metric: RiemannianMetric, loc: Array, variance: Array, points: Array, weights: Array) -> Verdict:
    r"""Log of :math:`(2 \pi t)^{-1} \int e^{-\ell^2(\mu, z) / 2t}\,dM` over a plane; nothing may be traced.

    Args:
        metric: any metric of dimension 2.
        loc: the centre, ``(d,)``.
        variance: t, a scalar.
        points: nodes of rays from the centre, ``(n, d)``, which say how large a box must be.
        weights: their shares of the mass, ``(n,)``.
    """
    return keep(_summed, (), metric, loc, variance, points, weights)


def _summed(metric: RiemannianMetric, loc: Array, variance: Array, points: Array, weights: Array) -> Verdict:
    centre = to_host(loc)
    return chart_sum.summed(Chart(metric, loc), centre, float(variance), to_host(points), to_host(weights))
