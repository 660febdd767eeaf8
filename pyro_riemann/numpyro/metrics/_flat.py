"""Flat metrics: the gate through which every density must pass."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.flat import Constant
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.metrics._base import RiemannianMetric


class ClosedForm(RiemannianMetric):
    """A metric whose geodesics are known in closed form."""

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        """Shortest curve from ``z`` to ``y`` in closed form, batches broadcast.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            init: without effect: nothing is searched for.
            **settings: of the solver's settings only ``num_segments`` matters.

        Raises:
            ValueError: for an unknown ``init``, or settings out of range.
        """
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)


class ConstantMetric(Constant[Array], ClosedForm):
    """The same metric tensor at every point; geodesics are straight lines.

    Args:
        matrix: symmetric positive definite ``(d, d)``.

    Raises:
        ValueError: if ``matrix`` is not square, symmetric, finite and positive definite.
        TypeError: if ``matrix`` is not a floating array.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> metric = ConstantMetric(jnp.array([[4.0, 0.0], [0.0, 1.0]]))
        >>> metric.dist(jnp.zeros(2), jnp.array([1.0, 0.0])).item()
        2.0
    """

    pytree_data_fields = ("matrix",)
    matrix: Array

    def __init__(self, matrix: Array) -> None:
        self.matrix = self._checked(check_finite("matrix", check_array("matrix", matrix)))
        self.dim = self.matrix.shape[0]

    def metric(self, z: Array) -> Array:
        return super().metric(check_point("z", z, self.dim))


class EuclideanMetric(ConstantMetric):
    """The identity metric on R^d.

    Args:
        dim: dimension d, at least 1.

    Raises:
        ValueError: if ``dim`` is less than 1.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> EuclideanMetric(2).dist(jnp.zeros(2), jnp.array([3.0, 4.0])).item()
        5.0
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        super().__init__(jnp.eye(dim))
