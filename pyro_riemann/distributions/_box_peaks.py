"""The volume element of a metric as seen by climbs: a function on the unit box, and where its bumps are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._formulas import climbs
from pyro_riemann.distributions._box import log_volume_slope
from pyro_riemann.metrics import RiemannianMetric

LOOK = 2048  # quasi-random points at which climbs may start
Seen: TypeAlias = tuple[climbs.Vector, climbs.Vector, climbs.Vector]


class Landscape:
    r"""The log volume element :math:`\log\sqrt{\det G}` in a box, as a function of NumPy arrays on the unit box.

    Args:
        metric: the metric.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor) -> None:
        self._metric, self._low, self._width = metric, low.detach(), (high - low).detach()
        self.log_width = float(self._width.double().log().sum())

    def __call__(self, unit: climbs.Vector) -> tuple[climbs.Vector, climbs.Vector]:
        """Values ``(n)`` and gradients ``(n, d)`` at ``unit (n, d)``; NaN where the metric has no volume element."""
        value, gradient = log_volume_slope(self._metric, self.points(unit))
        return value.double().cpu().numpy(), (gradient * self._width).double().cpu().numpy()

    def points(self, unit: climbs.Vector) -> Tensor:
        """Points of the unit box in the chart, ``(n, d)``."""
        return self._low + self._width * torch.from_numpy(unit).to(self._low)

    def unit(self, points: Tensor) -> climbs.Vector:
        """Those of ``points (n, d)`` that lie in the box, in coordinates of the unit box."""
        scaled = ((points.detach().to(self._low) - self._low) / self._width).double().cpu().numpy()
        inside: climbs.Vector = scaled[((scaled >= 0) & (scaled <= 1)).all(-1)]
        return inside

    def look(self, turn: int = 0) -> Seen:
        """Quasi-random points of the unit box, other ones in each turn, with values and gradients."""
        engine = torch.quasirandom.SobolEngine(self._low.shape[0], scramble=True, seed=7 + turn)
        count = LOOK if self._low.shape[0] > 2 else 4 * LOOK  # what a table does not see is narrow
        unit = engine.draw(count, dtype=torch.float64).numpy()
        return unit, *self(unit)

    def climb(self, seen: Seen, most: int) -> climbs.Climbs:
        """Climbs from ``most`` points of :meth:`look`, a quarter of them the highest, where a gradient is felt."""
        unit, value, slope = seen
        felt = np.flatnonzero(np.isfinite(slope).all(-1) & (slope != 0).any(-1) & np.isfinite(value))
        highest = felt[np.argsort(-value[felt], kind="stable")[: most // 4]]
        chosen = np.concatenate([highest, np.setdiff1d(felt, highest)[: most - len(highest)]])
        return self.climb_from(unit[chosen], value[chosen], slope[chosen])

    def climb_from(self, unit: climbs.Vector, value: climbs.Vector, slope: climbs.Vector) -> climbs.Climbs:
        """Climbs from points ``(n, d)`` of the unit box with values and gradients."""
        return climbs.climb(self, unit, value, slope, torch.finfo(self._low.dtype).eps)

    def chart(self, bumps: climbs.Bumps) -> tuple[Tensor, Tensor, Tensor]:
        """Means ``(m, d)``, covariances ``(m, d, d)`` and log masses ``(m)`` of bumps in the chart, in doubles."""
        width = self._width.double().cpu().numpy()
        loc = self._low.double().cpu().numpy() + width * bumps.loc
        values = loc, width[:, None] * width * bumps.covariance, bumps.log_mass + self.log_width
        mean, covariance, log_mass = (torch.from_numpy(value).to(self._low.device) for value in values)
        return mean, covariance, log_mass
