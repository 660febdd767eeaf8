"""The volume element of a metric as seen by climbs: a function on the unit box, and where its bumps are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._formulas import climbs
from pyro_riemann.distributions._box import rows_at_once
from pyro_riemann.metrics import RiemannianMetric

LOOK = 2048  # quasi-random points at which climbs may start
_CLIMBED = 512  # of these, at most


class Landscape:
    r"""The log volume element :math:`\log\sqrt{\det G}` in a box, as a function of NumPy arrays on the unit box.

    Args:
        metric: the metric.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor) -> None:
        self._metric, self._low, self._width = metric, low.detach(), (high - low).detach()

    def __call__(self, unit: climbs.Vector) -> tuple[climbs.Vector, climbs.Vector]:
        """Values ``(n)`` and gradients ``(n, d)`` at ``unit (n, d)``; NaN where the metric has no volume element."""
        values, gradients = [], []
        for piece in self.points(unit).split(rows_at_once(self._metric)):
            with torch.enable_grad():
                point = piece.detach().requires_grad_()
                value = 0.5 * self._metric.logdet(point)
                # a flat metric's value does not depend on the point: the zero keeps it on the graph
                (gradient,) = torch.autograd.grad(value.sum() + 0 * point.sum(), point)
            values.append(value.detach())
            gradients.append(gradient * self._width)
        if not values:
            return np.zeros(0), np.zeros_like(unit)
        return torch.cat(values).double().cpu().numpy(), torch.cat(gradients).double().cpu().numpy()

    def points(self, unit: climbs.Vector) -> Tensor:
        """Points of the unit box in the chart, ``(n, d)``."""
        return self._low + self._width * torch.from_numpy(unit).to(self._low)

    def unit(self, points: Tensor) -> climbs.Vector:
        """Those of ``points (n, d)`` that lie in the box, in coordinates of the unit box."""
        scaled = ((points.detach().to(self._low) - self._low) / self._width).double().cpu().numpy()
        inside: climbs.Vector = scaled[((scaled >= 0) & (scaled <= 1)).all(-1)]
        return inside

    def look(self) -> tuple[climbs.Vector, climbs.Vector, climbs.Vector]:
        """Quasi-random points of the unit box, with values and gradients."""
        engine = torch.quasirandom.SobolEngine(self._low.shape[0], scramble=True, seed=7)
        unit = engine.draw(LOOK, dtype=torch.float64).numpy()
        return unit, *self(unit)

    def climb(
        self, seen: tuple[climbs.Vector, climbs.Vector, climbs.Vector], *more: climbs.Vector, most: int = _CLIMBED
    ) -> climbs.Climbs:
        """Climbs from ``most`` points of :meth:`look`, a quarter the highest, and from all of ``more``."""
        unit, value, slope = seen
        felt = np.flatnonzero(np.isfinite(slope).all(-1) & (slope != 0).any(-1) & np.isfinite(value))
        highest = felt[np.argsort(-value[felt], kind="stable")[: most // 4]]
        rest = np.setdiff1d(felt, highest)[: most - len(highest)]
        chosen = np.concatenate([highest, rest])
        others = np.concatenate([np.zeros_like(unit[:0]), *more])
        there = self(others)
        return climbs.climb(
            self,
            np.concatenate([unit[chosen], others]),
            np.concatenate([value[chosen], there[0]]),
            np.concatenate([slope[chosen], there[1]]),
            torch.finfo(self._low.dtype).eps,
        )

    def chart(self, bumps: climbs.Bumps) -> tuple[Tensor, Tensor, Tensor]:
        """Means ``(m, d)``, covariances ``(m, d, d)`` and log masses ``(m)`` of bumps in the chart, in doubles."""
        width = self._width.double().cpu().numpy()
        loc = self._low.double().cpu().numpy() + width * bumps.loc
        values = loc, width[:, None] * width * bumps.covariance, bumps.log_mass + np.log(width).sum()
        return tuple(torch.from_numpy(v).to(self._low.device) for v in values)  # type: ignore[return-value]
