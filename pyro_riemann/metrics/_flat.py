"""Flat metrics: the gate through which every density must pass."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_tensor
from pyro_riemann._formulas.flat import Constant
from pyro_riemann._interface import Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics._base import RiemannianMetric


class ClosedForm(RiemannianMetric):
    """A metric whose geodesics are known in closed form."""

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
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


class ConstantMetric(Constant[Tensor], ClosedForm):
    """The same metric tensor at every point; geodesics are straight lines.

    Args:
        matrix: symmetric positive definite ``(d, d)``.

    Raises:
        TypeError: if ``matrix`` is not of float32 or float64.
        ValueError: if ``matrix`` is not square, symmetric, finite and positive definite.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> metric = ConstantMetric(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        >>> metric.dist(torch.zeros(2), torch.tensor([1.0, 0.0])).item()
        2.0
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", self._checked(check_finite("matrix", check_tensor("matrix", matrix))))
        self.dim = matrix.shape[0]


class EuclideanMetric(ConstantMetric):
    """The identity metric on R^d.

    Args:
        dim: dimension d, at least 1.

    Raises:
        ValueError: if ``dim`` is less than 1.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 3.

    Example:
        >>> EuclideanMetric(2).dist(torch.zeros(2), torch.tensor([3.0, 4.0])).item()
        5.0
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        super().__init__(torch.eye(dim))
