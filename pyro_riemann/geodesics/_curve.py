"""The curve that a geodesic solver returns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_riemann._interface import Metric
from pyro_riemann._modes import full_precision_methods


@full_precision_methods
class Geodesic:
    """A curve ``t -> gamma(t)`` on [0, 1] between two batches of points: what a metric's ``geodesic`` returns.

    Args:
        points: ``(N + 1, *batch, d)``, equally spaced in time.
        length: Riemannian length, ``(*batch)``.
        energy: ``1/2 int |gamma'|^2 dt``, ``(*batch)``; half the squared length at constant speed.
        converged: ``(*batch)`` bool, true where the curve is a geodesic to the solver's tolerance.
        curve: maps times ``(T,)`` to positions ``(T, *batch, d)``.

    All but ``curve``, which a call evaluates, are attributes.

    Source: do Carmo (1992), *Riemannian Geometry*, chapters 3 and 9.

    Example:
        >>> curve = Sphere(2).geodesic(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        >>> curve.length, curve.converged
        (tensor(1.5708), tensor(True))
        >>> round(curve(0.5).norm().item(), 4)  # along the equator
        1.0
    """

    def __init__(
        self, points: Tensor, length: Tensor, energy: Tensor, converged: Tensor, curve: Callable[[Tensor], Tensor]
    ) -> None:
        self.points, self.length, self.energy, self.converged = points, length, energy, converged
        self._curve = curve

    def __call__(self, t: float | Tensor) -> Tensor:
        """Position at time ``t`` in [0, 1]: a number gives ``(*batch, d)``, a tensor ``(T,)`` ``(T, *batch, d)``.

        Raises:
            ValueError: if ``t`` has more than one axis, or leaves [0, 1].
        """
        times = torch.as_tensor(t, dtype=self.points.dtype, device=self.points.device)
        if times.dim() > 1 or bool(((times < 0) | (times > 1)).any()):
            raise ValueError(f"`t` must be a number or a one-dimensional tensor in [0, 1], got {t}.")
        curve = self._curve(times.reshape(-1))
        return curve[0] if times.dim() == 0 else curve

    @classmethod
    def closed_form(cls, metric: Metric, z: Tensor, y: Tensor, num_segments: int) -> Geodesic:
        """Geodesic of a metric whose ``logmap``, ``expmap`` and ``squared_dist`` are exact.

        Args:
            metric: such a metric.
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``; batches broadcast.
            num_segments: number N of equal steps of time between the ``points`` of the result.
        """
        z, y = torch.broadcast_tensors(z, y)
        velocity, squared = metric.logmap(z, y), metric.squared_dist(z, y)

        def curve(times: Tensor) -> Tensor:
            scaled = times.reshape(-1, *(1,) * z.dim()) * velocity
            return metric.expmap(z.expand_as(scaled), scaled)

        points = curve(torch.linspace(0, 1, num_segments + 1, dtype=z.dtype, device=z.device))
        return cls(points, squared.sqrt(), squared / 2, torch.ones_like(squared, dtype=torch.bool), curve)
