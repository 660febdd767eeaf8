"""Flat tori and cylinders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._formulas import densities, torus
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._vmap import is_mapped
from pyro_riemann.manifolds import _heat_kernel
from pyro_riemann.metrics import EuclideanMetric

_IMAGES = 10_000  # at most, in the sum of a tangent Gaussian with a covariance


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

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether no axis has a finite period."""
        return bool(self.periods.isinf().all())

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

    def log_folded_normal(self, z: Tensor, y: Tensor, factor: Tensor) -> Tensor | None:
        """Log density of a tangent Gaussian, summed over the images of ``y``, ``(*batch)``.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: where more than 10,000 images count, or values cannot be read (``torch.jit.trace``).
        """
        if torch.jit.is_tracing() or is_mapped(factor):
            raise NotImplementedError(
                "The sum over the images of a torus has as many terms as the covariance asks for."
            )
        width = factor.detach().square().sum(-1).sqrt().reshape(-1, self.dim)
        periods = self.periods.tolist()
        counts = torus.num_images(width.amax(0).tolist() if len(width) else [0.0] * self.dim, periods)
        if (size := math.prod(2 * count + 1 for count in counts)) > _IMAGES:
            raise NotImplementedError(
                f"A tangent Gaussian as wide as {width.amax(0).tolist()} on a torus of periods {periods} is a sum over "
                f"{size} images: give a smaller covariance, or `time`, whose sum is one an axis."
            )
        turns = torch.tensor(torus.images(counts), dtype=z.dtype, device=z.device)
        shifts, _ = torus.shifts(torch, turns, self.periods.to(z))
        step = self.wrap(y - z)
        step = step + shifts.reshape(-1, *(1,) * (step.dim() - 1), self.dim)
        noise = _linalg.solve(factor.expand(*step.shape, self.dim), step).square().sum(-1)
        log_factor = _linalg.log_abs_det(factor)
        zero = torch.zeros_like(log_factor)
        return densities.tangent_normal(torch, self.dim, noise, log_factor, zero, zero).logsumexp(0)

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
