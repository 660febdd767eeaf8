"""The mixture proposal of a metric on a box, in its chart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas.unit_groups import Groups
from pyro_riemann._formulas.unit_mixture import UnitMixture, weigh
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import Target


class MixtureProposal(NamedTuple):
    r"""Defensive mixture: Gaussian parts for the bumps of :math:`\sqrt{\det G}`, and a uniform part on the box.

    .. math:: q(z) = \sum_i w_i\, N(z; \mu_i, C_i) + w_u\, 1_{box}(z) / |box|

    Draws of a Gaussian that fall outside the box have target density 0 and are refused by whoever weighs them.
    Densities are with respect to dz. Everything is in double precision.

    Attributes:
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        unit: the mixture on the unit box.

    Source: the bumps of C22 eq. 7; defensive mixtures are those of Hesterberg (1995), *Weighted average importance
    sampling and defensive mixture distributions*.

    Example:
        >>> metric = KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), bandwidth=1.0, regularization=1e-9)
        >>> proposal = MixtureProposal.of_peaks(metric, torch.full((2,), -9.0), torch.full((2,), 9.0))
        >>> proposal.draw(4).shape, [round(share, 4) for share in proposal.shares.tolist()]
        (torch.Size([4, 2]), [0.95, 0.05])
    """

    low: Tensor
    high: Tensor
    unit: UnitMixture

    @classmethod
    def of_peaks(cls, metric: RiemannianMetric, low: Tensor, high: Tensor) -> MixtureProposal:
        r"""One Gaussian for each of the peaks that the metric knows of.

        Weights are proportional to :math:`\sqrt{\det G(c_i) \det C_i}`, which counts what neighbours add at the top;
        the uniform part has the share of the volume that half of the box is below, and at least 5 %.

        Args:
            metric: the metric; a :class:`~pyro_riemann.KernelMetric`, for one, knows its peaks.
            low: lower corner of the box, ``(d)``.
            high: upper corner, ``(d)``.

        Raises:
            ValueError: if the metric has no finite volume element at a peak or elsewhere in the box.
        """
        target = Target(metric, low, high)
        unit = torch.quasirandom.SobolEngine(len(low), scramble=True, seed=0).draw(256, dtype=torch.float64)
        rest, known = float(target.value(unit.to(target.origin)).median()), target.land.known
        mixture = Groups.of_bumps([] if known is None else [known], rest).mixture(metric.dim)
        return cls(target.low.double(), target.high.double(), target.on_device(mixture))

    @property
    def shares(self) -> Tensor:
        """Probabilities of the Gaussians and, last, of the uniform part, ``(m + 1)``."""
        shares: Tensor = self.unit.log_share.exp()
        return shares

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density with respect to dz at points ``z`` ``(n, d)`` of the box, ``(n)``."""
        width = self.high - self.low
        return self.unit.log_prob(RUNTIME, (z.double() - self.low) / width) - width.log().sum()

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``(count, d)`` draws by a ``generator``, the global one if None; a few lie outside the box."""
        uniform = RUNTIME.uniform(generator, (count, len(self.low) + 1), self.low)
        return self.low + (self.high - self.low) * self.unit.place(RUNTIME, uniform)

    def weigh(self, metric: RiemannianMetric, z: Tensor, dtype: torch.dtype) -> Tensor:
        r"""Log importance weights :math:`\log \sqrt{\det G} - \log q`, ``(n)``; ``-inf`` outside the box.

        Args:
            metric: gives the target, evaluated in ``dtype``.
            z: points ``(n, d)``.
            dtype: that of the metric.
        """
        target = Target(metric, self.low.to(dtype), self.high.to(dtype))
        return weigh(RUNTIME, target.value, self.unit, (z.double() - self.low) / (self.high - self.low))
