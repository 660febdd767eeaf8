"""Flat tori and cylinders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann._formulas.flat import Torus
from pyro_riemann._vmap import is_mapped
from pyro_riemann.manifolds._heat_kernel import ExactKernels
from pyro_riemann.metrics import EuclideanMetric


class FlatTorus(Torus[Tensor], EuclideanMetric):
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
        >>> kernel = FlatTorus(1, periods=1.0).log_heat_kernel(torch.zeros(1), torch.full((1,), 0.5), time=10.0)
        >>> round(kernel.exp().item(), 4)  # uniform after a long time
        1.0
    """

    kernels = ExactKernels()
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
        widest = width.amax(0).tolist() if len(width) else [0.0] * self.dim
        return self._log_images(z, y, factor, self._num_images(widest, self.periods.tolist())).logsumexp(0)
