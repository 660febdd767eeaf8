"""The precision network of the Riemannian VAE (Kalatzis et al. 2020, section 4 and appendix C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann._checks import check_finite
from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann._jets import Jet
from pyro_riemann._memory import is_recorded, is_transformed

_MANY = 64  # points, below which all functions are asked


class RBFPrecision(nn.Module):
    r"""Precision of the decoder by radial basis functions, small away from the data.

    .. math:: \beta(z) = W \exp\bigl(-|z - c_k|^2 / (2 h_k^2)\bigr) + \zeta, \qquad W > 0,

    so that the standard deviation :math:`\sigma = \beta^{-1/2}` rises to :math:`\zeta^{-1/2}` where
    there are no codes: the walls of the metric (K20, section 4 and figure 3; the form of the
    network is that of Que & Belkin, 2016, and Arvanitidis et al., 2018).

    K20 sets a "bandwidth of 0.01 in all cases" and does not say of what. A length of 0.01 leaves
    350 isolated spikes among codes that spread over units; read as the factor of the squared distance,
    :math:`\exp(-0.01 |z - c|^2)`, it is a length of 7. Neither knows the scale of the codes, so
    :meth:`fit` chooses :math:`h_k` from the data: ``bandwidth_factor`` times the mean distance of the
    codes of cluster k to their centre. ``bandwidth=`` of :meth:`fit` sets a length of your own
    (``0.5 ** 0.5 / 0.1`` for K20's number as a factor).

    Args:
        latent_dim: latent dimension d.
        data_dim: number D of data entries.
        num_centers: number of basis functions; K20 uses 350.
        floor: the :math:`\zeta` above. The default lets the standard deviation rise to 10.
        min_scale: least standard deviation, added in quadrature. Without it the likelihood of a
            constant pixel is unbounded.

    Raises:
        ValueError: if ``num_centers`` is less than 1, ``floor`` is not positive, or ``min_scale`` is out of range.

    Example:
        >>> precision = RBFPrecision(latent_dim=2, data_dim=3, num_centers=4)
        >>> precision.fit(torch.randn(100, 2))
        >>> far = precision.scale(torch.full((2,), 1e3))
        >>> far.detach().round(decimals=2)
        tensor([10., 10., 10.])
    """

    centers: Tensor
    bandwidth: Tensor

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        num_centers: int = 350,
        floor: float = 1e-2,
        min_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        if num_centers < 1:
            raise ValueError(f"`num_centers` must be at least 1, got {num_centers}.")
        if not floor > 0:
            raise ValueError(f"`floor` must be positive (a zero precision has no standard deviation), got {floor}.")
        if not 0 <= min_scale < floor**-0.5:
            raise ValueError(f"`min_scale` must lie in [0, floor ** -0.5 = {floor**-0.5:.3g}), got {min_scale}.")
        self.latent_dim, self.data_dim, self.floor, self.min_scale = latent_dim, data_dim, floor, min_scale
        self.register_buffer("centers", torch.linspace(-1, 1, num_centers)[:, None].repeat(1, latent_dim))
        self.register_buffer("bandwidth", torch.ones(num_centers))
        # log weights: one optimiser step is the same relative change for a precision of 1 and of 1000
        self.log_weight = nn.Parameter(torch.zeros(data_dim, num_centers))

    def precision(self, z: Tensor) -> Tensor:
        """Precision beta(z) before the least standard deviation: ``(*batch, d) -> (*batch, D)``."""
        rate = 0.5 / self.bandwidth.square()
        # expanded square: no array of n * k * d entries
        exponent = z.square().sum(-1, keepdim=True) * rate - 2 * functional.linear(z, self.centers * rate[:, None])
        basis = _bump(exponent + self.centers.square().sum(-1) * rate)
        return functional.linear(basis, self.log_weight.exp()) + self.floor

    def scale(self, z: Tensor) -> Tensor:
        """Standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``, between ``min_scale`` and ``floor ** -0.5``."""
        if self.min_scale == 0:
            return self.precision(z).rsqrt()
        return (self.precision(z).reciprocal() + self.min_scale**2).sqrt()

    def jet(self, z: Tensor) -> Jet:
        """Standard deviation at ``z`` ``(*batch, d)`` with its derivatives, for fast pullback metrics."""
        centers, bandwidth, weight = self._near(z)
        rate = 0.5 / bandwidth.square()
        offsets = [centers[:, axis] - z[..., axis, None] for axis in range(self.latent_dim)]
        exponent = rate * torch.stack([offset.square() for offset in offsets]).sum(0)
        basis = _bump(exponent)
        tangents = torch.stack([2 * rate * offset * basis for offset in offsets])
        spread = [2 * rate * offset for offset in offsets]

        def bend(v: Tensor) -> Tensor:
            slope = spread[0] * v[..., :1]
            for axis in range(1, self.latent_dim):
                slope = torch.addcmul(slope, spread[axis], v[..., axis : axis + 1])
            return basis * (slope.square() - 2 * rate * v.square().sum(-1, keepdim=True))

        precision = Jet(basis, tangents, bend).linear(weight)
        inverse = (precision.value + self.floor).reciprocal()
        variance = inverse + self.min_scale**2
        root = variance.rsqrt()
        first = -0.5 * inverse.square() * root
        return precision.elementwise(
            lambda: variance * root, first, lambda: torch.add(first * root, inverse, alpha=2).neg(), relative=True
        )

    def _near(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres, bandwidths and weights of the functions that have a say at ``z``: those that round-off has not lost.

        All of them where few points or many functions make that a loss, and where a gradient is wanted.
        """
        weight = self.log_weight.exp()
        plain = not (torch.is_grad_enabled() or is_recorded() or is_transformed())
        if not plain or z.dim() != 2 or len(z) < _MANY or z.device.type != "cpu":
            return self.centers, self.bandwidth, weight
        gap = (z.amin(0) - self.centers).clamp(min=0) + (self.centers - z.amax(0)).clamp(min=0)
        largest = self.log_weight.amax(0) - 0.5 * gap.square().sum(-1) / self.bandwidth.square()
        near = largest > math.log(self.floor * torch.finfo(z.dtype).eps / len(gap))
        if 2 * int(near.sum()) > len(near):
            return self.centers, self.bandwidth, weight
        return self.centers[near], self.bandwidth[near], weight[:, near]

    def forward(self, z: Tensor) -> Tensor:
        """The same as :meth:`scale`, ``(*batch, D)`` at ``z``."""
        return self.scale(z)

    @torch.no_grad()
    def fit(
        self,
        codes: Tensor,
        residuals: Tensor | None = None,
        bandwidth: float | None = None,
        bandwidth_factor: float = 1.5,
        seed: int = 0,
        max_codes: int = 20_000,
    ) -> None:
        """Place the centres by k-means on encoded training data and set bandwidths and weights.

        Args:
            codes: encoded training data, ``(n, d)``.
            residuals: squared residuals of the decoder mean at the codes, ``(n, D)``. Given these, the
                weights start at the inverse mean residual of each cluster; else they stay.
            bandwidth: one length for all centres, instead of the rule above.
            bandwidth_factor: multiple of the clusters' mean radius.
            seed: seed of k-means.
            max_codes: k-means sees at most this many codes (evenly spaced rows).

        Raises:
            ValueError: if there are fewer distinct codes than centres, or codes of the wrong shape.
        """
        sample = codes[:: max(1, len(codes) // max_codes)]
        points = formulas.check_codes(sample.cpu().double().numpy(), self.latent_dim, bandwidth)
        check_finite("codes", codes)
        self.centers.copy_(torch.from_numpy(formulas.cluster_centers(points, len(self.centers), seed)))
        distance, nearest = torch.cdist(codes.to(self.centers), self.centers).min(-1)
        counts = torch.zeros_like(self.bandwidth).index_add_(0, nearest, torch.ones_like(distance))
        radius = torch.zeros_like(self.bandwidth).index_add_(0, nearest, distance) / counts.clamp(min=1)
        median = float(radius[radius > 0].median())
        self.bandwidth.copy_(formulas.bandwidths(torch, radius, median, bandwidth, bandwidth_factor))
        if residuals is not None:
            self._fit_weights(codes.to(self.centers), residuals.to(self.centers), nearest)

    def _fit_weights(self, codes: Tensor, residuals: Tensor, nearest: Tensor) -> None:
        """Weights for which the precision at a centre is the inverse mean residual of its cluster."""
        formulas.check_residuals(residuals, len(codes), self.data_dim)
        total = torch.zeros_like(self.log_weight.mT).index_add_(0, nearest, residuals)
        counts = torch.zeros_like(self.bandwidth).index_add_(0, nearest, torch.ones_like(residuals[:, 0]))
        apart = torch.cdist(self.centers, self.centers) / self.bandwidth
        weights = formulas.log_weights(torch, total, counts[:, None], residuals.mean(0), self.min_scale, apart)
        self.log_weight.copy_(weights)


def _bump(exponent: Tensor) -> Tensor:
    """``exp(-exponent)``, cut off where single precision has subnormal numbers, which slow matrix products tenfold."""
    return torch.exp(-exponent.clamp(max=80))
