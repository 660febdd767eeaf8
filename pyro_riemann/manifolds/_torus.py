"""Flat tori and cylinders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann._checks import check_point
from pyro_riemann._formulas import torus
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.manifolds import _heat_kernel
from pyro_riemann.metrics import EuclideanMetric


class FlatTorus(EuclideanMetric):
    """The flat torus, R^d with ``z`` and ``z + period`` the same point.

    The chart is the covering space R^d with the identity metric, as for ``pyro.distributions.VonMises``:
    any real ``z`` is accepted, distances and densities are periodic, and a density has mass 1 over one
    period (not over R^d). ``expmap`` and ``geodesic`` move continuously and do not wrap: a geodesic
    from ``z`` to ``y`` ends at the image of ``y`` nearest to ``z``. :meth:`wrap` brings points back to
    ``[-period / 2, period / 2)``.

    An infinite period leaves its axis a line: ``FlatTorus(2, [2 * torch.pi, float("inf")])`` is the
    flat cylinder. Half a period away (the cut locus) two images are equally near; the tie is
    broken one way or the other, and gradients there are one-sided.

    Args:
        dim: dimension d.
        periods: period of each axis, one number for all or d of them; positive, may be infinite.

    Raises:
        ValueError: if ``periods`` has the wrong length or is not positive.

    Source: Mardia & Jupp (2000), *Directional Statistics*, section 3.5, for the wrapped normal law.

    Example:
        >>> torus = FlatTorus(2)  # two angles
        >>> round(torus.dist(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 0.0])).item(), 4)  # 2 pi - 6
        0.2832
    """

    periods: Tensor

    def __init__(self, dim: int, periods: float | Sequence[float] | Tensor = 2 * math.pi) -> None:
        super().__init__(dim)
        # float64 whatever the default: a period rounded to float32 is off by 1e-7
        value = torch.as_tensor(periods, dtype=torch.float64).detach().clone()
        if value.dim() > 1 or (value.dim() == 1 and len(value) != dim):
            raise ValueError(f"`periods` must be one number or {dim} of them, got shape {tuple(value.shape)}.")
        if not bool((value > 0).all()):
            raise ValueError(f"`periods` must be positive (or infinite), got {value.tolist()}.")
        self.register_buffer("periods", value.expand(dim).clone())

    def extra_repr(self) -> str:
        return f"dim={self.dim}, periods={self.periods.tolist()}"

    def wrap(self, z: Tensor) -> Tensor:
        """The image ``(*batch, d)`` of ``z`` in ``[-period / 2, period / 2)``, axis by axis; derivative 1."""
        check_point("z", z, self.dim)
        return torus.wrap(torch, z, self.periods.to(z))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0, self.periods)

    def injectivity_radius(self, z: Tensor) -> Tensor | None:
        return (self.periods.min() / 2).to(z).expand(z.shape[:-1])

    def logmap(self, z: Tensor, y: Tensor) -> Tensor:
        return self.wrap(y - z)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.wrap(y - z).square().sum(-1)

    def log_folded_density(self, z: Tensor, y: Tensor, time: Tensor) -> Tensor | None:
        return self.log_heat_kernel(z, y, time)  # on flat manifolds the same law

    def log_heat_kernel(self, z: Tensor, y: Tensor, time: float | Tensor) -> Tensor:
        """Log transition density of Brownian motion at variance ``time``, exact: a wrapped normal per axis.

        With respect to dM = dz over one period; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive.

        Example:
            >>> torus = FlatTorus(1, periods=1.0)
            >>> kernel = torus.log_heat_kernel(torch.zeros(1), torch.full((1,), 0.5), time=10.0)
            >>> round(kernel.exp().item(), 4)  # uniform after a long time
            1.0
        """
        step, time = self.wrap(y - z), _heat_kernel.as_time(time, z)
        return _heat_kernel.circle(step, time[..., None], self.periods.to(z)).sum(-1)
