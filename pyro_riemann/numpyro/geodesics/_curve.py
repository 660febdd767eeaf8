"""The curve that a geodesic solver returns."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._interface import Metric
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import _spline


class Geodesic(Pytree):
    """A curve ``t -> gamma(t)`` on [0, 1] between two batches of points: what ``metric.geodesic`` returns; a pytree.

    Args:
        points: ``(N + 1, *batch, d)``, equally spaced in time.
        length: Riemannian length, ``(*batch)``.
        energy: ``1/2 int |gamma'|^2 dt``, ``(*batch)``; half the squared length at constant speed.
        converged: ``(*batch)`` bool, true where the curve is a geodesic to the solver's tolerance.
        curve: maps times ``(T,)`` to positions ``(T, *batch, d)``.

    All but ``curve``, which a call evaluates, are attributes.

    Source: do Carmo (1992), *Riemannian Geometry*, chapters 3 and 9.

    Example:
        >>> curve = EuclideanMetric(2).geodesic(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0]))
        >>> curve.length.item(), curve.converged.item()
        (5.0, True)
        >>> curve(0.5).tolist()
        [1.5, 2.0]
    """

    pytree_data_fields = ("points", "length", "energy", "converged", "_curve")

    def __init__(
        self, points: Array, length: Array, energy: Array, converged: Array, curve: Callable[[Array], Array]
    ) -> None:
        self.points, self.length, self.energy, self.converged = points, length, energy, converged
        self._curve = curve

    def __call__(self, t: float | Array) -> Array:
        """Position at time ``t`` in [0, 1]: a number gives ``(*batch, d)``, an array ``(T,)`` ``(T, *batch, d)``.

        Raises:
            ValueError: if ``t`` has more than one axis, or leaves [0, 1].
        """
        times = jnp.asarray(t, self.points.dtype)
        if times.ndim > 1 or not holds((times >= 0) & (times <= 1)):
            raise ValueError(f"`t` must be a number or a one-dimensional array in [0, 1], got {t}.")
        curve = self._curve(times.reshape(-1))
        return curve[0] if times.ndim == 0 else curve

    @classmethod
    def closed_form(cls, metric: Metric, z: Array, y: Array, num_segments: int) -> Geodesic:
        """Geodesic of a metric whose ``logmap``, ``expmap`` and ``squared_dist`` are exact.

        Args:
            metric: such a metric.
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``; batches broadcast.
            num_segments: number N of equal steps of time between the ``points`` of the result.
        """
        z, y = jnp.broadcast_arrays(z, y)
        squared = metric.squared_dist(z, y)
        curve = Ray(metric, z, metric.logmap(z, y))
        points = curve(jnp.linspace(0, 1, num_segments + 1, dtype=z.dtype))
        return cls(points, jnp.sqrt(squared), squared / 2, jnp.ones_like(squared, dtype=bool), curve)


class Ray(Pytree):
    """``t -> expmap(z, t v)`` at a list of times."""

    pytree_data_fields = ("metric", "start", "velocity")

    def __init__(self, metric: Metric, start: Array, velocity: Array) -> None:
        self.metric, self.start, self.velocity = metric, start, velocity

    def __call__(self, times: Array) -> Array:
        scaled = times.reshape(-1, *(1,) * self.start.ndim) * self.velocity
        return self.metric.expmap(jnp.broadcast_to(self.start, scaled.shape), scaled)


class SplineCurve(Pytree):
    """A batch of splines at a list of times."""

    pytree_data_fields = ("control",)

    def __init__(self, num_knots: int, control: Array) -> None:
        self.num_knots, self.control = num_knots, control  # (*batch, C, d)

    def __call__(self, times: Array) -> Array:
        return jnp.einsum("tk,...kd->t...d", _spline.basis(self.num_knots, times), self.control)
